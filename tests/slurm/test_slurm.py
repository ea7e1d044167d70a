"""A grid on a real Slurm: submitted, killed, repeated, preempted, out of time (``make test-slurm``)."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import small_app
import torch
from helpers import ROOT, SHARED, draw_striped

from likeness.runs.checkpoint import open_checkpoint
from likeness.runs.journal import logged, read

TOOLS = SHARED / "tools" / "slurm"
NODE = ("hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")
SLURM = ("launcher=slurm", *NODE, "hydra.launcher.partition=low", "hydra.launcher.array_parallelism=2")

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory) -> Iterator[None]:
    """A Slurm on this machine: the one that runs, or one that is started and stopped again."""
    if not (TOOLS / "start").is_file():
        pytest.skip(f"no {TOOLS}/start, which brings up a Slurm on this machine")
    runs = shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0
    if not runs and os.getuid():
        pytest.skip("bringing up a Slurm needs root")
    if not runs:
        subprocess.run([TOOLS / "start", tmp_path_factory.mktemp("slurm")], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{TOOLS}:{os.environ['PATH']}")  # its sacct answers submitit without accounting
        patch.setenv("PYTHONPATH", str(ROOT / "src"))
        yield
    if not runs:
        subprocess.run([TOOLS / "stop"], check=False, capture_output=True)


def call(place: Path, *overrides: str, script: str = "app.py") -> subprocess.CompletedProcess:
    command = [sys.executable, script, "-m", *overrides]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=600)


def slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def held() -> list[str]:
    return slurm("squeue", "--noheader", "--array", "--format=%i").split()


def until(condition: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain; Slurm holds\n{slurm('squeue')}"
        time.sleep(0.5)


def statuses(place: Path) -> list[dict]:
    found = [json.loads(path.read_text()) for path in (place / "outputs").glob("sweep/*/*/status.json")]
    return sorted(found, key=lambda status: status["job"])


def states(place: Path) -> list[str]:
    return [status["state"] for status in statuses(place)]


def ran(place: Path) -> list[str]:
    path = place / "ran.txt"
    told = sorted(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else []
    path.unlink(missing_ok=True)
    return told


@pytest.fixture
def place(tmp_path) -> Iterator[Path]:
    small_app.make(tmp_path)
    yield tmp_path
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=False)


def draw_photos(place: Path) -> None:
    for period, name in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for home in range(12):
            draw_striped(place / "photos" / name / f"{home}.png", period, home)


def test_a_grid_of_twelve_is_waited_for_and_completed_by_the_same_command(tmp_path):
    """Pictures, six heads and two seeds: one is refused by the data, the others share what the first extracts."""
    draw_photos(tmp_path)
    quick = ("data=folder", "data.root=photos", "preprocessing.size=32", "figures.draw=none", "logger=none")
    grid = ("scaling=none,standardize,l2", "architecture=identity,random_projection", "seed=0,-1", "metric.ks=[1]")
    first = call(tmp_path, *quick, *grid, *SLURM, script=str(ROOT / "train.py"))
    assert first.returncode == 1, first.stdout + first.stderr
    assert sorted(states(tmp_path)) == ["done"] * 6 + ["failed"] * 6
    assert "seed: -1 is less than 0" in first.stdout + first.stderr
    logs = "".join(path.read_text() for path in tmp_path.rglob("*_log.*"))
    computed = [line for line in logs.splitlines() if "features: " in line and " 0 computed" not in line]
    assert len(computed) == 1
    again = call(tmp_path, *quick, "seed=0,1", *grid[:2], grid[3], *SLURM, script=str(ROOT / "train.py"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "12 jobs: 6 done, 6 new; 6 to run" in again.stderr
    assert sorted(states(tmp_path)) == ["done"] * 12 + ["failed"] * 6


def test_killed_and_failed_jobs_hide_no_other_and_run_again(place):
    grid = ("value=1,2,3,4", "end=well,bad,killed")
    first = call(place, *grid, *SLURM)
    assert first.returncode == 1, first.stdout + first.stderr
    assert len(ran(place)) == 12
    assert states(place) == ["done", "failed", "lost"] * 4
    (place / "mended").touch()
    again = call(place, *grid, *SLURM)
    assert again.returncode == 0, again.stdout + again.stderr
    assert ran(place) == sorted(f"{end}{value}" for end in ("bad", "killed") for value in range(1, 5))
    assert states(place) == ["done"] * 12


def test_a_sweep_that_is_not_waited_for_is_submitted_once(place):
    grid = ("value=1,2,3,4,5,6,7,8", "end=waiting", "sweep.wait=false", *SLURM)
    first = call(place, *grid)
    assert first.returncode == 0, first.stderr
    assert "likeness sweep status outputs/sweep/value-" in first.stderr
    until(lambda: len(ran_lines(place)) == 2)
    before = held()
    assert len(before) == 8
    again = call(place, *grid)
    assert again.returncode == 0, again.stderr
    assert "8 jobs: 2 running, 6 queued; 0 to run" in again.stderr
    assert held() == before
    (folder,) = (place / "outputs" / "sweep").iterdir()
    command = [sys.executable, "-m", "likeness.app", "sweep"]
    removed = subprocess.run([*command, "rm", folder], cwd=place, capture_output=True, text=True, check=False)
    assert (removed.returncode, "8 jobs of the sweep are running or queued" in removed.stderr) == (73, True)
    (place / "mended").touch()
    until(lambda: not held())
    assert len(ran(place)) == 8
    assert states(place) == ["done"] * 8
    status = subprocess.run([*command, "status", folder], cwd=place, capture_output=True, text=True, check=True)
    assert ": 8 done" in " ".join(status.stdout.split())


def ran_lines(place: Path) -> list[str]:
    path = place / "ran.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_jobs_that_were_cancelled_while_they_waited_are_submitted_again(place):
    grid = ("value=1,2,3,4", "end=waiting", "sweep.wait=false", *SLURM)
    assert call(place, *grid).returncode == 0
    until(lambda: len(ran_lines(place)) == 2)
    slurm("scancel", *held())
    until(lambda: not held())
    ran(place)
    (place / "mended").touch()
    again = call(place, *grid[:2], *SLURM)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(ran(place)) == 4
    assert states(place) == ["done"] * 4


# Threads are given, since sums of other threads differ in their last bits; the weights are those of the last epoch.
TRAINED = ("data=folder", "data.root=photos", "preprocessing.size=32", "metric.ks=[1]", "figures.draw=none")
TRAINED += ("architecture=dense", "architecture.widths=[16]", "batch_size=8", "noise=gaussian", "logger=none")
TRAINED += ("callbacks=last_weights", "callbacks.early_stopping.patience=100000", "callbacks.resume.every_n_epochs=100")
LONG = (4500, 1000, 999)  # epochs, some 100 a second; Slurm looks at time limits twice a minute


def test_twelve_trainings_of_which_one_is_preempted_one_out_of_time_one_killed_and_one_refused(place, monkeypatch):
    """The same command completes them; those that were cut have the weights of runs that were not, bit for bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    draw_photos(place)
    lengths = (*LONG, *range(1, 9))
    command = [sys.executable, str(ROOT / "train.py"), "-m", *TRAINED, *SLURM, "hydra.launcher.timeout_min=10"]
    refused = [*command, f"trainer.max_epochs={','.join(map(str, lengths))},many"]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(refused, cwd=place, **told) as sweep, ExitStack() as at_last:
        at_last.callback(sweep.kill)
        timed_out, preempted = trained(place, LONG[0]), trained(place, LONG[1])
        slurm("sbatch", "--partition=high", "--cpus-per-task=2", "--wrap=sleep 4", "--output=/dev/null")
        until(lambda: [state(timed_out), state(preempted)] == ["preempted"] * 2)
        killed = trained(place, LONG[2])
        os.kill(status(killed)["pid"], signal.SIGKILL)
        hasten(timed_out)
        hasten(preempted)
        until(lambda: resumed(timed_out))
        slurm("scontrol", "update", f"JobId={number(timed_out)}", "TimeLimit=2")
        until(lambda: state(timed_out) == "preempted")
        hasten(timed_out, "TimeLimit=10")
        said, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 1, said
    assert sorted(states(place)) == ["done"] * 10 + ["failed", "lost"]
    assert "trainer.max_epochs: 'many' is not" in said

    again = subprocess.run(refused, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "12 jobs: 10 done, 1 lost, 1 refused; 1 to run" in again.stderr
    mended = [*command, f"trainer.max_epochs={','.join(map(str, lengths))},9"]
    done = subprocess.run(mended, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 jobs: 11 done, 1 new; 1 to run" in done.stderr

    table = (killed.parent / "scoreboard.csv").read_text()
    rows = {row["folder"]: row for row in csv.DictReader(table.splitlines())}
    assert sorted(row["state"] for row in rows.values()) == ["done"] * 12 + ["failed"]
    for folder, cuts in ((timed_out, 2), (preempted, 1), (killed, 1)):
        assert len(resumed(folder)) == cuts
        assert min(resumed(folder)) > 0
        whole = uncut(place, epochs_of(folder))
        assert torch.equal(weights(folder), weights(whole))
        assert measured(folder) == measured(whole)
        assert (folder / "queries.csv").read_bytes() == (whole / "queries.csv").read_bytes()
        value = json.loads((whole / "metrics.json").read_text())["splits"]["val"]["head"]["hit@1"]["value"]
        assert float(rows[folder.name]["val/hit@1"]) == value


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def state(folder: Path) -> str:
    return status(folder)["state"]


def epochs_of(folder: Path) -> int:
    (told,) = (word for word in status(folder)["overrides"] if word.startswith("trainer.max_epochs="))
    return int(told.partition("=")[2])


def number(folder: Path) -> str:
    """Slurm's, of the job in this folder."""
    return json.loads((folder.parent / "submitted.json").read_text())[folder.name]


def trained(place: Path, epochs: int) -> Path:
    """The folder of the job of that many epochs, when it has saved its first step."""

    def saved() -> list[Path]:
        folders = (path.parents[1] for path in place.glob("outputs/sweep/*/*/checkpoints/resume-*.ckpt"))
        return [folder for folder in folders if epochs_of(folder) == epochs]

    until(saved)
    return saved()[0]


def hasten(folder: Path, *changes: str) -> None:
    """Start a job that was queued again; Slurm itself lets it wait for two minutes."""
    until(lambda: slurm("squeue", "--noheader", f"--jobs={number(folder)}", "--format=%t").strip() == "PD")
    slurm("scontrol", "update", f"JobId={number(folder)}", "StartTime=now", *changes)


def uncut(place: Path, epochs: int) -> Path:
    """The folder of a run like a job's, on its own and without a cut."""
    options = (*TRAINED, f"trainer.max_epochs={epochs}", f"hydra.run.dir=uncut-{epochs}")
    subprocess.run([sys.executable, ROOT / "train.py", *options], cwd=place, capture_output=True, check=True)
    return place / f"uncut-{epochs}"


def resumed(folder: Path) -> list[int]:
    """The steps that a run was gone on from."""
    return [event["step"] for event in read(folder / "journal.jsonl") if event["event"] == "resumed_from"]


def measured(folder: Path) -> list[dict]:
    """All metrics that count, but for times."""
    kept = logged(read(folder / "journal.jsonl"))
    return [{k: v for k, v in each.items() if k != "time" and not k.startswith("seconds/")} for each in kept]


def weights(folder: Path) -> torch.Tensor:
    """All in a row."""
    state_dict = open_checkpoint(folder / "checkpoints" / "best.ckpt")["state_dict"]
    return torch.cat([value.double().flatten() for value in state_dict.values()])
