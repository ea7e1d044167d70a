"""Several processes: their metric is that of one, by the book, and none waits for one that has gone."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.metric_ranks import SIZES, WORLD, cases, options, sample
from retrieval.by_the_book import reference

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}


def expected(n):
    """The means over the counted queries, and each query's neighbours, by definition."""
    codes, labels, ids, homes = (column.numpy() for column in sample(n))
    asked = options(n)
    rows = reference(codes.astype(np.float64), labels, ids.tolist(), homes, [(True, True)] * n, asked)
    counted = [row for row in rows if row["positives"]]

    def mean(of):
        return sum(map(of, counted)) / len(counted) if counted else math.nan

    values = {f"hit@{k}": mean(lambda row, k=k: 0 < row["rank"] <= k) for k in asked["ks"]}
    values |= {f"precision@{k}": mean(lambda row, i=i: row["precision"][i]) for i, k in enumerate(asked["ks"])}
    values |= {"map@r": mean(lambda row: row["ap"]), "mrr": mean(lambda row: row["rank"] and 1 / row["rank"])}
    values |= {f"vote@{asked['vote_k']}": mean(lambda row: row["vote"] == row["label"])}
    values |= {"published_top5": mean(lambda row: row["top5"])}
    return values | {"n": len(counted), "skipped": n - len(counted)}, [row["neighbours"] for row in rows]


def furthest(values, neighbours, wanted):
    """How far a value is from the expected one; infinite where a neighbour is another."""
    wanted_values, wanted_neighbours = wanted
    for mine, theirs in zip(neighbours, wanted_neighbours, strict=True):
        if mine != (theirs + [-1] * len(mine))[: len(mine)]:
            return math.inf
    gaps = [
        abs(values[name] - value) if not math.isnan(value) else 0.0 if math.isnan(values[name]) else math.inf
        for name, value in wanted_values.items()
    ]
    return max(gaps)


@pytest.mark.fault("F43")
def test_any_share_among_processes_gives_the_numbers_of_the_book(tmp_path, figure, count):
    every = bool(count(0, 1, 1))
    command = [sys.executable, str(HERE / "metric_ranks.py"), str(tmp_path), *["every"] * every]
    finished = subprocess.run(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr
    wanted = {n: expected(n) for n in SIZES}
    gaps = {}
    for rank in range(WORLD):
        for *case, values, neighbours in json.loads((tmp_path / f"{rank}.json").read_text()):
            if case[1]:
                gaps[rank, *case] = furthest(values, neighbours, wanted[case[1]])
            else:
                assert math.isnan(values["hit@1"]), case
    assert len(gaps) == sum(world for world, *_ in cases(every))
    far = {case: gap for case, gap in gaps.items() if not gap <= 1e-12}
    what = f"processes' metrics further than 1e-12 from the book, of {len(gaps)} (ranks to 4, n to 17, an empty rank)"
    figure("G12", what, 0, len(far))


@pytest.mark.fault("F44")
@pytest.mark.parametrize("how", ["raised", "killed"])
def test_a_process_that_fails_ends_the_others_and_is_heard(how, tmp_path):
    command = [sys.executable, str(HERE / "failing_rank.py"), how, str(tmp_path / "run")]
    finished = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert finished.returncode in ((65, 69, 70) if how == "raised" else (69, 70)), finished.stderr
    assert ("ERROR [NAN] the rows of rank 1 are not finite." in finished.stderr) == (how == "raised")
    told = finished.stderr[finished.stderr.index("[RANK-LOST]") :].splitlines()
    assert [line.partition(":")[0].strip() for line in told[:6]] == [
        *("[RANK-LOST] another process of this job has failed or was killed; this one ends with it.", "where", "cause"),
        *("kept", "fix", "exit 69"),
    ]
