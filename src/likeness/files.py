"""Files that are whole or absent: written beside their place, synced, then renamed."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from likeness.errors import LikenessError

OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # and not of a wrong path
_WITHOUT_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)  # file systems that have none
_TEMPORARY = ".tmp-"
_PAUSES = (0.1, 0.3, 1.0, 3.0, 10.0, 25.0, 50.0)  # seconds: a client of NFS may hold an old name for a minute
Read = TypeVar("Read")


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file, the new one, or none; never a part.

    Raises:
        LikenessError: DISK when the disk is full or fails, STORE-PERM when the folder cannot be written.
    """
    with writing(path, len(data)) as file:
        file.write(data)


@contextmanager
def writing(path: Path, size: int = 0) -> Iterator[BinaryIO]:
    """A file that takes its place at ``path`` when the context ends, for what is too large to be held as a whole.

    The temporary file lies in the target's folder (a rename across devices is a copy) and its name says
    who writes it, so that what a killed process leaves behind can be told from work in progress.

    Raises:
        LikenessError: As ``write_atomic``; then, and whatever else ends the context, an earlier file is as it was.
    """
    with _appearing(path, size, os.replace) as file:
        yield file


def write_once(path: Path, data: bytes) -> bool:
    """``write_atomic``, but only where there is no such file yet: of two writers one succeeds, with or without locks.

    Returns:
        Whether it was this one.

    Raises:
        LikenessError: DISK, STORE-PERM.
    """
    try:
        with _appearing(path, len(data), _linked) as file:
            file.write(data)
    except _Present:
        return False
    return True


class _Present(Exception):
    """There is such a file."""


def _linked(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        if temporary.stat().st_nlink == 1:  # else NFS has made the link, lost its answer and tried again
            raise _Present from error
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        if path.exists():
            raise _Present from error
        os.replace(temporary, path)


@contextmanager
def _appearing(path: Path, size: int, appear: Callable[[Path, Path], None]) -> Iterator[BinaryIO]:
    """A file beside ``path``, which then is synced and made to appear there."""
    temporary = path.with_name(f"{_TEMPORARY}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
    with explained(path, size):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            appear(temporary, path)
            _sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def explained(path: Path, size: int = 0) -> Iterator[None]:
    """What keeps ``path`` from being written becomes STORE-PERM (no right to) or DISK (full, failing, no folder)."""
    try:
        yield
    except OSError as error:
        raise unwritten(path, error, size) from error


def unwritten(path: Path, error: OSError, size: int = 0) -> LikenessError:
    """Why ``size`` bytes are not in ``path``: STORE-PERM or DISK, with what is free."""
    refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return LikenessError(
        "STORE-PERM" if refused else "DISK",
        f"{path.parent} cannot be written by uid {os.getuid()}." if refused else f"{size:,} bytes cannot be written.",
        where=str(path),
        cause=f"{error}; {_owner(path) if refused else _free(path)}",
        kept="Every file finished before this one; nothing half-written is left.",
        fix="Free some space or ask for write access, or choose another folder (paths.store=, hydra.run.dir=).",
    )


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(_nearest(path)).free:,} bytes are free"
    except OSError:
        return "the disk does not say what is free"


def _owner(path: Path) -> str:
    folder = _nearest(path)
    try:
        return f"{folder} is {folder.owner()}'s"
    except (OSError, KeyError):
        return f"{folder} is a user's whom this machine does not know"


def _nearest(path: Path) -> Path:
    """The folder that ``path`` is or would be in."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def patiently(read: Callable[[], Read]) -> Read:
    """What ``read`` gives; asked again for a minute and a half where NFS says that its handle is stale.

    Raises:
        OSError: Any other at once, and this one in the end.
    """
    for pause in _PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        time.sleep(pause)
    return read()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_temporary(folder: Path) -> int:
    """Remove what writers on this host left behind when they were killed; returns how many files that were."""
    ours = re.compile(re.escape(f"{_TEMPORARY}{socket.gethostname()}-") + r"(\d+)-")
    written = ((path, ours.match(path.name)) for path in folder.glob(f"{_TEMPORARY}*"))
    stale = [path for path, match in written if match and not alive(int(match[1]))]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def alive(pid: int) -> bool:
    """Whether a process of this host has that id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def canonical_json(content: Any) -> str:
    """The one spelling of ``content`` as JSON: sorted keys, no blanks, no NaN. What a digest is taken of.

    Raises:
        TypeError: For a value that JSON has no form for, naming its type.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(content: Any) -> str:
    """SHA-256, in hex, of the canonical JSON of ``content``.

    >>> digest({"b": 1, "a": [2, 3]}) == digest({"a": [2, 3], "b": 1})
    True
    """
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
