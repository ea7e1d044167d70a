"""A disk of a few MB that only one process sees: a tmpfs in a mount namespace of its own."""

import ctypes
import os
import pickle
import shutil
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

_NEW_MOUNTS, _NEW_USER, _PRIVATE = 0x00020000, 0x10000000, (1 << 14) | (1 << 18)  # sched.h and mount.h of Linux
_REFUSED = 77


def on_small_disk(folder: Path, size: int, work: Callable[[], Any]) -> Any:
    """What ``work`` gives in a forked process in which ``folder`` is a disk of ``size`` bytes.

    Skips the test where the kernel lets nobody mount one. An exception of ``work``, and a signal, fail it.
    """
    folder.mkdir(exist_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _work_there(folder, size, work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == _REFUSED:
        pytest.skip("this kernel mounts no tmpfs in a namespace of one's own")
    assert code == 0, f"ended with {code}"  # a negative one is a signal, as SIGBUS
    return pickle.loads(told)


def _work_there(folder: Path, size: int, work: Callable[[], Any], writer: int) -> None:
    if not _mounted(folder, size):
        os._exit(_REFUSED)
    try:
        os.write(writer, pickle.dumps(work()))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _mounted(folder: Path, size: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    alone = libc.unshare(_NEW_MOUNTS) == 0 or libc.unshare(_NEW_MOUNTS | _NEW_USER) == 0
    private = alone and libc.mount(b"none", b"/", None, _PRIVATE, None) == 0
    return private and libc.mount(b"none", bytes(folder), b"tmpfs", 0, f"size={size}".encode()) == 0


def fill_up(folder: Path, left: int = 0) -> None:
    """Let another file take all but so many bytes of the disk that ``folder`` lies on."""
    ballast = shutil.disk_usage(folder).free - left
    with suppress(OSError), open(folder / "ballast", "ab", buffering=0) as file:  # others may write meanwhile
        file.write(bytes(max(ballast, 0)))
