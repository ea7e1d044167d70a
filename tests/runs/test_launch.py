"""A job's end is a state on disk, a message and an exit code; jobs do not harm each other."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from likeness.runs.launch import _set_earlier_results_aside

APP = """
import os, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from likeness.errors import LikenessError
from likeness.runs.launch import reported, run


@hydra.main(version_base="1.3", config_path=".", config_name="app")
@reported
def job(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    assert '"running"' in (folder / "status.json").read_text()
    (folder / "metrics.json").write_text(str(cfg.value))
    if cfg.end == "bad":
        raise LikenessError("IMG-BAD", "broken picture.", where="a.jpg", fix="remove it")
    if cfg.end == "bug":
        raise RuntimeError("our mistake")
    if cfg.end == "stop":
        raise KeyboardInterrupt
    if cfg.end == "exit":
        raise SystemExit(3)
    while cfg.end == "wait" and not Path("go").exists():
        time.sleep(0.02)
    return cfg.value


run(job)
"""
CONFIG = """
defaults: [_self_, {kind: a}]
end: well
value: 0.5
debug: false
sweep: {name: sweep}
hydra: {run: {dir: out}, sweep: {dir: sweep, subdir: "${hydra.job.num}"}}
"""
Launch = Callable[..., subprocess.Popen]


@pytest.fixture
def launch(tmp_path) -> Iterator[Launch]:
    """Starts the application in ``tmp_path`` with overrides."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "app.yaml").write_text(CONFIG)
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "a.yaml").write_text("x: 1\n")

    with ExitStack() as started:

        def start(*overrides: str) -> subprocess.Popen:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = subprocess.Popen([sys.executable, "app.py", *overrides], cwd=tmp_path, **pipes)
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code, and what was said on stderr after Hydra's line on which job it was."""
    told = process.communicate(timeout=60)[1]
    return process.returncode, re.sub(r"^Error executing job with overrides: .*\n", "", told)


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_job_that_ends_well(launch, tmp_path):
    process = launch("value=0.75")
    assert ended(process) == (0, "")
    facts = status(tmp_path / "out")
    assert facts.keys() == {"state", "value", "job", "identity", "overrides", "host", "pid", "started"}
    assert (facts["state"], facts["job"], facts["overrides"]) == ("done", 0, ["value=0.75"])
    assert facts["value"] == 0.75
    assert facts["pid"] == process.pid


def test_an_error_of_the_user_is_a_message_without_a_traceback(launch, tmp_path):
    code, told = ended(launch("end=bad"))
    kept = "All finished features; your files are as they were."
    message = f"[IMG-BAD] broken picture.\n  where : a.jpg\n  kept  : {kept}\n  fix   : remove it\n  exit 65"
    assert (code, told) == (65, f"ERROR {message}\n")
    facts = status(tmp_path / "out")
    assert (facts["state"], facts["error"]) == ("failed", message)
    assert "Traceback" in facts["traceback"]


def test_debug_shows_the_traceback_as_well(launch):
    code, told = ended(launch("end=bad", "debug=true"))
    assert code == 65
    assert "Traceback (most recent call last)" in told
    assert "raise LikenessError" in told
    assert told.endswith("  exit 65\n")


def test_our_own_mistake_shows_its_traceback(launch, tmp_path):
    code, told = ended(launch("end=bug"))
    assert code == 70
    assert told.startswith("Traceback (most recent call last)")
    assert "RuntimeError: our mistake" in told
    assert told.splitlines()[-1].startswith("ERROR [BUG]")
    assert (status(tmp_path / "out")["state"], status(tmp_path / "out")["error"]) == ("failed", "our mistake")


def test_an_interruption_has_its_own_exit_code(launch, tmp_path):
    code, told = ended(launch("end=stop"))
    assert (code, told.count("\n")) == (75, 1)
    assert told.startswith("ERROR interrupted; ")
    assert (status(tmp_path / "out")["state"], status(tmp_path / "out")["error"]) == (
        "interrupted",
        "KeyboardInterrupt",
    )


@pytest.mark.parametrize(
    ("sent", "state"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "preempted"),
        (signal.SIGUSR1, "preempted"),
        (signal.SIGUSR2, "preempted"),
    ],
)
def test_ctrl_c_is_an_interruption_and_a_schedulers_signal_a_preemption(launch, tmp_path, sent, state):
    process = launch("end=wait")
    until((tmp_path / "out" / "metrics.json").exists)
    assert status(tmp_path / "out")["state"] == "running"
    process.send_signal(sent)
    code, told = ended(process)
    assert (code, told) == (
        75,
        f"{state}; features and checkpoints are kept; resume with the same command and hydra.run.dir={tmp_path}/out\n",
    )
    assert status(tmp_path / "out")["state"] == state


def test_a_named_folder_needs_no_reminder(launch, tmp_path):
    process = launch("end=wait", "hydra.run.dir=there")
    until((tmp_path / "there" / "metrics.json").exists)
    process.terminate()
    assert ended(process)[1].endswith("resume with the same command\n")


def test_a_schedulers_own_handler_is_called_once_when_all_is_on_disk(launch, tmp_path):
    """A stand-in for submitit, which handles SIGUSR2 by a requeue and an exit of its own, and bypasses SIGTERM."""
    handler = """
import signal, sys
def requeue(number, frame):
    with open("requeued", "a") as file:
        file.write(open("out/status.json").read())
    sys.exit(7)
real = signal.signal
signal.signal(signal.SIGUSR2, requeue)
signal.signal = lambda n, h: None if h is signal.default_int_handler else real(n, h)  # as where run() is not called
"""
    (tmp_path / "app.py").write_text(handler + (tmp_path / "app.py").read_text())
    process = launch("end=wait")
    until((tmp_path / "out" / "metrics.json").exists)
    process.send_signal(signal.SIGUSR2)
    assert ended(process)[0] == 7
    assert json.loads((tmp_path / "requeued").read_text())["state"] == "preempted"


def test_an_exit_from_inside_keeps_its_code(launch, tmp_path):
    assert ended(launch("end=exit"))[0] == 3
    assert status(tmp_path / "out")["state"] == "interrupted"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("valeu=1", "Did you mean value?"),
        ("value=a[b", "value=\"'a[b'\""),
        ("kind=b", "Available options in 'kind'"),
        ("kind=null", "Config group override must be a string or a list"),
        ("value=${nowhere}", "nowhere"),
    ],
)
def test_what_hydra_refuses_is_a_message_of_ours(launch, tmp_path, override, told):
    code, message = ended(launch(override))
    assert code == 78
    assert message.startswith("ERROR [CONFIG] ")
    assert told in message
    assert "Traceback" not in message


def test_in_a_multirun_a_failing_job_does_not_stop_the_others(launch, tmp_path):
    assert ended(launch("-m", "end=well,bad,bug,well"))[0] == 0
    states = [status(tmp_path / "sweep" / str(number)) for number in range(4)]
    assert [each["state"] for each in states] == ["done", "failed", "failed", "done"]
    assert [each["job"] for each in states] == [0, 1, 2, 3]
    assert [each["overrides"] for each in states] == [["end=well"], ["end=bad"], ["end=bug"], ["end=well"]]
    logs = "".join(path.read_text() for path in (tmp_path / "sweep").glob("*/app.log"))
    assert "job 1 failed\n[IMG-BAD] broken picture." in logs
    assert "RuntimeError: our mistake" in logs


def test_an_interruption_stops_a_multirun(launch, tmp_path):
    assert ended(launch("-m", "end=well,stop,well"))[0] == 75
    assert [status(tmp_path / "sweep" / str(number))["state"] for number in range(2)] == ["done", "interrupted"]
    assert not (tmp_path / "sweep" / "2").exists()


def test_earlier_results_in_the_same_folder_are_set_aside(launch, tmp_path):
    for value in (0.25, 0.5, 0.75):
        assert ended(launch(f"value={value}"))[0] == 0
    out = tmp_path / "out"
    kept = {name: (out / name / "metrics.json").read_text() for name in ("earlier-1", "earlier-2", ".")}
    assert kept == {"earlier-1": "0.25", "earlier-2": "0.5", ".": "0.75"}


def test_setting_aside_overwrites_nothing_when_an_earlier_one_was_removed(tmp_path):
    for name in (
        "earlier-2/metrics.json",
        "checkpoints/best.ckpt",
        "metrics.json",
        "queries-seed-1.csv",
        "tracker.json",
        "train.log",
        ".hydra/config.yaml",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first")
    _set_earlier_results_aside(tmp_path)
    (tmp_path / "metrics.json").write_text("second")
    _set_earlier_results_aside(tmp_path)
    _set_earlier_results_aside(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hydra", "earlier-1", "earlier-2", "earlier-3", "train.log"]
    moved = ["checkpoints", "metrics.json", "queries-seed-1.csv", "tracker.json"]
    assert sorted(os.listdir(tmp_path / "earlier-1")) == moved
    assert (tmp_path / "earlier-3" / "metrics.json").read_text() == "second"


def test_a_second_process_in_the_same_folder_is_refused_and_the_first_goes_on(launch, tmp_path):
    first = launch("end=wait", "value=0.25")
    until((tmp_path / "out" / "metrics.json").exists)
    code, told = ended(launch("value=0.75"))
    assert code == 73
    assert told.startswith("ERROR [RUN-DIR] another run is writing to this folder.")
    assert str(tmp_path / "out") in told
    assert status(tmp_path / "out")["pid"] == first.pid
    (tmp_path / "go").touch()
    assert ended(first)[0] == 0
    assert (status(tmp_path / "out")["state"], (tmp_path / "out" / "metrics.json").read_text()) == ("done", "0.25")


def test_a_killed_process_leaves_its_folder_to_the_next(launch, tmp_path):
    process = launch("end=wait", "value=0.25")
    until((tmp_path / "out" / "metrics.json").exists)
    process.kill()
    ended(process)
    assert status(tmp_path / "out")["state"] == "running"
    assert ended(launch("value=0.75"))[0] == 0
    assert (tmp_path / "out" / "earlier-1" / "metrics.json").read_text() == "0.25"
