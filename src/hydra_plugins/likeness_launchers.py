"""Hydra's launchers, each of which reads a grid before it starts it, and the sweeper that leaves that to them.

Hydra looks for plugins in this package alone.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job
from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from likeness.grid import Job

log = logging.getLogger(__name__)


class Grid(BasicSweeper):
    """Every combination of the values that are given."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Composing every job is what the launchers below begin with, and a tenth of a second for each."""


class _Grid(Launcher):
    """What is done is skipped, features are extracted once, results are read from disk."""

    submits = False  # to a queue, whose machines extract
    config: Any
    hydra_context: Any
    task_function: Any

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from likeness import grid

        return grid.launch(self, self.start, job_overrides, first=initial_job_idx == 0, submits=self.submits)

    def start(self, jobs: Sequence["Job"]) -> None:
        super().launch([job.overrides for job in jobs], jobs[0].number)  # type: ignore[safe-super]


class Local(_Grid, BasicLauncher):
    """One job after another in this process."""

    def start(self, jobs: Sequence["Job"]) -> None:
        """As Hydra's own launcher, which would compose each job again and keep the configs of all."""
        hydra = self.config.hydra
        for job in jobs:
            log.info("\t#%d : %s", job.number, " ".join(filter_overrides(job.overrides)))
            composed, job.composed = job.composed, None
            assert composed is not None
            run_job(self.task_function, composed, "hydra.sweep.dir", "hydra.sweep.subdir", self.hydra_context)
            configure_log(hydra.hydra_logging, hydra.verbose)


try:
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
except ImportError:  # an extra
    pass
else:

    class Joblib(_Grid, JoblibLauncher):
        """``n_jobs`` processes on this machine, the cores shared out among them."""

        def start(self, jobs: Sequence["Job"]) -> None:
            from likeness import grid

            grid.start_despite_kills(self._start, jobs)

        def _start(self, jobs: Sequence["Job"]) -> None:
            from hydra.core.singleton import Singleton
            from hydra_plugins.hydra_joblib_launcher._core import process_joblib_cfg
            from joblib import Parallel, delayed

            options = {**self.joblib, "backend": "loky"}
            process_joblib_cfg(options)
            given = (self.hydra_context, self.config, self.task_function, Singleton.get_state())
            Parallel(**options)(delayed(_run)(job.number, job.overrides, *given) for job in jobs)

    def _run(*given: Any) -> None:
        """In a worker, what Hydra's own launcher does there; what it gives back stays there too: 0.7 MB a job."""
        from hydra_plugins.hydra_joblib_launcher._core import execute_job

        execute_job(*given)


try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher, SlurmLauncher
except ImportError:  # an extra
    pass
else:

    class SlurmLocal(_Grid, LocalLauncher):
        """As on a cluster, in processes of this machine, ``sweep.at_once`` at a time."""

        def start(self, jobs: Sequence["Job"]) -> None:
            from likeness.runs import queue

            calls = list(_calls(self, jobs).values())
            queue.run_here(queue.executor("local", self.params), calls, self.config.sweep.at_once)

    class Slurm(_Grid, SlurmLauncher):
        """A Slurm array. The compute nodes extract: whoever comes first computes, the others wait for the rows."""

        submits = True

        def start(self, jobs: Sequence["Job"]) -> None:
            from likeness.runs import queue

            folder = Path(str(self.config.hydra.sweep.dir))
            queue.submit(queue.executor("slurm", self.params), _calls(self, jobs), folder)
            if self.config.sweep.wait:
                queue.follow(folder)


def _calls(launcher: Launcher, jobs: Sequence["Job"]) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """By a job's folder, the launcher called within the job, as hydra-submitit-launcher has it."""
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    return {
        job.folder.name: (launcher, (job.overrides, "hydra.sweep.dir", job.number, str(job.number), state))
        for job in jobs
    }
