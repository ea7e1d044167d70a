"""What a sweep does around its jobs: read the grid, leave out what is done, extract once, hand over the rest."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from likeness.config.checking import checked
from likeness.console import progress, terminal
from likeness.errors import LikenessError
from likeness.files import canonical_json
from likeness.runs import preemption, sweep
from likeness.runs.launch import importing

if TYPE_CHECKING:
    from likeness.features.extraction import Cost

log = logging.getLogger(__name__)

Overrides = Sequence[str]
Start = Callable[[Sequence["Job"]], None]
_EXTRACTOR = ("decoding", "preprocessing", "backbone", "data", "paths")
_LEFT_ALONE = ("done", "running", "queued", "refused")


@dataclass
class Job:
    """One job of a grid.

    Args:
        number: By which tables name it; it has it for good.
        config: Checked; None where it is refused, and ``fault`` says why.
        state: As :func:`likeness.runs.sweep.standing` has it, or ``refused``.
        composed: What Hydra runs, 0.2 MB, where the job may be run; a launcher of this process takes it out.
    """

    number: int
    overrides: list[str]
    identity: str
    folder: Path
    config: dict[str, Any] | None
    fault: LikenessError | None
    state: str
    composed: DictConfig | None

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "job": self.number,
            "identity": self.identity,
            "overrides": sweep.options_of_a_job(self.overrides),
        }


def launch(
    launcher: Launcher, start: Start, batch: Sequence[Overrides], *, first: bool, submits: bool
) -> list[JobReturn]:
    """Run the jobs of a grid that are not done yet, and give back every job's value, as it is on disk.

    Args:
        start: Runs the jobs that it is given, or submits them.
        first: Whether these are a command's first jobs; a search asks for some, then for more.
        submits: Whether they run on other machines, which then look at the pictures themselves.

    Raises:
        LikenessError: CONFIG where ``sweep.wait=false`` cannot be done.
        SystemExit: After a dry run, and after a submission that is not waited for.
    """
    config: Any = launcher.config  # type: ignore[attr-defined]
    folder = Path(str(config.hydra.sweep.dir))
    if not config.sweep.wait:
        _refuse_not_waiting(submits, str(config.hydra.sweeper._target_))
    jobs = read_grid(launcher, batch)
    if config.sweep.dry_run:
        _show_dry_run(jobs, folder)
    sweep.note_command(folder, sys.argv, [job.folder.name for job in jobs], first)
    for job in jobs:
        if job.fault:
            log.error("job %d is refused: %s", job.number, job.fault)
            sweep.note(job.folder, "failed", {**job.facts, "error": str(job.fault)})
    todo = _to_run(jobs)
    log.info("%s: %d jobs: %s; %d to run", folder, len(jobs), sweep.counted(job.state for job in jobs), len(todo))
    for job in todo:
        sweep.note_queued(job.folder, job.facts)
    if not submits:
        extract_once(todo)
    if todo:
        start(todo)
    if not config.sweep.wait:
        log.info("follow them with: squeue --me, and: likeness sweep status %s", folder)
        raise SystemExit(0)
    waiting = sweep.queued_jobs(folder)
    for job in todo:
        if sweep.standing(job.folder, waiting) == "lost":
            sweep.note_lost(job.folder)
    return [_returned(job) for job in jobs]


def _refuse_not_waiting(submits: bool, sweeper: str) -> None:
    reason = "" if submits else "only Slurm keeps jobs of its own; launcher=slurm submits them"
    if not sweeper.endswith((".Grid", ".BasicSweeper")):
        reason = "a search chooses its next jobs by the results of the last ones"
    if reason:
        raise LikenessError(
            "CONFIG",
            "this sweep has to be waited for.",
            where="sweep.wait",
            cause=reason,
            kept="No job was started.",
            fix="Leave sweep.wait=false out; or take launcher=slurm sweeper=grid.",
        )


def start_despite_kills(start: Start, jobs: Sequence[Job]) -> None:
    """Start jobs in worker processes. One that is killed takes its fellows with it: the jobs after it start anew."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    left, before = list(jobs), len(jobs) + 1
    while 0 < len(left) < before:
        before = len(left)
        try:
            start(left)
        except BrokenProcessPool as error:
            log.error("a worker process is gone, and with it the others' jobs: %s", str(error).splitlines()[0])
        left = [job for job in left if sweep.read_status(job.folder).get("state") == "queued"]


def read_grid(launcher: Launcher, batch: Sequence[Overrides]) -> list[Job]:
    """Every job of a batch, composed and checked; a job that is refused is one of them and says why."""
    sweep_config: Any = launcher.config  # type: ignore[attr-defined]
    folder = Path(str(sweep_config.hydra.sweep.dir))
    waiting, numbers = sweep.queued_jobs(folder), _Numbers(folder)
    jobs = []
    told, loader = HydraConfig.instance().cfg, launcher.hydra_context.config_loader  # type: ignore[attr-defined]
    try:
        with progress("reading the grid", len(batch), "jobs") as advance:
            for overrides in batch:
                with importing():  # the first job's check does
                    composed = loader.load_sweep_config(sweep_config, list(overrides))
                    jobs.append(_job(numbers, list(overrides), composed, folder, waiting))
                advance()
    finally:
        HydraConfig.instance().cfg = told
    return jobs


class _Numbers:
    """A job keeps the number that it has on disk; a new one gets the next."""

    def __init__(self, folder: Path) -> None:
        self.known = {job.name: int(sweep.read_status(job).get("job", 0)) for job in sweep.job_folders(folder)}

    def of(self, name: str) -> int:
        return self.known.setdefault(name, max(self.known.values(), default=-1) + 1)


def _job(numbers: _Numbers, overrides: list[str], composed: DictConfig, folder: Path, waiting: Collection[str]) -> Job:
    identity, subdir = sweep.identity(composed), str(composed.hydra.sweep.subdir)
    own = folder / subdir
    number = numbers.of(own.name)
    with open_dict(composed.hydra):  # what Hydra fills in, or asks again, when the job starts
        composed.hydra.sweep.subdir = subdir
        composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        composed.hydra.runtime.output_dir = str(own.absolute())
    HydraConfig.instance().set_config(composed)
    try:
        config, fault = _checked(composed), None
    except LikenessError as error:
        config, fault = None, error
    state = "refused" if fault else sweep.standing(own, waiting)
    return Job(number, overrides, identity, own, config, fault, state, composed if state not in _LEFT_ALONE else None)


def _checked(composed: DictConfig) -> dict[str, Any]:
    """As the job itself will check it."""
    bare = composed.copy()
    with open_dict(bare):
        del bare.hydra
    return checked(bare)


def _to_run(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are not done and that nobody runs, each once, though a grid may spell it twice."""
    return list({job.identity: job for job in reversed(jobs) if job.state not in _LEFT_ALONE}.values())[::-1]


def _returned(job: Job) -> JobReturn:
    """A job's value from disk, so that a killed job hides no other: None for one that has none."""
    value = sweep.read_status(job.folder).get("value")
    returned = JobReturn(overrides=job.overrides, working_dir=str(job.folder), status=JobStatus.COMPLETED)
    returned.return_value = value
    return returned


def distinct_extractors(jobs: Sequence[Job]) -> list[tuple[dict[str, Any], int]]:
    """A config for each extractor and data set among the jobs, and how many jobs share it.

    An evaluation has none of its own: the checkpoint says what to extract with.
    """
    extracting = [job.config for job in jobs if job.config and set(_EXTRACTOR) <= set(job.config)]
    spelled = [canonical_json({name: config[name] for name in _EXTRACTOR}) for config in extracting]
    counts = Counter(spelled)
    return [(config, counts[name]) for name, config in dict(zip(spelled, extracting, strict=True)).items()]


def extract_once(jobs: Sequence[Job]) -> None:
    """Compute what the store lacks, an extractor at a time. One that fails is told; its jobs will say the same."""
    for config, _ in distinct_extractors(jobs):
        from likeness.assembly import extracting  # slow to import, and a grid that is done does without

        try:
            with preemption.listening():
                extracting.find_features(config, extracting.build_extractor(config))
        except LikenessError as error:
            log.error("%s", error)


def _show_dry_run(jobs: Sequence[Job], folder: Path) -> None:
    """Print every job and what it would cost, and end; a folder that was made for the sweep goes again.

    The exit code is that of the first fault; weights that are still to be downloaded are none.
    """
    from likeness.reports.dry_run import dry_run_table

    costs = _costs(jobs)
    refused = [(job.number, job.fault) for job in jobs if job.fault]
    shown = [(job.number, sweep.options_of_a_job(job.overrides), job.state) for job in jobs]
    terminal().print(dry_run_table(shown, costs, refused, folder))
    _remove_empty(folder)
    faults = [fault for _, fault in refused] + [cost.fault for cost, _ in costs if cost.fault]
    raise SystemExit(next((fault.exit_code for fault in faults if fault.code != "NET"), 0))


def _costs(jobs: Sequence[Job]) -> list[tuple["Cost", int]]:
    if not (extractors := distinct_extractors(jobs)):
        return []
    from likeness.assembly import extracting

    return [(extracting.extraction_cost(config), shared) for config, shared in extractors]


def _remove_empty(folder: Path) -> None:
    """A sweep's folder that holds nothing but Hydra's own note of it."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {"multirun.yaml"}:
        (folder / "multirun.yaml").unlink(missing_ok=True)
        folder.rmdir()
