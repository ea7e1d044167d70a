"""What benchmarks/finding.py draws, times and shows, on galleries so small that no figure means anything."""

import sys

import torch
from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import finding

sys.path.remove(str(ROOT / "benchmarks"))  # there is a retrieval.py, which would hide the tests' folder of that name


def test_the_gallery_has_homes_and_the_queries_are_rows_more_of_them():
    seen = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    codes, queries = finding.drawn_codes(seen, 210)
    assert codes.shape == (210, 8)
    assert queries.shape == (finding.DRAWN, 8)
    homes = codes[:200].view(10, 20, 8)
    within, between = homes.std(1).mean(), homes.mean(1).std(0).mean()
    # By construction 0.5, and sqrt(2) from a photo's code and the home's own step, in spreads of the photos' codes.
    torch.testing.assert_close(float(within / seen.std(0).mean()), 0.5, rtol=0.15, atol=0)
    assert between > 2 * within
    assert torch.cdist(queries, codes).min() > 0


def test_every_way_of_a_task_has_a_row_with_its_milliseconds():
    codes, queries = finding.drawn_codes(torch.randn(30, 8, generator=torch.Generator().manual_seed(1)), 60)
    engines, builds = finding.built(codes)
    assert list(engines) == ["exact", "flat", "ivf", "hnsw", "qdrant"]
    assert builds["exact"].keys() >= {"build s", "held MiB"}
    recalls = finding.recall_of_each(engines, queries)
    assert [recalls[name]["recall@10"] for name in ("exact", "flat", "qdrant")] == [1, 1, 1]
    calls = finding.searches(engines, queries[:3], 1)
    rows = list(finding.timed("1 query, 60 rows", calls, 2, "exact", 3))
    assert [row["way"] for row in rows] == list(engines)
    assert rows[0]["× exact"] == 1
    assert all(row["ms"] > 0 and len(row["seconds"]) == 2 for row in rows)


def test_a_figure_is_drawn_of_the_rows(tmp_path):
    ways = [*finding.STEPS, *(f"search: {told}" for told in finding.ENGINES.values())]
    rows = [
        {"task": f"one photo, {size} rows", "way": way, "rows": size, "ms": 1.0} for size in (10, 100) for way in ways
    ]
    rows += [{"task": "1 query, 10 rows", "way": name, "rows": 10, "ms": 1.0} for name in (*finding.ENGINES, "qdrant")]
    finding.draw(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
