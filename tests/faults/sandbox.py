"""A task in a forked child that is watched: what it runs, writes and connects to, what memory and time it takes."""

import json
import logging
import os
import resource
import runpy
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from helpers import ROOT

from likeness import app
from likeness.errors import LikenessError

_CALLS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.", "pty.", "exec", "compile"),
    *("socket.", "urllib.", "ftplib.", "smtplib.", "http.", "webbrowser."),
    *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate"),
    *("shutil.", "tempfile.", "ctypes.dlopen", "import", "pickle.find_class"),
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


@dataclass(frozen=True)
class Seen:
    """What became of a task.

    Args:
        code: Of its LikenessError, ``loaded`` where it returned, or what else ended it.
        told: The error's whole message, or what it returned.
        calls: Events that a reader of data has no use for.
        peak: Bytes of memory above those at the start.
        seconds: Of the processor: what else runs on the machine does not count.
    """

    code: str
    told: Any
    calls: list[str]
    peak: int
    seconds: float


def watched(task: Callable[[], Any], may_write: Path | None = None, gigabytes: float = 2, limit_s: float = 30) -> Seen:
    """Run ``task`` in a copy of this process, with everything imported that is imported here."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if not (child := os.fork()):
        os.close(reader)
        try:
            _child(task, writer, may_write, gigabytes)
        finally:
            os._exit(0)
    os.close(writer)
    told, started = b"", time.monotonic()
    while time.monotonic() - started < limit_s:
        if select.select([reader], [], [], 0.5)[0]:
            if not (part := os.read(reader, 1 << 16)):
                break
            told += part
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if not told:
        return Seen(f"no answer (status {status})", "", [], 0, time.monotonic() - started)
    return Seen(**json.loads(told))


class Ended(NamedTuple):
    """How a command ended: exit code, and what it wrote."""

    code: int
    out: str
    err: str


def command(script: str, *words: object, folder: Path) -> Ended:
    """A command as a user types it in ``folder``, in a copy of this process: nothing is imported again.

    Args:
        script: ``train.py``, ``evaluate.py`` or ``likeness``.
    """
    out, err = folder / ".out", folder / ".err"
    sys.stdout.flush()
    sys.stderr.flush()
    if not (child := os.fork()):
        code: Any = 70
        try:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            code = _exit_code_of(script, [str(word) for word in words], folder)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())


def _exit_code_of(script: str, words: list[str], folder: Path) -> Any:
    torch.set_num_threads(1)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    warnings.simplefilter("default")
    logging.root.handlers.clear()
    os.chdir(folder)
    sys.argv = [script, *words]
    try:
        app.main(words) if script == "likeness" else runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as left:
        return left.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _child(task: Callable[[], Any], writer: int, may_write: Path | None, gigabytes: float) -> None:
    torch.set_num_threads(1)  # a forked pool of threads would wait for ever
    calls: list[str] = []
    watching = [True]

    def note(event: str, given: tuple) -> None:
        if watching[0] and not _is_fine(event, given, may_write):
            calls.append(f"{event} {str(given)[:200]}")

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _kilobytes("VmRSS")
    most = _kilobytes("VmSize") * 1024 + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.addaudithook(note)
    started = time.process_time()
    try:
        code, told = "loaded", str(task())
    except LikenessError as error:
        code, told = error.code, str(error)
    except BaseException as error:
        code, told = type(error).__name__, str(error)
    seconds = time.process_time() - started
    watching[0] = False
    peak = (_kilobytes("VmHWM") - before) * 1024
    answer = {"code": code, "told": told[:4000], "calls": calls, "peak": peak, "seconds": seconds}
    os.write(writer, json.dumps(answer).encode())


def _is_fine(event: str, given: tuple, may_write: Path | None) -> bool:
    if may_write and given and str(given[0]).startswith(str(may_write)):
        return True
    if event == "open":
        path, mode, flags = given
        return isinstance(path, int) or not ((flags or 0) & _WRITES or set("wax+") & set(str(mode or "")))
    return not event.startswith(_CALLS) or event == "socket.gethostname" or "<@beartype(" in str(given)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
