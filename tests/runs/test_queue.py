"""Jobs through submitit, in processes of this machine or in this very process, and what Slurm is told."""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit
from helpers import ROOT
from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf
from omegaconf import OmegaConf

from likeness.errors import LikenessError
from likeness.runs import queue, sweep

WHEN = ("began", "ended")


def noting(folder: Path) -> Callable[[str, str], None]:
    """A job that says when it began and ended, and ends as it is told to; its process need not import this file."""

    def note_times(name: str, end: str) -> None:
        import time

        (folder / f"{name}.began").write_text(str(time.time()))
        time.sleep(0.2)
        (folder / f"{name}.ended").write_text(str(time.time()))
        if end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if end == "bad":
            raise ValueError("our mistake")

    return note_times


def options(conf: object, **given: object) -> dict:
    plain = OmegaConf.to_container(OmegaConf.structured(conf))
    return {name: value for name, value in plain.items() if name != "_target_"} | given


def test_jobs_run_here_a_few_at_a_time_and_none_hides_another(tmp_path):
    executor = queue.executor("local", options(LocalQueueConf, submitit_folder=str(tmp_path / "log"), name="x"))
    ends = {"a": "well", "b": "killed", "c": "bad", "d": "well"}
    queue.run_here(executor, [(noting(tmp_path), call) for call in ends.items()], at_once=2)
    assert {path.stem for path in tmp_path.glob("*.ended")} == set(ends)
    at = {f"{name}.{when}": float((tmp_path / f"{name}.{when}").read_text()) for name in ends for when in WHEN}
    others = [sum(at[f"{a}.began"] < at[f"{b}.began"] < at[f"{a}.ended"] for a in ends if a != b) for b in ends]
    assert max(others) <= 1


def test_the_shipped_launcher_becomes_slurms_own_options(tmp_path, monkeypatch):
    """By submitit's names; every option that costs or limits something is given, and none by default."""
    shipped = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/launcher/slurm.yaml"))["hydra"]["launcher"]
    told = {}

    class Executor:
        def __init__(self, **given: object) -> None:
            told.update(given)

        def update_parameters(self, **given: object) -> None:
            told.update(given)

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    shipped.pop("_target_")
    queue.executor("slurm", options(SlurmQueueConf, **shipped, submitit_folder="log", name="x"))
    assert (told["folder"], told["cluster"], told["slurm_max_num_timeout"]) == ("log", "slurm", 3)
    assert (told["timeout_min"], told["cpus_per_task"], told["gpus_per_node"], told["mem_gb"]) == (240, 8, 1, 32)
    assert (told["slurm_partition"], told["slurm_array_parallelism"], told["slurm_signal_delay_s"]) == (None, 16, 120)
    assert shipped.keys() >= {"partition", "timeout_min", "max_num_timeout", "array_parallelism", "gpus_per_node"}


def test_slurm_is_asked_to_tell_a_job_before_its_time_is_up(tmp_path, monkeypatch):
    for name in ("srun", "sbatch"):  # submitit looks whether there is a Slurm
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    given = {"submitit_folder": str(tmp_path / "log"), "name": "train", "timeout_min": 240, "signal_delay_s": 90}
    made = queue.executor("slurm", options(SlurmQueueConf, **given))
    script = made._executor._make_submission_file_text("true", "1").splitlines()
    assert {"#SBATCH --time=240", "#SBATCH --signal=USR2@90"} <= set(script)


def test_an_option_that_submitit_does_not_know_is_refused(tmp_path):
    with pytest.raises(LikenessError, match="could not be submitted") as refused:
        queue.executor("local", options(LocalQueueConf, submitit_folder=str(tmp_path), name="x", nonsense=1))
    assert (refused.value.code, "nonsense" in refused.value.cause) == ("QUEUE", True)


def test_a_submission_notes_which_job_each_folder_is(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    executor = queue.executor("debug", options(LocalQueueConf, submitit_folder=str(tmp_path / "log"), name="x"))
    queue.submit(executor, {"a": (len, ("xy",)), "b": (len, ("x",))}, tmp_path)
    noted = sweep._read(tmp_path / "submitted.json")
    assert noted.keys() == {"a", "b"}
    assert "submitted 2 jobs to Slurm" in caplog.text


@pytest.mark.parametrize("error", [submitit.core.utils.FailedJobError("invalid partition"), OSError("no sbatch")])
def test_what_slurm_does_not_take_is_told_and_nothing_is_noted(tmp_path, error):
    def refuse(*given: object) -> None:
        raise error

    executor = submitit.AutoExecutor(folder=tmp_path, cluster="debug")
    executor.submit = refuse
    with pytest.raises(LikenessError) as refused:
        queue.submit(executor, {"a": (len, ("x",))}, tmp_path)
    assert (refused.value.code, refused.value.cause) == ("QUEUE", str(error))
    assert not (tmp_path / "submitted.json").exists()


def test_following_ends_when_slurm_holds_no_job_and_asks_less_and_less_often(tmp_path, monkeypatch, caplog):
    silent = LikenessError("QUEUE", "Slurm does not say.", fix="wait")
    answers = iter([{"a": "1", "b": "2"}, {"a": "1", "b": "2"}, silent, {"b": "2"}, {}])

    def answer(folder: Path) -> dict:
        told = next(answers)
        if isinstance(told, LikenessError):
            raise told
        return told

    pauses: list[float] = []
    monkeypatch.setattr(queue, "queued_jobs", answer)
    monkeypatch.setattr(queue, "time", SimpleNamespace(sleep=pauses.append))
    queue.follow(tmp_path)
    assert pauses == [1.0, 1.5, 2.25, 3.375]
    assert "Slurm does not say." in caplog.text
