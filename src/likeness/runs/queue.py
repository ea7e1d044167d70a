"""Jobs handed to submitit: on Slurm, or in processes of this machine."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from likeness.console import Advance, progress
from likeness.errors import LikenessError
from likeness.runs.sweep import note_submitted, queued_jobs

log = logging.getLogger(__name__)

# What hydra-submitit-launcher calls them, of all executors; every other option is an executor's own.
_SHARED = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
_SHARED |= {"stderr_to_stdout"}
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_QUESTIONS = (1.0, 30.0)  # to a scheduler that others share: more and more seldom

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def executor(kind: str, options: Mapping[str, Any]) -> Any:
    """submitit's executor of ``kind`` (slurm or local) with a launcher's options.

    Raises:
        LikenessError: QUEUE where this machine has no Slurm, or an option is none of the executor's.
    """
    import submitit

    given = dict(options)
    retries = {f"{kind}_max_num_timeout": given.pop("max_num_timeout")} if "max_num_timeout" in given else {}
    folder = given.pop("submitit_folder")
    try:
        made = submitit.AutoExecutor(folder=folder, cluster=kind, **retries)
        made.update_parameters(**{name if name in _SHARED else f"{kind}_{name}": each for name, each in given.items()})
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise _refused(error) from error
    return made


def submit(executor: Any, calls: Mapping[str, Call], folder: Path) -> None:
    """Hand all calls, by the name of the job's folder, to Slurm as one array; the sweep's folder notes the numbers.

    Raises:
        LikenessError: QUEUE with Slurm's own reason where it does not take them.
    """
    from submitit.core.utils import FailedJobError

    try:
        with executor.batch():
            jobs = [executor.submit(call, *given) for call, given in calls.values()]
    except (FailedJobError, OSError) as error:
        raise _refused(error) from error
    note_submitted(folder, {name: job.job_id for name, job in zip(calls, jobs, strict=True)})
    log.info("submitted %d jobs to Slurm as %s", len(jobs), jobs[0].job_id.partition("_")[0])


def _refused(error: Exception) -> LikenessError:
    return LikenessError(
        "QUEUE",
        "the jobs could not be submitted.",
        where="hydra.launcher",
        cause=str(error),
        kept="No job was started; those that are done stay so.",
        fix="Correct the option that the cause names, e.g. hydra.launcher.partition=; or take launcher=local.",
    )


def follow(folder: Path) -> None:
    """Wait until Slurm holds none of a sweep's jobs any more: done, failed or killed. Asks less and less often."""
    pause, longest = _SECONDS_BETWEEN_QUESTIONS
    left = len(queued_jobs(folder))
    with progress("jobs", left, "jobs") as advance:
        while left:
            time.sleep(pause)
            pause = min(1.5 * pause, longest)
            left = _still_queued(folder, left, advance)


def _still_queued(folder: Path, before: int, advance: Advance) -> int:
    try:
        left = len(queued_jobs(folder))
    except LikenessError as error:  # a scheduler that is busy or restarted for a while has lost no job
        log.warning("%s", error.what)
        return before
    advance(before - left)
    return left


def run_here(executor: Any, calls: Sequence[Call], at_once: int) -> None:
    """Run the calls in processes of this machine, ``at_once`` at a time."""
    running: list[Any] = []
    with progress("jobs", len(calls), "jobs") as advance:
        for call, given in calls:
            running = _at_most(at_once - 1, running, advance)
            running.append(executor.submit(call, *given))
        _at_most(0, running, advance)


def _at_most(most: int, running: list[Any], advance: Advance) -> list[Any]:
    """Those that still run, when they are this few."""
    while True:
        left = [job for job in running if not job.done()]
        advance(len(running) - len(left))
        if len(left) <= most:
            return left
        running = left
        time.sleep(_SECONDS_BETWEEN_LOOKS)
