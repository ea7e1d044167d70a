"""Which runs are gone on with when the same command starts in their folder, and which are set aside."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from likeness.runs.checkpoint import CARD, SCHEMA, resume_path, write_checkpoint
from likeness.runs.journal import logged, read
from likeness.runs.resumption import forget, resume

CONFIG = {"batch_size": 16, "optimizer": {"lr": 1e-5}, "logger": {"csv": {"folder": "/a"}}, "paths": {"store": "/a"}}


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run that was preempted at step 12."""
    write_checkpoint({CARD: {"schema": SCHEMA}}, resume_path(tmp_path / "checkpoints", 12))
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(CONFIG)))
    say(tmp_path, state="preempted")
    return tmp_path


@pytest.fixture(autouse=True)
def told(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def say(folder: Path, **status) -> None:
    (folder / "status.json").write_text(json.dumps(status))


def dead() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("status", "locked", "goes_on"),
    [
        ({"state": "preempted"}, True, True),
        ({"state": "interrupted"}, True, True),
        ({"state": "running"}, True, True),  # whoever wrote it held the lock, and does no longer
        ({"state": "running", "host": HERE, "pid": dead()}, False, True),
        ({"state": "running", "host": HERE, "pid": os.getpid()}, False, False),
        ({"state": "running", "host": "elsewhere", "pid": dead()}, False, False),
        ({"state": "failed", "code": "CKPT"}, True, True),
        ({"state": "failed", "code": "DISK"}, True, True),
        ({"state": "failed", "code": "NAN-LOSS"}, True, False),
        ({"state": "failed"}, True, False),
        ({"state": "done"}, True, False),
        ({}, True, False),
    ],
)
def test_a_run_goes_on_where_it_was_cut_and_not_where_it_ended(run, told, status, locked, goes_on):
    say(run, **status)
    assert resume(run, OmegaConf.create(CONFIG), locked) == goes_on
    assert told.messages == (["[RESUME] found step 12"] if goes_on else [])
    events = [(event["event"], event["step"]) for event in read(run / "journal.jsonl")]
    assert events == ([("resumed_from", 12)] if goes_on else [])


def test_a_folder_without_a_run_says_nothing(tmp_path, told):
    assert not resume(tmp_path, OmegaConf.create(CONFIG), True)
    assert told.messages == []


def test_an_option_that_changes_a_number_starts_anew_and_is_named(run, told):
    changed = {**CONFIG, "optimizer": {"lr": 0.1}, "seed": 1}
    assert not resume(run, OmegaConf.create(changed), True)
    assert told.messages == [
        "[RESUME] fresh start: the run in this folder had other options\n"
        "optimizer.lr: 1e-05, now 0.1\n"
        "seed: None, now 1"
    ]


def test_places_and_dashboards_may_change(run):
    changed = {**CONFIG, "logger": {"wandb": {"folder": "/b"}}, "paths": {"store": "/b"}}
    changed["callbacks"] = {"resume": {"every_seconds": 1}}
    assert resume(run, OmegaConf.create(changed), True)


def test_an_unreadable_config_starts_anew(run, told):
    (run / "config.yaml").unlink()
    assert not resume(run, OmegaConf.create(CONFIG), True)
    assert "they cannot be compared" in told.text


@pytest.mark.fault("F36")
@pytest.mark.parametrize("left", ["checkpoints/best.ckpt", "metrics.json", None])
def test_without_a_step_a_run_starts_anew_and_results_are_set_aside(run, told, left):
    forget(run)
    (run / "checkpoints").rmdir()
    if left:
        (run / left).parent.mkdir(exist_ok=True)
        (run / left).touch()
    assert resume(run, OmegaConf.create(CONFIG), True) == (left is None)
    assert told.messages == ["[RESUME] fresh start: no step was saved"]


def test_metrics_after_the_step_that_a_run_was_resumed_from_count_once():
    lines = [("metrics", 2, 0.5), ("metrics", 5, 0.25), ("metrics", None, 0.9), ("resumed_from", 5, None)]
    lines += [("metrics", 5, 0.25), ("metrics", 8, 0.125)]
    events = [{"event": event, "step": step, "val/loss": loss} for event, step, loss in lines]
    assert [(event["step"], event["val/loss"]) for event in logged(events)] == [(2, 0.5), (5, 0.25), (8, 0.125)]
