"""What the benchmarks share; the benchmarks themselves are run by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import measuring


def test_calls_take_turns_and_no_call_always_comes_first():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = measuring.interleaved(calls, repeats=2)
    assert "".join(order) == "abc" + "abc" + "bca"
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2, "c": 2}
    assert {name: len(taken.processor) for name, taken in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_call_whose_package_is_not_installed_is_missing_and_the_others_are_timed():
    def peer():
        import no_such_peer  # noqa: F401

    seconds = measuring.interleaved({"ours": int, "theirs": peer}, repeats=3)
    assert measuring.figures(seconds, "theirs") == {"missing": "no_such_peer"}
    assert len(seconds["ours"]) == 3


def test_a_module_of_this_project_that_cannot_be_found_is_no_missing_peer():
    def ours():
        import likeness.no_such_module  # noqa: F401

    with pytest.raises(ModuleNotFoundError, match=r"likeness\.no_such_module"):
        measuring.interleaved({"ours": ours}, repeats=1)


def test_a_row_has_the_median_the_ratio_the_spread_and_the_processors_seconds():
    """Two pieces of work a call: medians of 4 / 2 and 6 / 2 seconds; ratios in the rounds of 2, 1 and 4."""
    seconds = {
        "ours": measuring.Rounds([4.0, 2.0, 8.0], processor=[6.0, 5.0, 7.0]),
        "base": measuring.Rounds([2.0, 2.0, 2.0], processor=[2.0, 2.0, 2.0]),
    }
    assert measuring.figures(seconds, "ours", "ms", per=2, base=("base", "peer")) == {
        "ms": 2000.0,
        "× peer": 2.0,
        "spread": 1.5,
        "processor ms": 3000.0,
        "seconds": [4.0, 2.0, 8.0],
        "processor seconds": [6.0, 5.0, 7.0],
    }


def test_the_processors_seconds_are_those_of_ended_children_too():
    used = measuring.processor_seconds()
    subprocess.run([sys.executable, "-c", "for _ in range(10**7): pass"], check=True)
    assert measuring.processor_seconds() > used + 0.01


def test_the_cores_time_of_other_processes_is_told_from_ones_own(monkeypatch):
    """Of ten seconds of two cores, eight were worked and three were this process's: five of twenty are others'."""
    monkeypatch.setattr(measuring, "_BEGUN", (100.0, 1.0, 1000.0))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: 110.0)
    monkeypatch.setattr(measuring, "processor_seconds", lambda: 4.0)
    monkeypatch.setattr(measuring, "busy_seconds", lambda: 1008.0)
    monkeypatch.setattr(measuring.os, "cpu_count", lambda: 2)
    assert measuring.share_of_others() == 0.25


def test_a_command_reads_as_given_in_the_checkout_and_names_no_folder_of_the_machine():
    words = [f"{ROOT}/benchmarks/x.py", "--photos", "/home/me/rooms", "--repeats", "5"]
    assert measuring.command(words) == "python benchmarks/x.py --photos rooms --repeats 5"


def test_a_ratio_is_of_the_same_round():
    """The second round was slow for both: 2 / 1, 20 / 10 and 3 / 1."""
    assert measuring.ratio({"a": [2.0, 20.0, 3.0], "b": [1.0, 10.0, 1.0]}, "a", "b") == 2.0
    assert measuring.spread([1.0, 2.0, 4.0]) == 1.5


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's mark is Linux' own")
def test_memory_is_that_of_the_last_round_which_counts_like_the_others():
    seconds = measuring.interleaved({"ours": lambda: np.ones(32 << 20, np.uint8).sum()}, repeats=2, memory=True)
    assert len(seconds["ours"]) == 2
    assert 31 <= measuring.figures(seconds, "ours")["MiB"] < 64


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's mark is Linux' own")
def test_peak_memory_is_of_the_call():
    needed = measuring.peak_memory_of(lambda: np.ones(32 << 20, np.uint8).sum())
    assert 31 << 20 <= needed < 64 << 20


def test_a_report_is_a_table_and_all_that_was_measured(tmp_path):
    rows = [{"what": "ours", "ms": 1234.5, "seconds": [1.0, 2.0]}, {"what": "theirs", "ms": 0.01234, "peak": 7}]
    machine = measuring.environment(["numpy", "no-such-package"])
    text = measuring.report("x", rows, machine, tmp_path)
    assert text.splitlines()[:4] == [
        "| what | ms | peak |",
        "| --- | --- | --- |",
        "| ours | 1,234 |  |",
        "| theirs | 0.0123 | 7 |",
    ]
    assert "no-such-package missing" in text
    assert (tmp_path / "x.md").read_text() == text
    kept = json.loads((tmp_path / "x.json").read_text())
    assert kept["rows"] == rows
    assert kept["environment"]["versions"]["numpy"] == np.__version__
    assert {"date", "command", "threads", "load before", "load after", "others"} <= kept["environment"].keys()
