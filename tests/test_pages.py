"""What the pages say of speed and memory is what was measured; a benchmark that fails loses itself alone."""

import json
import re
import sys

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import pages
import running

sys.path.remove(str(ROOT / "benchmarks"))  # there is a retrieval.py, which would hide the tests' folder of that name

PAGES = sorted((ROOT / "docs").glob("*.md"))
ENVIRONMENT = {
    "date": "2026-01-02",
    "command": "python benchmarks/training.py",
    "cpu": "a processor",
    "cores": 2,
    "threads": 2,
    "gpu": "none",
    "load before": 0.1,
    "load after": 1.9,
    "others": 0.01,
    "python": "3.11.7",
    "versions": {"torch": "2.15.0", "no-such-peer": "missing"},
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    return lambda name, rows, **more: (tmp_path / f"{name}.json").write_text(
        json.dumps({"environment": {**ENVIRONMENT, **more}, "rows": rows})
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_figures_of_the_results(page):
    assert pages.remade(page.read_text()) == page.read_text(), "make the pages again: python benchmarks/pages.py"


def test_every_block_is_on_one_page():
    marks = [name for page in PAGES for name in re.findall(r"<!-- measured: (\S+) -->", page.read_text())]
    assert sorted(marks) == sorted(pages.BLOCKS)


def test_a_block_has_its_table_and_where_it_was_measured(results):
    told = {"head": "8 → 2 → 8", "spread": 0.5}
    rows = [
        {**told, "way": "floor", "ms": 2.0, "× floor": 1.0, "seconds": [1.0] * 5},
        {**told, "way": "ours", "ms": 3.0, "× floor": 1.5, "seconds": [1.0] * 5, "spread": 0.1},
        {"head": "8 → 2 → 8", "way": "theirs", "missing": "no_such_peer"},
    ]
    results("training", rows)
    assert pages.BLOCKS["training"]() == (
        "|   | 8 → 2 → 8 |\n"
        "| --- | --- |\n"
        "| floor | 2 ms, × 1 |\n"
        "| ours | 3 ms, × 1.5 |\n"
        "| theirs | missing |\n"
        "\n"
        "`python benchmarks/training.py`, 2026-01-02, a processor, 2 cores, threads 2, load 0.1 before and 1.9 after; "
        "Python 3.11.7, torch 2.15.0. Medians of at least 5 rounds. "
        "The slowest round is at most 0.50 of the median above the fastest; more than 0.3 in 1 of 2 rows. "
        "Missing: theirs (no no_such_peer)."
    )


def test_a_machine_that_was_not_quiet_is_said_to_be_so(results):
    row = {"way": "floor", "head": "h", "ms": 2.0, "seconds": [1.0] * 5}
    results("training", [row], others=0.35)
    assert pages.BLOCKS["training"]().endswith("**Other work had 35% of the cores meanwhile.**")


def test_what_was_not_measured_is_said_to_be_missing(results):
    assert pages.BLOCKS["training"]() == "Not measured yet: what `python benchmarks/training.py` writes."


def test_a_figure_that_was_changed_by_hand_is_made_again(results):
    results("training", [{"way": "floor", "head": "h", "ms": 2.0}])
    made = pages.remade("before\n<!-- measured: training -->\n<!-- end -->\nafter\n")
    assert "| floor | 2 ms |" in made
    assert made.startswith("before\n")
    assert made.endswith("\n<!-- end -->\nafter\n")
    assert pages.remade(made.replace("2 ms", "1 ms")) == made


def test_the_largest_measured_is_reckoned_to_a_hundred_million(results):
    """Of 1,000 pictures to 10⁸: hits, which grow with the square, take 10¹⁰ times 2 ms; a table 10⁵ times 3 ms."""
    parts = {f"{part} s": 0.0 for part in pages.GROWING}
    row = {"pictures": 1000, "store GB": 0.001, **parts, "hits s": 0.002, "table s": 0.003}
    lines = pages.growing([row]).splitlines()
    assert "| hits | Q² C | 2 ms at 1,000 | 231 days |" in lines
    assert "| table | N | 3 ms at 1,000 | 5 min |" in lines
    assert "| store | N (4 D + 36) | 0.001 GB at 1,000 | 100 GB |" in lines


def test_a_part_that_fails_or_takes_too_long_loses_itself_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "LOGS", tmp_path)
    parts = [
        running.Part("wrong", ("-c", "print('what went wrong'); raise SystemExit(3)"), 1, 60),
        running.Part("slow", ("-c", "import time; time.sleep(600)"), 1, 1),
        running.Part("not there", ("no_such_benchmark.py",), 1, 60),
        running.Part("good", ("-c", "print('measured')"), 1, 60),
    ]
    rows = running.run_all(parts)
    assert [row["outcome"] for row in rows] == [
        "failed with exit code 3",
        "ended: it took more than 1 s",
        "missing: there is no benchmarks/no_such_benchmark.py",
        "done",
    ]
    assert (tmp_path / "good.log").read_text() == "measured\n"
    assert running.failures(rows) == 2
    said = capsys.readouterr().out
    assert "    | what went wrong\n" in said
    assert "failed: wrong, slow (" in said


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_benchmark_works_on_next_to_nothing():
    rows = running.run_all([running.Part("bench", ("bench.py", "--quick"), 300, 1100)])
    assert rows[0]["outcome"] == "done"
