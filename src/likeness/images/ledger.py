"""Which bytes a file held when it was last read, so that a file that did not change since is not read again."""

import hashlib
import logging
import os
import time
from functools import partial
from pathlib import Path

from likeness.errors import LikenessError
from likeness.files import patiently, sweep_temporary, write_atomic

log = logging.getLogger(__name__)

_FOLDER = "digests"
_STAMP, _ROW = 16, 48  # bytes: of a path with its size and time of change, and with the SHA-256 of its bytes
_SUM = 32
_YOUNG_NS = 2_000_000_000  # the coarsest clock of a file system in use


class Ledger:
    """SHA-256 of files by path, size and time of change to the nanosecond.

    A hint that nothing depends on: a ledger that is lost, damaged or overwritten by another job costs reading files
    again. A file that changed less than 2 s before it was read is not noted: it could change again unseen.

    Args:
        store: The ledger lies in it, one a root.
        root: Of the pictures.
        rehash: Begin anew: every file is read.
    """

    def __init__(self, store: Path, root: Path, rehash: bool = False) -> None:
        self.path = store / _FOLDER / hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        self._known = {} if rehash else _read(self.path)
        self.fresh: dict[bytes, bytes] = {}

    def digest(self, path: Path) -> bytes:
        """As noted, or of the file, which then is noted.

        Raises:
            OSError: For a file that cannot be read.
        """
        if found := self._known.get(_stamp(path, os.stat(path))):
            return found
        return patiently(partial(self._read, path))

    def _read(self, path: Path) -> bytes:
        now = time.time_ns()
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").digest()
            stamp = _stamp(path, os.fstat(file.fileno()))
        if stamp == _stamp(path, before) and now - before.st_mtime_ns >= _YOUNG_NS:
            self.fresh[stamp] = digest
        return digest

    def keep(self) -> None:
        """Write what was noted; a folder that cannot be written is none of the caller's troubles."""
        sweep_temporary(self.path.parent)
        if not self.fresh:
            return
        self._known |= self.fresh
        self.fresh = {}
        rows = b"".join(stamp + digest for stamp, digest in self._known.items())
        try:
            write_atomic(self.path, hashlib.sha256(rows).digest() + rows)
        except LikenessError as error:
            log.info("the digests of the files are not kept: %s", error.cause)


def _stamp(path: Path, found: os.stat_result) -> bytes:
    name = b"%d %d %b" % (found.st_size, found.st_mtime_ns, os.fsencode(path))
    return hashlib.blake2b(name, digest_size=_STAMP).digest()


def _read(path: Path) -> dict[bytes, bytes]:
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    rows = data[_SUM:]
    if hashlib.sha256(rows).digest() != data[:_SUM] or len(rows) % _ROW:
        log.info("%s is damaged: the files are read again", path)
        return {}
    starts = range(0, len(rows), _ROW)
    return {rows[start : start + _STAMP]: rows[start + _STAMP : start + _ROW] for start in starts}
