"""Retrieval over several processes is that of one, bit for bit, whatever rows each of them has."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from retrieval.ring_ranks import WORLD, Rows, computed, shared, tried

from likeness.errors import LikenessError
from likeness.retrieval.metric import SimilarityRetrieval
from likeness.retrieval.neighbours import neighbours
from likeness.retrieval.ring import ALONE
from likeness.retrieval.ring import neighbours as of_all

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The folder with what each process said, and how they ended."""
    folder = tmp_path_factory.mktemp("ring")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    command = [sys.executable, str(HERE / "ring_ranks.py"), str(folder)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert finished.stdout == "0 3 0 0", finished.stderr
    return folder


@pytest.fixture(scope="module")
def said(processes):
    return [torch.load(processes / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def same(mine, one):
    return all(value == one[name] or (math.isnan(value) and math.isnan(one[name])) for name, value in mine.items())


@pytest.mark.fault("F43")
@pytest.mark.filterwarnings("ignore:.*(zero|means are NaN)")
@pytest.mark.parametrize(("case", "kind", "world"), list(tried()), ids=lambda it: getattr(it, "name", it))
def test_any_shares_of_any_rows_give_what_one_process_finds(case, kind, world, said):
    every = Rows(*map(torch.cat, zip(*shared(case.rows, kind, world), strict=True)))
    hits = computed(SimilarityRetrieval(only_hits=True, **case.options), every)
    metric = SimilarityRetrieval(**case.options)
    values, scores = computed(metric, every), metric.scores()
    found = [said[rank][f"{case.name}, {kind}"] for rank in range(WORLD - world, WORLD)]
    for mine in found:
        assert same(mine["hits"], hits)
        assert same(mine["values"], values)
        assert torch.equal(mine["rank"], scores.rank)
        assert torch.equal(mine["neighbours"], scores.neighbour_ids)
        assert torch.equal(mine["similarities"], scores.similarities)
    if case.own:
        homes = case.rows.homes if case.options.get("exclude_group") else None
        assert_neighbours_of_one([mine["own"] for mine in found], case.rows, homes)


def assert_neighbours_of_one(own, table, homes):
    groups = {"query_groups": homes, "gallery_groups": homes}
    wanted = neighbours(table.codes, table.codes, 5, query_ids=table.ids, gallery_ids=table.ids, **groups)
    ids, similarities, found = (torch.cat(each) for each in zip(*own, strict=True))
    assert sorted(ids.tolist()) == sorted(table.ids.tolist())
    order, wanted_order = ids.argsort(), table.ids.argsort()
    assert torch.equal(found[order], table.ids[wanted.indices[wanted_order]])
    assert torch.equal(similarities[order], wanted.similarities[wanted_order])


def test_all_processes_are_told_what_one_of_them_cannot_use(said):
    for name, hits, scores in [
        ("an infinite code", "6 of 6 rows are not finite", "6 of 24 rows are not finite"),
        ("another label", *["rows with the same sample id differ in label"] * 2),
        ("another width", *["codes are [2, 3] wide in different processes"] * 2),
        ("too few", *["k=24, but query"] * 2),
    ]:
        for rank in range(WORLD):
            for mine, first, wanted in zip(said[rank][name], said[0][name], (hits, scores), strict=True):
                assert mine == first
                assert wanted in mine


@pytest.mark.fault("F44")
def test_a_process_that_goes_in_the_middle_of_the_ring_is_told_as_lost(processes):
    assert [(processes / f"{rank}.txt").read_text() for rank in (0, 2, 3)] == ["RANK-LOST"] * 3
    assert not (processes / "1.txt").exists()


def test_one_process_is_a_ring_of_its_own():
    codes, ids = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]), torch.tensor([7, 5, 6])
    found = of_all(ALONE, codes, ids, 1)
    assert found.query_ids.tolist() == [5, 6, 7]
    assert found.ids.tolist() == [[6], [7], [6]]
    assert found.similarities.flatten().tolist() == pytest.approx(
        [1 / math.sqrt(5), 2 / math.sqrt(5), 2 / math.sqrt(5)]
    )
    with pytest.raises(LikenessError, match="k=3, but query 5 has only 2 candidates"):
        of_all(ALONE, codes, ids, 3)
    with pytest.raises(LikenessError, match="1 of 3 query rows are zero"):
        of_all(ALONE, codes * (ids > 5)[:, None], ids, 1)
