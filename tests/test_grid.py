"""A multirun reads its grid first: what is done is skipped, what is missing runs, whatever became of the rest."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_app
from helpers import ROOT, draw_striped
from hydra import compose, initialize_config_dir
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf
from rich.console import Console

from hydra_plugins import likeness_launchers
from likeness import app, grid
from likeness.assembly import extracting
from likeness.config.composing import register
from likeness.errors import LikenessError
from likeness.features.extraction import Cost
from likeness.reports.dry_run import dry_run_table
from likeness.runs import preemption


def call(place: Path, *overrides: str, script: str = "app.py", timeout: float = 120) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    environment.pop("OMP_NUM_THREADS", None)
    environment |= {"OMP_NUM_THREADS": "1"} if script != "app.py" else {}
    command = [sys.executable, script, "-m", *overrides]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def place(tmp_path) -> Path:
    small_app.make(tmp_path)
    return tmp_path


def ran(place: Path) -> list[str]:
    """What ran since it was last asked for, in order, each with its end and its value."""
    path = place / "ran.txt"
    told = [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return told


def statuses(place: Path) -> dict[str, dict]:
    """``status.json`` by the values that tell a job apart, e.g. ``1 well``."""
    found = [json.loads(path.read_text()) for path in (place / "outputs").glob("sweep/*/*/status.json")]
    return {" ".join(word.partition("=")[2] for word in each["overrides"]): each for each in found}


def states(place: Path) -> dict[str, str]:
    return {name: status["state"] for name, status in statuses(place).items()}


def files(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.fault("F36")
def test_the_same_command_runs_what_is_not_done_and_another_value_what_is_new(place):
    options = ("value=1,2", "end=well,bad")
    first = call(place, *options)
    assert (first.returncode, ran(place)) == (1, ["well1", "bad1", "well2", "bad2"])
    assert states(place) == {"1 well": "done", "1 bad": "failed", "2 well": "done", "2 bad": "failed"}
    failed = statuses(place)["1 bad"]
    assert failed["error"].startswith("[IMG-BAD] broken picture.")
    assert "Traceback" in failed["traceback"]

    again = call(place, *options)
    assert (again.returncode, ran(place)) == (1, ["bad1", "bad2"])
    assert "4 jobs: 2 done, 2 failed; 2 to run" in again.stderr
    assert "4 jobs, 2 heads tried." in again.stdout

    (place / "mended").touch()
    wider = call(place, "value=1,2,3", "end=bad,well")
    assert (wider.returncode, ran(place)) == (0, ["bad1", "bad2", "bad3", "well3"])
    assert set(states(place).values()) == {"done"}
    numbers = {name: status["job"] for name, status in statuses(place).items()}
    assert numbers == {"1 well": 0, "1 bad": 1, "2 well": 2, "2 bad": 3, "3 bad": 4, "3 well": 5}


def test_jobs_of_an_earlier_command_are_shown_and_do_not_fail_this_one(place):
    assert call(place, "end=bad,well", "value=1").returncode == 1
    (place / "mended").touch()
    mended = call(place, "end=well,waiting", "value=1")
    assert mended.returncode == 0, mended.stderr
    assert "1 of these jobs are of earlier commands in this folder" in mended.stdout
    assert states(place) == {"bad 1": "failed", "well 1": "done", "waiting 1": "done"}


def test_a_killed_process_leaves_a_lost_job_and_the_same_command_runs_the_rest(place, capsys):
    options = ("end=well,killed", "value=1,2")
    assert call(place, *options).returncode == -signal.SIGKILL
    assert ran(place) == ["well1", "well2", "killed1"]
    (folder,) = (place / "outputs" / "sweep").iterdir()
    app.main(["sweep", "status", str(folder)])
    assert ": 2 done, 1 new, 1 lost" in " ".join(capsys.readouterr().out.split())

    (place / "mended").touch()
    again = call(place, *options)
    assert (again.returncode, ran(place)) == (0, ["killed1", "killed2"])
    assert "4 jobs: 2 done, 1 new, 1 lost; 2 to run" in again.stderr


def test_a_dry_run_names_every_fault_and_leaves_nothing(place):
    before = files(place)
    refused = call(place, "seed=-1,0,-2", "value=1", "sweep.dry_run=true")
    assert refused.returncode == 78
    shown = refused.stdout
    assert "dry run, 1 new, 2 refused; nothing was started" in shown
    assert "job 0 is refused: [CONFIG] 1 fault in the config." in shown
    assert "seed: -1 is less than 0" in shown
    assert "seed: -2 is less than 0" in shown
    assert files(place) == before
    assert not list((place / "outputs" / "sweep").iterdir())


def test_a_job_that_is_refused_stops_no_other_and_fails_the_sweep(place):
    done = call(place, "seed=-1,0", "value=1")
    assert (done.returncode, ran(place)) == (1, ["well1"])
    assert states(place) == {"-1 1": "failed", "0 1": "done"}
    assert "seed: -1 is less than 0" in done.stderr
    assert "job 0 failed: [CONFIG] 1 fault in the config." in done.stdout


def test_two_commands_at_once_share_the_jobs_and_start_none_twice(place):
    options = ("end=waiting", "value=1,2,3")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "app.py", "-m", *options], cwd=place, env=environment, **quiet) as other:
        try:
            while not (place / "ran.txt").exists():
                assert other.poll() is None
                time.sleep(0.05)
            dry = call(place, *options, "sweep.dry_run=true")
        finally:
            (place / "mended").touch()
        second = call(place, *options)
        other.wait(60)
    assert "dry run, 1 running, 2 new" in dry.stdout
    assert "[BUG]" not in second.stderr
    assert sorted(ran(place)) == ["waiting1", "waiting2", "waiting3"]
    assert set(states(place).values()) == {"done"}


@pytest.mark.fault("F38")
@pytest.mark.parametrize("launcher", ["joblib", "slurm_local"])
def test_a_killed_worker_hides_no_other_job(place, launcher):
    done = call(place, "end=killed,well", "value=1,2", f"launcher={launcher}")
    assert done.returncode == 1
    found = states(place)
    assert {found["killed 1"], found["killed 2"]} == {"lost"}
    assert set(found.values()) <= {"lost", "done"}
    assert "lost: gone without a word" in done.stdout
    share = str(max(os.cpu_count() // 2, 1)) if launcher == "joblib" else "None"
    assert {line.split()[1] for line in (place / "ran.txt").read_text().splitlines()} == {share}


def test_what_hydra_makes_of_a_job_does_not_pile_up_in_the_parent(monkeypatch):
    """It holds the job's whole config; of one process, which is the parent, each is gone before the next is made."""

    def execute(number, overrides, *rest):
        seen.append((number, overrides, sum(made() is not None for made in returns)))
        returns.append(weakref.ref(returned := JobReturn()))
        return returned

    core = pytest.importorskip("hydra_plugins.hydra_joblib_launcher._core")
    seen, returns = [], []
    monkeypatch.setattr(core, "execute_job", execute)
    launcher = likeness_launchers.Joblib(n_jobs=1)
    launcher._start([SimpleNamespace(number=number, overrides=[f"seed={number}"]) for number in (3, 5, 9)])
    assert seen == [(3, ["seed=3"], 0), (5, ["seed=5"], 0), (9, ["seed=9"], 0)]


def test_a_job_of_this_process_is_composed_once_and_its_config_let_go(monkeypatch):
    """What was checked is what runs."""

    def run(task, config, *rest):
        seen.append((task, config, [job.composed for job in jobs]))

    seen = []
    monkeypatch.setattr(likeness_launchers, "run_job", run)
    jobs = [SimpleNamespace(number=n, overrides=[f"seed={n}"], composed=OmegaConf.create({"seed": n})) for n in (3, 5)]
    logs = {"hydra_logging": None, "verbose": False}
    launcher = likeness_launchers.Local()
    launcher.setup(hydra_context=None, task_function="train", config=OmegaConf.create({"hydra": logs}))
    launcher.start(jobs)
    assert seen == [("train", {"seed": 3}, [None, {"seed": 5}]), ("train", {"seed": 5}, [None, None])]


def test_a_search_goes_on_after_a_failed_trial_and_finds_its_trials_again(place):
    search = ("sweeper=optuna", "hydra.sweeper.n_trials=3", "value=range(1,9)", "end=choice(bad,well)")
    first = call(place, *search)
    trials = ran(place)
    assert first.returncode == 1, first.stderr
    assert {trial.rstrip("0123456789") for trial in trials} == {"bad", "well"}
    best = max(int(trial[4:]) for trial in trials if trial.startswith("well"))
    assert f"Best value: {best / 10}" in first.stderr
    again = call(place, *search)
    assert ran(place) == [trial for trial in trials if trial.startswith("bad")]
    assert f"Best value: {best / 10}" in again.stderr


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["sweep.wait=false"], "only Slurm keeps jobs of its own"),
        (["launcher=slurm", "hydra.launcher.partition=x"], "the jobs could not be submitted"),
    ],
)
def test_what_cannot_be_submitted_is_refused(place, overrides, told, monkeypatch):
    monkeypatch.setenv("PATH", str(place))  # no Slurm there
    refused = call(place, "value=1", *overrides)
    assert refused.returncode in (69, 78)
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
    assert ran(place) == []


def train(place: Path, *overrides: str, timeout: float = 120) -> subprocess.CompletedProcess:
    quick = ("data=folder", "data.root=photos", "preprocessing.size=32", "figures.draw=none", "logger=none")
    return call(place, *quick, *overrides, script=str(ROOT / "train.py"), timeout=timeout)


def test_features_are_extracted_once_over_two_extractors_before_the_jobs_start(tmp_path):
    for period, name in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for home in range(12):
            draw_striped(tmp_path / "photos" / name / f"{home}.png", period, home)
    options = ("decoding.alpha_background=[0,0,0],[255,255,255]", "architecture=identity,conv", "metric.ks=[1]")
    before = files(tmp_path)
    dry = train(tmp_path, *options, "sweep.dry_run=true")
    assert dry.returncode == 0, dry.stderr
    rows = [line.split() for line in dry.stdout.splitlines() if line.startswith("shufflenet")]
    assert [row[2:5] for row in rows] == [["2", "36", "36"], ["2", "36", "36"]]
    assert {float(row[6]) for row in rows} == {0.1}  # 36 rows of 1024 float32 and 36 bytes
    assert files(tmp_path) == before

    done = train(tmp_path, *options)
    assert done.returncode == 1, done.stderr
    told = [line for line in done.stderr.splitlines() if "features: " in line]
    computed = Counter(line.split(", ")[2].split()[0] for line in told)
    assert done.stderr.index("36 computed") < done.stderr.index("#0 : ")
    assert computed == {"36": 2, "0": 4}
    assert Counter(status["state"] for status in statuses(tmp_path).values()) == {"done": 2, "failed": 2}


def test_a_signal_while_a_grid_is_extracted_waits_for_the_batch(monkeypatch):
    def find(config, extractor):
        with preemption.undisturbed():
            signal.raise_signal(signal.SIGTERM)
            kept.append(extractor)
        pytest.fail("the signal was not answered")

    kept = []
    monkeypatch.setattr(grid, "distinct_extractors", lambda jobs: [({}, 1)])
    monkeypatch.setattr(extracting, "build_extractor", lambda config: "a batch")
    monkeypatch.setattr(extracting, "find_features", find)
    with pytest.raises(preemption.Preempted, match="features and checkpoints are kept"):
        grid.extract_once([])
    assert kept == ["a batch"]


def test_what_cannot_be_costed_is_told_in_full():
    missing = LikenessError("DATA-MISSING", "no such folder.", where="photos", fix="Check data.root.")
    jobs = [(0, ["seed=0", "data=x"], "new"), (1, ["seed=1", "data=x"], "failed")]
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(dry_run_table(jobs, [(Cost("vgg16", fault=missing), 2)], [], Path("outputs/sweep/x")))
    told = [line.rstrip() for line in console.export_text().splitlines()]
    assert told[0] == "dry run, 1 new, 1 failed; nothing was started"
    assert [line.split(maxsplit=2) for line in told[3:5]] == [
        ["0", "seed=0", "to run"],
        ["1", "seed=1", "failed, to run again"],
    ]
    assert "vgg16: [DATA-MISSING] no such folder." in told


def test_the_sweeper_of_a_grid_leaves_composing_its_jobs_to_the_launcher():
    """Which refuses what cannot be composed before a job starts, in the same words; Hydra's own would do both."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        told = compose("train", return_hydra_config=True).hydra.sweeper
    assert told._target_ == "hydra_plugins.likeness_launchers.Grid"
    likeness_launchers.Grid(told.max_batch_size, told.params).validate_batch_is_legal([["noise=nothing"]])


def test_a_search_has_to_be_waited_for():
    with pytest.raises(LikenessError, match="has to be waited for") as refused:
        grid._refuse_not_waiting(True, "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper")
    assert refused.value.cause.startswith("a search chooses its next jobs")
    grid._refuse_not_waiting(True, "hydra_plugins.likeness_launchers.Grid")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_two_hundred_jobs_in_one_process_leave_nothing_behind(tmp_path):
    """The last ten take at most 5 % more memory than jobs 10 to 20; random states, signals, logs, files stay as is."""
    for period, name in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for home in range(12):
            draw_striped(tmp_path / "photos" / name / f"{home}.png", period, home)
    watch = ("+hydra.callbacks.watch._target_=job_watch.JobWatch", "+hydra.callbacks.watch.path=left.jsonl")
    options = ("seed=range(100)", "architecture=identity,dense", "metric.ks=[1]", "trainer.max_epochs=1", *watch)
    done = train(tmp_path, *options, timeout=1000)
    assert done.returncode == 0, done.stderr
    left = [json.loads(line) for line in (tmp_path / "left.jsonl").read_text().splitlines()]
    assert len(left) == 200
    early, late = (max(job["rss"] for job in jobs) for jobs in (left[10:20], left[-10:]))
    print(f"peak memory of jobs 10 to 20: {early / 1e6:.1f} MB, of the last ten: {late / 1e6:.1f} MB")  # noqa: T201
    assert late <= 1.05 * early
    for name in ("random", "signals", "handlers", "files"):
        assert {json.dumps(job[name]) for job in left[10:]} == {json.dumps(left[10][name])}, name
