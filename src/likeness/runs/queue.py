"""Jobs handed to submitit: on Slurm, or in processes of this machine."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from likeness.console import progress
from likeness.runs.sweep import note_submitted

log = logging.getLogger(__name__)

# What hydra-submitit-launcher calls them, of all executors; every other option is an executor's own.
_SHARED = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
_SHARED |= {"stderr_to_stdout"}
_SECONDS_BETWEEN_LOOKS = 2.0

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def executor(kind: str, options: dict[str, Any]) -> Any:
    """submitit's executor of ``kind`` (slurm or local) with a launcher's options."""
    import submitit

    given = dict(options)
    retries = {f"{kind}_max_num_timeout": given.pop("max_num_timeout")} if "max_num_timeout" in given else {}
    made = submitit.AutoExecutor(folder=given.pop("submitit_folder"), cluster=kind, **retries)
    made.update_parameters(**{name if name in _SHARED else f"{kind}_{name}": each for name, each in given.items()})
    return made


def submit(executor: Any, calls: Sequence[Call], names: Sequence[str], folder: Path) -> list[Any]:
    """Hand all calls to Slurm as one array; the sweep's folder notes which job each is, by its folder's name."""
    with executor.batch():
        jobs = [executor.submit(call, *given) for call, given in calls]
    note_submitted(folder, {name: job.job_id for name, job in zip(names, jobs, strict=True)})
    log.info("submitted %d jobs to Slurm as array %s", len(jobs), jobs[0].job_id.partition("_")[0])
    return jobs


def follow(jobs: Sequence[Any]) -> None:
    """Wait until Slurm holds none of the jobs any more: done, failed or killed."""
    left = list(jobs)
    with progress("jobs", len(jobs), "jobs") as advance:
        while left:
            left = _still_running(left, advance, _SECONDS_BETWEEN_LOOKS)


def run_here(executor: Any, calls: Sequence[Call], at_once: int) -> None:
    """Run the calls in processes of this machine, ``at_once`` at a time."""
    running: list[Any] = []
    with progress("jobs", len(calls), "jobs") as advance:
        for call, given in calls:
            while len(running) >= at_once:
                running = _still_running(running, advance, _SECONDS_BETWEEN_LOOKS / 10)
            running.append(executor.submit(call, *given))
        while running:
            running = _still_running(running, advance, _SECONDS_BETWEEN_LOOKS / 10)


def _still_running(jobs: list[Any], advance: Callable[[int], None], pause: float) -> list[Any]:
    left = [job for job in jobs if not job.done()]
    if len(left) == len(jobs):
        time.sleep(pause)
    else:
        advance(len(jobs) - len(left))
    return left
