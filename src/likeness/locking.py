"""Locks that only save work: one process at a time where there are any, and a line for those that wait."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from likeness.files import explained

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def held(folder: Path, name: str, wanted: str, at_worst: str) -> Iterator[None]:
    """Hold ``folder/.lockNAME``: while another process holds it, wait and say every 10 s who does.

    Args:
        wanted: What is waited for.
        at_worst: What happens when somebody removes the lock of a process that still works.

    Raises:
        OSError, NotImplementedError: Where the file system has no locks.
        LikenessError: STORE-PERM, DISK.
    """
    place, holder = folder / f".lock{name}", folder / f".holder{name}"
    lock = FileLock(place, timeout=_SECONDS_BETWEEN_LINES, fallback_to_soft=False)
    started = time.monotonic()
    while not lock.is_locked:
        try:
            lock.acquire()
        except Timeout:
            waited = time.monotonic() - started
            way_out = f"should it be stopped or its machine gone, end it or remove {place}: at worst {at_worst}"
            log.info("waiting for %s (%s comes first, %.0f s; %s)", wanted, _who(holder), waited, way_out)
    try:
        with explained(holder):
            holder.write_text(f"{socket.gethostname()} pid {os.getpid()}")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _who(holder: Path) -> str:
    try:
        return holder.read_text(errors="replace")
    except OSError:  # it has let go, or has only just begun
        return "another process"
