"""What benchmarks/gpu_retrieval.py checks before it measures: that can be seen on a CPU."""

import sys

import pytest
import torch
from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_retrieval

sys.path.remove(str(ROOT / "benchmarks"))  # there is a retrieval.py, which would hide the tests' folder of that name


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setenv("LIKENESS_FUSED", "0")  # the benchmark sets it
    return gpu_retrieval.drawn(600, torch.device("cpu"), width=16)


def test_a_cpu_has_torchs_products_alone_and_they_pass(few):
    ways = gpu_retrieval.answering(few)
    assert list(ways) == ["neighbours, torch", "hits, torch"]
    gpu_retrieval.refuse_wrong(ways, few)


def test_the_book_on_a_drawn_example(monkeypatch):
    monkeypatch.setattr(gpu_retrieval, "K", 2)
    angles = torch.tensor([0.0, 10, 25, 45, 70]).deg2rad()
    data = gpu_retrieval.Drawn(
        torch.stack([angles.cos(), angles.sin()], dim=1), torch.tensor([0, 1, 0, 1, 0]), torch.arange(5)
    )
    nearest, above = gpu_retrieval.by_the_book(data, torch.arange(5))
    assert nearest.tolist() == [[1, 2], [0, 2], [1, 3], [2, 4], [3, 2]]
    assert above.tolist() == [1, 2, 2, 2, 1]


@pytest.mark.parametrize("way", ["neighbours, torch", "hits, torch"])
def test_one_wrong_answer_and_there_are_no_figures(few, way):
    found = gpu_retrieval.answering(few)[way]().clone()
    found[599] += 1
    with pytest.raises(SystemExit, match=f"600 rows, {way}: 1 of 600 answers differ from float64's"):
        gpu_retrieval.refuse_wrong({way: lambda: found}, few)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_retrieval.py"])
    with pytest.raises(SystemExit, match="there is no CUDA device"):
        gpu_retrieval.main()
