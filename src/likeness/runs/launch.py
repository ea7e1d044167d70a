"""From the command line to a job and back: every error becomes a message, a state on disk and an exit code."""

import atexit
import functools
import gc
import itertools
import logging
import multiprocessing
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
from typing import Any, NoReturn

from filelock import FileLock, Timeout
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from likeness.config.refusals import refused
from likeness.config.secrecy import redacted
from likeness.errors import BUG, INTERRUPTED, LikenessError
from likeness.files import OF_THE_DISK, sweep_temporary, unwritten, write_json
from likeness.runs import preemption, sweep
from likeness.runs.resumption import forget, resume

log = logging.getLogger(__name__)

# Of a job's folder within its sweep's.
OmegaConf.register_new_resolver("likeness.identity", lambda *, _root_: sweep.identity(_root_), replace=True)

Task = Callable[[DictConfig], float | None]
_SECONDS_A_LOOK_TAKES = 0.5  # whoever asks whether a job is running holds its lock for a moment
_RESULTS = (
    "metrics.json",
    "csv",
    "bad_images.csv",
    "journal.jsonl",
    "queries*.csv",
    "checkpoints",
    "figures",
    "config.yaml",
    "tracker.json",
)


def reported(task: Task) -> Task:
    """A Hydra task whose end is on disk: ``status.json`` says running, done, failed, interrupted or preempted.

    An unfinished run of the same config in the job's folder is gone on with. A signal is answered where nothing is
    lost, and then handed on to the handler that a scheduler's program had put there, which may requeue the job.
    In a multirun an error is shown and the other jobs go on; in a single run it is passed up.
    """

    @functools.wraps(task)
    def job(cfg: DictConfig) -> float | None:
        hydra = HydraConfig.get()
        if int(os.environ.get("LOCAL_RANK", 0)):  # started by the first process of this very job, which reports
            return task(cfg)
        folder = Path(hydra.runtime.output_dir)
        facts = _facts(cfg, folder)
        with _claimed(folder) as locked, preemption.listening():
            if hydra.mode == RunMode.MULTIRUN and sweep.is_done(folder):
                log.info("job %s was done before: %s", facts["job"], folder)
                return sweep.read_status(folder).get("value")
            try:
                sweep_temporary(folder)
                if not resume(folder, cfg, locked):
                    _set_earlier_results_aside(folder)
                write_json(folder / "status.json", {"state": "running", **facts})
                value = task(cfg)
            except preemption.Preempted as error:
                error.folder_option = _folder_option(hydra)
                _note_end(folder, {"state": error.state, "error": str(error), **facts})
                _finish_trackers(exit_code=1)
                preemption.hand_on(error)
                raise
            except BaseException as error:
                state = "failed" if isinstance(error, Exception) else "interrupted"
                told, trace = redacted(str(error) or type(error).__name__), redacted(traceback.format_exc())
                code = {"code": error.code} if isinstance(error, LikenessError) else {}
                _note_end(folder, {"state": state, "error": told, "traceback": trace, **code, **facts})
                _finish_trackers(exit_code=1)
                if isinstance(error, LikenessError) and hydra.mode == RunMode.RUN:
                    _leave(told, error.exit_code)
                if hydra.mode == RunMode.RUN or state == "interrupted":
                    raise
                log.error("job %s failed\n%s", facts["job"], told if isinstance(error, LikenessError) else trace)
                return None
            finally:
                _finish_trackers()
            write_json(folder / "status.json", {"state": "done", "value": value, **facts})
            forget(folder)
            return value

    return job


def _facts(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """What ``status.json`` says of a job in every state; its place in the grid is the sweep's to say."""
    hydra = HydraConfig.get()
    number = hydra.job.num if hydra.mode == RunMode.MULTIRUN else 0
    return {
        "job": sweep.read_status(folder).get("job", number),
        "identity": sweep.identity(cfg),
        "overrides": sweep.options_of_a_job(sweep.typed(hydra.overrides.task)),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _folder_option(hydra: HydraConf) -> str:
    """What to add to the command so that it finds this folder again; nothing where the command names it."""
    name = "hydra.sweep.dir" if hydra.mode == RunMode.MULTIRUN else "hydra.run.dir"
    named = any(each.lstrip("+").startswith(f"{name}=") for each in sweep.typed(hydra.overrides.hydra))
    place = hydra.sweep.dir if hydra.mode == RunMode.MULTIRUN else hydra.runtime.output_dir
    return "" if named else f"{name}={place}"


def _finish_trackers(exit_code: int = 0) -> None:
    """Close what the job opened, if it came as far as opening any: trackers are slow to import."""
    if (dashboard := sys.modules.get("likeness.runs.dashboard")) is not None:
        dashboard.finish(exit_code)


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """The folder is this process's alone while the job runs; the kernel gives it free when the process dies.

    Gives whether a lock says so: some file systems have none.
    """
    lock = FileLock(folder / ".lock", timeout=_SECONDS_A_LOOK_TAKES)
    try:
        lock.acquire()
    except Timeout as error:
        refusal = LikenessError(
            "RUN-DIR",
            "another run is writing to this folder.",
            where=str(folder.absolute()),
            cause=_writer(folder),
            kept="The other run's files are untouched.",
            fix="Wait for it, or choose another folder with hydra.run.dir=.",
        )
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # Hydra goes on with the next job, and says nothing
            log.error("%s", refusal)
        raise refusal from error
    except (OSError, NotImplementedError) as error:
        log.warning("[LOCK] no working lock in %s (%s): make sure that no other run writes there", folder, error)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _writer(folder: Path) -> str:
    """Who says in ``status.json`` that it runs there."""
    status = sweep.read_status(folder)
    return f"It is process {status.get('pid')} of {status.get('host')}, started {status.get('started')}."


def _note_end(folder: Path, told: dict[str, Any]) -> None:
    """How a job that fails ended; where the disk has no room for that either, the job's own error is what is told."""
    try:
        write_json(folder / "status.json", told)
    except LikenessError as error:
        log.warning("status.json does not say how this job ended: %s", error.cause)


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
    _name_sweep(sys.argv)
    for each in preemption.SIGNALS:
        signal.signal(each, signal.default_int_handler)  # before a job listens there is nothing to keep
    try:
        main()
    except LikenessError as error:
        _leave(str(error), error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        refusal = refused(error)
        _leave(str(refusal), refusal.exit_code)
    except preemption.Preempted as error:
        sys.stderr.write(f"{error}\n")
        _end_now()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; features and checkpoints are kept, and the same command finds the features.\n")
        _end_now()
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (told := _told_of(error)) is not None:
            _leave(str(told), told.exit_code)
        traceback.print_exc()
        _leave("[BUG] this is a fault of likeness, not of your input; please report the lines above.", BUG)


@contextmanager
def importing() -> Iterator[None]:
    """For a process's large imports: the garbage collector waits, and leaves alone for good what they made.

    torch and all that comes with it are 770 000 objects that stay; looking through them once more whenever their
    number has grown takes a second in all. Only the first time in a process: later there is garbage beside them.
    """
    if "pytorch_lightning" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or triton's nanobind reports at the exit, as leaks, what it could not free
        gc.enable()


def _name_sweep(words: list[str]) -> None:
    """A multirun that has no name gets one that its options decide, so that the same command goes on with it."""
    named = any(word.startswith(("sweep.name=", "hydra.sweep.dir=")) for word in words)
    if not named and {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(words):
        words.append(f"sweep.name={sweep.sweep_name(words[1:])}")


def _of_composition(error: Exception) -> bool:
    """Whether Hydra refused an override with a bare ValueError, as it does ``noise=null``."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, ValueError) and frames[-1].f_globals.get("__name__") == "hydra._internal.defaults_list"


def _end_now() -> NoReturn:
    """Whoever interrupts waits neither for threads nor for what Python clears away after torch: a second and a half."""
    if multiprocessing.active_children():  # of joblib's launcher, which ends them on the usual way out
        sys.exit(INTERRUPTED)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _told_of(error: Exception) -> LikenessError | None:
    """What Hydra raises before a job begins, and a user can mend; None for every other error."""
    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
        return unwritten(Path(error.filename or "…").absolute(), error)
    return refused(error) if _of_composition(error) else _no_folder(error)


def _no_folder(error: Exception) -> LikenessError | None:
    """What Hydra says where it cannot make the run's folder, before a job begins; None for every other error."""
    modules = [frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not isinstance(error, OSError) or "hydra.core.utils" not in modules or modules.count(__name__) > 1:
        return None
    return LikenessError(
        "RUN-DIR",
        "the run's folder cannot be made.",
        where=str(Path(str(error.filename)).absolute()),
        cause=str(error.strerror),
        kept="Nothing was opened or computed yet.",
        fix="Choose another folder with hydra.run.dir= or paths.outputs=.",
    )


def _leave(message: str, code: int) -> None:
    if "debug=true" in sys.argv:
        traceback.print_exc()
    sys.stderr.write(f"ERROR {message}\n")
    sys.exit(code)
