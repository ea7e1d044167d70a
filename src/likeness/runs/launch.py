"""From the command line to a job and back: every error becomes a message, a state on disk and an exit code."""

import functools
import itertools
import logging
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from likeness.config import refused
from likeness.errors import BUG, INTERRUPTED, LikenessError
from likeness.files import write_json

log = logging.getLogger(__name__)

Task = Callable[[DictConfig], float | None]
_RESULTS = (
    "metrics.json",
    "csv",
    "bad_images.csv",
    "journal.jsonl",
    "queries*.csv",
    "checkpoints",
    "figures",
    "config.yaml",
)


def reported(task: Task) -> Task:
    """A Hydra task whose end is on disk: ``status.json`` in the job's folder says running, done, failed or interrupted.

    In a multirun an error is shown and the other jobs go on; in a single run it is passed up.
    """

    @functools.wraps(task)
    def job(cfg: DictConfig) -> float | None:
        hydra = HydraConfig.get()
        if int(os.environ.get("LOCAL_RANK", 0)):  # started by the first process of this very job, which reports
            return task(cfg)
        folder = Path(hydra.runtime.output_dir)
        facts = {
            "job": hydra.job.num if hydra.mode == RunMode.MULTIRUN else 0,
            "overrides": list(hydra.overrides.task),
            "host": socket.gethostname(),
        }
        facts |= {"pid": os.getpid(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
        with _claimed(folder):
            _set_earlier_results_aside(folder)
            write_json(folder / "status.json", {"state": "running", **facts})
            try:
                value = task(cfg)
            except BaseException as error:
                state = "failed" if isinstance(error, Exception) else "interrupted"
                told, trace = str(error) or type(error).__name__, traceback.format_exc()
                write_json(folder / "status.json", {"state": state, "error": told, "traceback": trace, **facts})
                if isinstance(error, LikenessError) and hydra.mode == RunMode.RUN:
                    _leave(told, error.exit_code)
                if hydra.mode == RunMode.RUN or state == "interrupted":
                    raise
                log.error("job %s failed\n%s", facts["job"], told if isinstance(error, LikenessError) else trace)
                return None
            finally:
                _finish_trackers()
            write_json(folder / "status.json", {"state": "done", **facts})
            return value

    return job


def _finish_trackers() -> None:
    """Close what the job opened, if it came as far as opening any: trackers are slow to import."""
    if (trackers := sys.modules.get("likeness.runs.trackers")) is not None:
        trackers.finish()


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """The folder is this process's alone while the job runs; the kernel gives it free when the process dies."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise LikenessError(
            "RUN-DIR",
            "another run is writing to this folder.",
            where=str(folder.absolute()),
            kept="The other run's files are untouched.",
            fix="Wait for it, or choose another folder with hydra.run.dir=.",
        ) from error
    except (OSError, NotImplementedError) as error:
        log.warning("[LOCK] no working lock in %s (%s): make sure that no other run writes there", folder, error)
    try:
        yield
    finally:
        lock.release()


def _set_earlier_results_aside(folder: Path) -> None:
    """A run in a folder that holds results moves them into ``earlier-N``; nothing is overwritten."""
    earlier = [path for name in _RESULTS for path in sorted(folder.glob(name))]
    if not earlier:
        return
    aside = next(path for n in itertools.count(1) if not (path := folder / f"earlier-{n}").exists())
    aside.mkdir()
    for path in earlier:
        shutil.move(path, aside / path.name)
    log.info("this folder held results; they are now in %s", aside)


def run(main: Callable[[], Any]) -> None:
    """Run a Hydra application; an error a user can cause ends as a message and its exit code, without a traceback.

    ``debug=true`` on the command line shows the traceback.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is in hand is kept, as for Ctrl-C
    try:
        main()
    except LikenessError as error:
        _leave(str(error), error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        fault = refused(error)
        _leave(str(fault), fault.exit_code)
    except KeyboardInterrupt:
        _leave(
            "interrupted; features and checkpoints are kept, and the same command finds the features.",
            INTERRUPTED,
        )
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(INTERRUPTED)
    except Exception as error:
        if _of_composition(error):
            fault = refused(error)
            _leave(str(fault), fault.exit_code)
        traceback.print_exc()
        _leave("[BUG] this is a fault of likeness, not of your input; please report the lines above.", BUG)


def _of_composition(error: Exception) -> bool:
    """Whether Hydra refused an override with a bare ValueError, as it does ``noise=null``."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, ValueError) and frames[-1].f_globals.get("__name__") == "hydra._internal.defaults_list"


def _leave(message: str, code: int) -> None:
    if "debug=true" in sys.argv:
        traceback.print_exc()
    sys.stderr.write(f"ERROR {message}\n")
    sys.exit(code)
