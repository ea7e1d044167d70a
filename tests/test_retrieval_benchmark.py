"""What benchmarks/retrieval.py compares, on codes so few that no figure means anything."""

import importlib.util
import sys

import pytest
import torch
from helpers import ROOT

from likeness.retrieval import filtering

sys.path.insert(0, str(ROOT / "benchmarks"))
_spec = importlib.util.spec_from_file_location("retrieval_benchmark", ROOT / "benchmarks" / "retrieval.py")
benchmark = importlib.util.module_from_spec(_spec)  # under another name, for the tests have a folder of its own
_spec.loader.exec_module(benchmark)
sys.path.remove(str(ROOT / "benchmarks"))


def test_a_float32_filter_finds_the_same_and_rounds_nothing_to_bfloat16(monkeypatch):
    codes, labels = benchmark.drawn(600)
    ways, rounded, rounding = benchmark.ours(codes, labels, 3), [], filtering._rounded
    monkeypatch.setattr(filtering, "_rounded", lambda *given: (rounded.append(given[-1]), rounding(*given))[1])
    for way in ("likeness, neighbours", "likeness, hits"):
        rounded.clear()
        found = ways[f"{way}, float32 filter"]()
        assert set(rounded) == {torch.float32}
        assert torch.equal(found, ways[way]())


def test_peers_and_this_project_count_the_same_hits():
    """hit@3 of rows without ties, as this project, torchmetrics and a plain loop have it."""
    codes, labels = benchmark.drawn(80)
    similarity = codes.double() @ codes.double().T - 9 * torch.eye(80)
    plain = [bool((labels[row.topk(3).indices] == label).any()) for row, label in zip(similarity, labels, strict=True)]
    share = sum(plain) / len(plain)
    assert (benchmark.hits(codes, labels, 3) < 3).tolist() == plain
    assert benchmark.torchmetrics_hit_rate(codes, labels, 3).item() == pytest.approx(share, abs=1e-6)
