"""What a run logs is on its disk, one JSON object a line, whatever happens next."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from likeness.errors import LikenessError
from likeness.runs import journal
from likeness.runs.folder import RunFolder
from likeness.runs.journal import Journal, JournalLogger, epochs, read


@pytest.fixture
def written(tmp_path) -> Journal:
    return Journal(tmp_path / "new" / "journal.jsonl")


def told(path: Path) -> list[dict]:
    """The events without the time, which is another in every run."""
    return [{k: v for k, v in event.items() if k != "time"} for event in read(path)]


def test_events_are_read_back_in_order(written):
    written.write("started", part="fit")
    written.write("metrics", step=3, **{"val/loss": 0.5})
    assert told(written.path) == [
        {"event": "started", "part": "fit"},
        {"event": "metrics", "step": 3, "val/loss": 0.5},
    ]
    times = [event["time"] for event in read(written.path)]
    assert times == sorted(times)


@pytest.mark.fault("F48")
def test_an_event_is_on_disk_before_the_next_line_runs(written):
    written.write("a")
    assert written.path.read_text().endswith("}\n")


def test_numbers_that_json_has_not_are_written_as_text(written):
    written.write("metrics", a=math.nan, b=-math.inf, c=1.0, d=np.float64(0.25))
    assert told(written.path) == [{"event": "metrics", "a": "nan", "b": "-inf", "c": 1.0, "d": 0.25}]
    json.loads(written.path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.fault("F48")
@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_a_last_line_that_was_cut_is_left_out(written, kept):
    written.write("first")
    whole = written.path.read_bytes()
    written.write("second", value="x" * 50)
    written.path.write_bytes(written.path.read_bytes()[: len(whole) + kept])
    assert told(written.path) == [{"event": "first"}]


def test_no_journal_has_no_events(tmp_path):
    assert read(tmp_path / "nothing.jsonl") == []


def test_a_continued_journal_goes_on_where_it_ended(written):
    written.write("a")
    Journal(written.path).write("b")
    assert [event["event"] for event in read(written.path)] == ["a", "b"]


@pytest.mark.fault("F48")
def test_it_reaches_the_disk_every_five_seconds_and_when_asked(written, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr(journal.os, "fsync", synced.append)
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    fresh = Journal(written.path)
    for second in (1.0, 4.9, 5.0, 6.0, 9.9, 10.0):
        now[0] = second
        fresh.write("a")
    assert len(synced) == 2
    fresh.sync()
    assert len(synced) == 3
    assert len(read(written.path)) == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_a_message():
    with pytest.raises(LikenessError) as caught:
        Journal(Path("/dev/full")).write("a")
    assert (caught.value.code, caught.value.exit_code) == ("DISK", 74)
    assert "No space left" in caught.value.cause


def test_epochs_merges_what_was_logged_in_each():
    events = [
        {"event": "config", "epoch": 0, "seed": 1},
        {"event": "metrics", "time": 1.0, "step": 9, "epoch": 0, "train/loss": 0.9},
        {"event": "metrics", "time": 1.1, "step": 19, "epoch": 1, "train/loss": 0.5, "val/loss": 0.6},
        {"event": "metrics", "time": 1.2, "step": 9, "epoch": 0, "val/loss": 0.8, "val/hit@1": "nan"},
        {"event": "metrics", "time": 1.3, "step": None, "test/hit@1": 0.7},
        {"event": "ended", "part": "fit", "seconds": 3.0},
    ]
    assert epochs(events) == [
        {"epoch": 0, "train/loss": 0.9, "val/loss": 0.8},
        {"epoch": 1, "train/loss": 0.5, "val/loss": 0.6},
    ]
    assert epochs([]) == []


def test_lightnings_logger_writes_metrics_and_config(written):
    logger = JournalLogger(written)
    assert (logger.name, logger.version) == ("journal", "")
    logger.log_hyperparams({"seed": 3})
    logger.log_metrics({"val/loss": 0.5, "epoch": 0}, step=7)
    logger.finalize("success")
    assert told(written.path) == [
        {"event": "config", "seed": 3},
        {"event": "metrics", "step": 7, "val/loss": 0.5, "epoch": 0},
    ]


def test_a_runs_folder_keeps_its_config_and_times_its_parts(tmp_path, monkeypatch):
    now = iter(range(100))
    folder = RunFolder(tmp_path / "run", {"seed": 3, "noise": {"std": 0.5}, "scheduler": None})
    monkeypatch.setattr("likeness.runs.folder.time.monotonic", lambda: float(next(now)))
    with folder.timed("fit"):
        pass
    assert list(folder.seconds) == ["fit"]
    assert folder.seconds["fit"] > 0
    assert [(event["event"], event["part"]) for event in read(folder.journal.path)] == [
        ("started", "fit"),
        ("ended", "fit"),
    ]
    assert (tmp_path / "run" / "config.yaml").read_text() == "seed: 3\nnoise:\n  std: 0.5\nscheduler: null\n"


def test_a_part_that_fails_has_no_end(tmp_path):
    folder = RunFolder(tmp_path, {})
    with pytest.raises(RuntimeError), folder.timed("fit"):
        raise RuntimeError
    assert [event["event"] for event in read(folder.journal.path)] == ["started"]
    assert folder.seconds == {}
