"""Disks, locks and network file systems that fail or lie, for as long as a context lasts."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def failing(
    call: str, number: int, times: int | None = None, where: str = "", owner: Any = os
) -> Iterator[Callable[[], int]]:
    """``owner.call`` raises that errno, the first so many ``times`` or always, for paths with ``where`` in them.

    Gives how often it has.
    """
    real, failed = getattr(owner, call), 0

    def fail(*given: Any, **named: Any) -> Any:
        nonlocal failed
        if (times is not None and failed >= times) or (where and where not in str(given[0])):
            return real(*given, **named)
        failed += 1
        raise OSError(number, os.strerror(number), str(given[0]) if given else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, call, fail)
        yield lambda: failed


def break_locks(number: int | None) -> None:
    """For the rest of this process ``flock`` raises that errno; with None it holds nobody out and says that it did."""

    def flock(handle: int, operation: int) -> None:
        if number is not None:
            raise OSError(number, os.strerror(number))

    fcntl.flock = flock


class _Listing(list):
    """What ``os.scandir`` gives, less what is hidden."""

    def __enter__(self) -> "_Listing":
        return self

    def __exit__(self, *given: Any) -> None:
        pass


def hide_names(is_hidden: Callable[[str], bool]) -> None:
    """For the rest of this process folders list no file that ``is_hidden(path)``, as NFS does for a while."""
    scandir = os.scandir
    os.scandir = lambda *given: _Listing(entry for entry in scandir(*given) if not is_hidden(entry.path))
