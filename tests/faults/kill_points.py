"""A process that dies at any one step of writing its files, so that every step can be tried in turn.

A step is the moment before or after a file is opened to be written, half of it is written, flushed, synced or closed, a
name is replaced, linked or removed, a folder is made or synced. ``os._exit`` runs no cleaning up, as SIGKILL runs none.
"""

import builtins
import itertools
import os
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

KILLED = 137
_WRITING = set("wax+")
_NAMES = ("open", "fsync", "replace", "rename", "link", "unlink", "mkdir")


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked process that does ``work``: 0 where it ends well."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_each_step(work: Callable[[int], object], under: Callable[[int], Path], stride: int = 1) -> Iterator[int]:
    """Do ``work(n)`` in a process that dies at its n-th step on files below ``under(n)``, for n = 1, 1 + stride, …

    Gives each n after the process died; ends after the first that lived.
    """
    for step in itertools.count(1, stride):
        code = in_child(partial(_die_at, step, under(step), work))
        if code == 0:
            return
        assert code == KILLED, f"step {step}: exit code {code}"
        yield step


def _die_at(step: int, under: Path, work: Callable[[int], object]) -> None:
    _Steps(step, under).install()
    work(step)


class _Steps:
    def __init__(self, last: int, under: Path) -> None:
        self.left, self.under, self.open = last, str(under), {}

    def reach(self) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(KILLED)

    def install(self) -> None:
        for name in _NAMES:
            setattr(os, name, self._watched(getattr(os, name)))
        opening = builtins.open
        builtins.open = lambda file, mode="r", *rest, **named: self._opened(opening, file, mode, *rest, **named)

    def _is_ours(self, given: Any) -> bool:
        if isinstance(given, int):
            return os.readlink(f"/proc/self/fd/{given}").startswith(self.under)
        return os.fspath(given).startswith(self.under)

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(place: Any, *rest: Any, **named: Any) -> Any:
            if not self._is_ours(place):
                return real(place, *rest, **named)
            self.reach()
            result = real(place, *rest, **named)
            self.reach()
            return result

        return call

    def _opened(self, opening: Callable[..., Any], file: Any, mode: str, *rest: Any, **named: Any) -> Any:
        if not _WRITING & set(mode) or not self._is_ours(file):
            return opening(file, mode, *rest, **named)
        self.reach()
        opened = opening(file, mode, *rest, **named)
        self.reach()
        return _WatchedFile(opened, self)


class _WatchedFile:
    """A file that is written in halves, each of which reaches the disk."""

    def __init__(self, file: Any, steps: _Steps) -> None:
        self._file, self._steps = file, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_WatchedFile":
        return self

    def __exit__(self, *given: Any) -> None:
        self._steps.reach()
        self._file.close()
        self._steps.reach()

    def write(self, data: Any) -> int:
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            self._file.write(part)
            self._file.flush()
            self._steps.reach()
        return len(data)
