"""What the benchmarks share; the benchmarks themselves are run by hand."""

import json
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


def test_a_ratio_is_of_the_same_round():
    """The second round was slow for both: 2 / 1, 20 / 10 and 3 / 1."""
    assert measuring.ratio({"a": [2.0, 20.0, 3.0], "b": [1.0, 10.0, 1.0]}, "a", "b") == 2.0
    assert measuring.spread([1.0, 2.0, 4.0]) == 1.5


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
