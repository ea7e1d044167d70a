"""What tells a job from every other, how it stands, what a sweep is called, and what removes or repeats it."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers import ROOT
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from likeness import app
from likeness.config.composing import register
from likeness.errors import LikenessError
from likeness.files import write_json
from likeness.runs import launch, sweep

APART = ("paths", "logger", "extraction", "sweep", "debug")


def composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Any], str]:
    """A config of which every group has options, and its identity."""
    config = composed("data=folder", "data.root=photos", "logger=wandb", "scheduler=cosine", "architecture=dense")
    return OmegaConf.to_container(config), sweep.identity(config)


def leaves(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from leaves(value, (*path, name))
    else:
        yield path


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    return [*value, 1] if isinstance(value, list) else f"{value}x" if isinstance(value, str) else value + 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_option_changes_the_identity_unless_it_is_about_where_and_how_a_job_runs(whole, data):
    plain, identity = whole
    path = data.draw(st.sampled_from(sorted(leaves(plain))))
    value = reduce(lambda node, name: node[name], path, plain)
    config = OmegaConf.create(plain)
    OmegaConf.update(config, ".".join(path), changed(value))
    assert (sweep.identity(config) == identity) == (path[0] in APART), ".".join(path)


def test_an_identity_does_not_depend_on_where_demo_pictures_are_drawn():
    told = {sweep.identity(composed(*given)) for given in ([], ["paths.outputs=/elsewhere"], ["launcher=slurm"])}
    assert len(told) == 1


def test_an_identity_is_of_values_and_not_of_spelling():
    spelled = [["seed=1"], ["seed=1", "batch_size=128"], ["architecture=neighbour_average", "seed=1"]]
    assert len({sweep.identity(composed(*given)) for given in spelled}) == 1
    assert re.fullmatch(r"[0-9a-f]{12}", sweep.identity(composed()))


def test_a_config_that_cannot_be_resolved_has_an_identity_of_its_own():
    broken = [OmegaConf.create({"a": "${nowhere}", "b": b}) for b in (1, 2)]
    assert len({sweep.identity(config) for config in broken}) == 2


NAMES = {
    "swept options in any order, with any values": [
        ["-m", "noise=none,gaussian", "seed=0,1", "data=folder"],
        ["data=folder", "seed=0,1,2", "-m", "noise=none,masking"],
        ["-m", "noise=none,gaussian", "seed=range(0,5)", "data=folder"],
    ],
    "where and how": [
        ["-m", "seed=0,1"],
        ["-m", "seed=0,1", "launcher=slurm", "hydra.launcher.partition=low", "paths.store=/x"],
        ["-m", "seed=0,1", "hydra/launcher=joblib", "sweep.dry_run=true", "logger=wandb", "extraction.workers=1"],
        ["--multirun", "seed=0,1", "debug=true", "sweep.wait=false", "logger.csv.folder=/x"],
    ],
}


@pytest.mark.parametrize("commands", NAMES.values(), ids=NAMES)
def test_commands_that_go_on_with_the_same_sweep(commands):
    assert len({sweep.sweep_name(words) for words in commands}) == 1


def test_commands_that_are_other_sweeps():
    commands = (
        ["-m", "seed=0,1"],
        ["-m", "seed=0,1", "noise=gaussian"],
        ["-m", "seed=0,1", "noise=none,gaussian"],
        ["-m", "seed=0"],
        ["-m", "sweep=thesis/table3"],
        ["-m", "sweep=thesis/table3", "seed=0,1"],
        ["-m", "optimizer.lr=0.1,0.2"],
    )
    names = [sweep.sweep_name(words) for words in commands]
    assert len(set(names)) == len(commands)
    heads = [name.rpartition("-")[0] for name in names]
    assert heads == ["seed", "seed", "noise-seed", "sweep", "thesis-table3", "thesis-table3-seed", "lr"]


def test_a_name_is_a_folders_name_whatever_is_swept():
    told = sweep.sweep_name(["-m", "+a@b.c=d,e", "sweep='x/../y z'", *(f"option_{i}=0,1" for i in range(40))])
    assert re.fullmatch(r"[\w-]{1,69}", told)
    assert sweep.sweep_name(["-m", "a=[b"]) == "refused"


def test_the_command_line_gets_the_name_once(monkeypatch):
    for words, added in (
        (["train.py", "-m", "seed=0,1"], True),
        (["train.py", "seed=0"], False),
        (["train.py", "-m", "seed=0,1", "sweep.name=mine"], False),
        (["train.py", "-m", "seed=0,1", "hydra.sweep.dir=there"], False),
    ):
        told = list(words)
        launch._name_sweep(told)
        assert (len(told) > len(words)) == added, words


@pytest.fixture
def job(tmp_path):
    """Leaves a job's folder as it is while or after it ran."""

    def leave(state: str | None, name: str = "a", metrics: bool = False, **facts: Any) -> Path:
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        if state is not None:
            write_json(folder / "status.json", {"state": state, **facts})
        if metrics:
            write_json(folder / "metrics.json", {})
        return folder

    return leave


@pytest.mark.parametrize(
    ("state", "metrics", "stands", "stands_while_queued"),
    [
        (None, False, "new", "queued"),
        ("queued", False, "new", "queued"),
        ("running", False, "lost", "queued"),
        ("running", True, "lost", "queued"),
        ("done", True, "done", "done"),
        ("done", False, "lost", "lost"),
        ("failed", False, "failed", "failed"),
        ("interrupted", False, "interrupted", "queued"),
        ("preempted", False, "preempted", "queued"),
        ("lost", False, "lost", "queued"),
    ],
)
def test_how_a_job_stands_when_nobody_holds_its_folder(job, state, metrics, stands, stands_while_queued):
    folder = job(state, metrics=metrics)
    assert sweep.standing(folder) == stands
    assert sweep.standing(folder, {"other": "7", folder.name: "8"}) == stands_while_queued


def test_a_job_runs_while_a_process_holds_its_folder_and_is_lost_when_that_is_killed(job):
    folder = job("running")
    holds = "import sys, time, filelock; l = filelock.FileLock(sys.argv[1]); l.acquire(); print(1, flush=True)"
    command = [sys.executable, "-c", f"{holds}; time.sleep(60)", str(folder / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline()
        assert (sweep.standing(folder), sweep.standing(folder, {folder.name: "8"})) == ("running", "running")
        holder.kill()
    assert sweep.standing(folder) == "lost"


@pytest.mark.parametrize(
    ("host", "pid", "stands"),
    [("here", None, "running"), ("here", 2**22 + 1, "lost"), ("elsewhere", 2**22 + 1, "running")],
)
def test_where_locks_do_not_work_the_process_is_looked_for(job, monkeypatch, host, pid, stands):
    def refuse(lock: FileLock, *given: Any, **named: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    assert sweep.standing(job("running", host=host, pid=pid or os.getpid())) == stands


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_a_status_that_cannot_be_read_is_none(job, content):
    folder = job(None)
    (folder / "status.json").write_text(content)
    assert sweep.read_status(folder) == {}
    assert sweep.standing(folder) == "new"


def test_a_lost_job_keeps_what_it_said(job):
    folder = job("running", job=3, host="h")
    sweep.note_lost(folder)
    told = sweep.read_status(folder)
    assert (told["state"], told["job"], told["host"]) == ("lost", 3, "h")
    assert told["error"].startswith("gone without a word")


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Stands in for Slurm's command: prints what it is told to, or fails."""

    def answer(text: str, code: int = 0) -> None:
        path = tmp_path / "bin" / "squeue"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\nprintf '{text}'\necho broken >&2\nexit {code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return answer


def test_slurm_is_asked_which_of_the_jobs_it_still_holds(job, squeue, tmp_path):
    jobs = {name: job("queued", name).name for name in "abc"}
    job("done", "d", metrics=True)
    sweep.note_submitted(tmp_path / "sweep", {"a": "12_0", "b": "12_1"})
    sweep.note_submitted(tmp_path / "sweep", {"c": "13", "d": "13"})
    squeue("12_1\\n13\\n99\\n")
    assert sweep.queued_jobs(tmp_path / "sweep") == {"b": "12_1", "c": "13"}
    assert f"--user={os.getuid()}" in (tmp_path / "asked").read_text()
    assert len(jobs) == 3


def test_slurm_that_does_not_answer_is_an_error_and_not_an_empty_queue(job, squeue, tmp_path):
    job("queued")
    sweep.note_submitted(tmp_path / "sweep", {"a": "12_0"})
    squeue("", code=1)
    with pytest.raises(LikenessError, match="Slurm does not say") as refused:
        sweep.queued_jobs(tmp_path / "sweep")
    assert (refused.value.code, refused.value.cause) == ("QUEUE", "broken")


def test_slurm_is_not_asked_about_jobs_that_are_done(job, squeue, tmp_path):
    job("done", metrics=True)
    sweep.note_submitted(tmp_path / "sweep", {"a": "12_0"})
    squeue("12_0", code=1)
    assert sweep.queued_jobs(tmp_path / "sweep") == {}


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.fixture
def five_jobs(job, tmp_path) -> Path:
    """A sweep with a job of each kind, and a folder that is none of its jobs'."""
    job("done", "done", metrics=True)
    for state in ("failed", "interrupted", "running", "queued"):
        job(state, state)
    (tmp_path / "sweep" / "mine").mkdir()
    sweep.note_command(tmp_path / "sweep", ["train.py", "-m"], ["done"], first=True)
    return tmp_path / "sweep"


def run_app(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        app.main(list(words))
    return left.value.code


def test_rm_removes_unfinished_jobs_alone(five_jobs, capsys):
    app.main(["sweep", "rm", str(five_jobs)])
    assert left_in(five_jobs) == ["done", "mine"]
    assert "4 jobs removed" in capsys.readouterr().out


def test_rm_all_removes_the_sweep(five_jobs):
    app.main(["sweep", "rm", "--all", str(five_jobs)])
    assert not five_jobs.exists()


@pytest.mark.parametrize("words", [[], ["--all"]])
def test_rm_removes_nothing_while_a_job_runs(five_jobs, capsys, words):
    with FileLock(five_jobs / "running" / ".lock"):
        assert run_app("sweep", "rm", *words, str(five_jobs)) == 73
    assert left_in(five_jobs) == ["done", "failed", "interrupted", "mine", "queued", "running"]
    assert "1 jobs of the sweep are running or queued" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["rm", "retry"])
def test_a_folder_of_runs_that_no_sweep_made_is_left_alone(job, tmp_path, capsys, command):
    job("failed")
    assert run_app("sweep", command, str(tmp_path / "sweep")) == 66
    assert left_in(tmp_path / "sweep") == ["a"]
    assert "[RUN-MISSING] there is no sweep in this folder." in capsys.readouterr().err


def test_status_shows_every_job_and_why_one_failed(job, tmp_path, capsys):
    job("done", "d", metrics=True, job=0, overrides=["seed=0"])
    job("failed", "f", job=1, overrides=["seed=1"], error="out of memory\nat line 3")
    job("running", "r", job=2, overrides=["seed=2"])
    write_json(tmp_path / "sweep" / "d" / "metrics.json", {"splits": {}})
    app.main(["sweep", "status", str(tmp_path / "sweep")])
    told = capsys.readouterr().out
    assert ": 1 done, 1 failed, 1 lost" in " ".join(told.split())
    rows = [line.split() for line in told.splitlines() if line[:1].isdigit()]
    assert rows == [["0", "d", "0", "done"], ["1", "f", "1", "failed"], ["2", "r", "2", "lost"]]
    assert "job 1 failed: out of memory" in told


def test_status_of_no_folder_is_a_message(tmp_path, capsys):
    assert run_app("sweep", "status", str(tmp_path / "nowhere")) == 66
    assert "[RUN-MISSING]" in capsys.readouterr().err


def test_retry_runs_the_same_words_in_the_same_place(tmp_path, monkeypatch):
    place, folder = tmp_path / "place", tmp_path / "it's here"
    place.mkdir()
    monkeypatch.chdir(place)
    sweep.note_command(folder, ["../train.py", "-m", "seed=0,1", "sweep.name=x"], ["a"], first=True)
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr("os.execv", lambda path, words: started.append((path, words, Path.cwd())))
    app.main(["sweep", "retry", "it's here"])
    where = f"hydra.sweep.dir='{tmp_path}/it\\'s here'"
    script = str(place / "../train.py")
    assert started == [(sys.executable, [sys.executable, script, "-m", "seed=0,1", "sweep.name=x", where], place)]


def test_a_search_asks_for_more_and_more_jobs_and_all_of_them_are_asked_for(tmp_path):
    for jobs, first in ((["old"], True), (["a", "b"], True), (["c"], False)):
        sweep.note_command(tmp_path, ["train.py"], jobs, first)
    assert sweep.asked_jobs(tmp_path) == ["a", "b", "c"]


def test_jobs_are_counted_in_the_order_of_their_lives():
    assert sweep.counted(["failed", "done", "new", "done", "refused"]) == "2 done, 1 new, 1 failed, 1 refused"


def test_what_is_written_of_a_job_is_whole_json(job):
    folder = job(None)
    sweep.note(folder, "queued", {"job": 1, "overrides": ["a=1"]})
    assert json.loads((folder / "status.json").read_text()) == {"state": "queued", "job": 1, "overrides": ["a=1"]}
    shutil.rmtree(folder)
    sweep.note(folder, "queued", {"job": 1})
    assert sorted(os.listdir(folder)) == ["status.json"]


def test_a_table_tells_jobs_apart_by_what_changes_a_result():
    words = ["sweep=thesis/all", "seed=1", "+a.b=2", "launcher=slurm", "logger=wandb", "paths.store=/x", "sweep.name=x"]
    words += ["hydra.launcher.partition=low", "extraction.workers=2", "debug=true", "++logger.wandb.name=x"]
    assert sweep.options_of_a_job(words) == ["sweep=thesis/all", "seed=1", "+a.b=2"]
