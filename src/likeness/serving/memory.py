"""What the server holds for its readers: bounded, in memory, never on disk."""

import hashlib
import secrets
import threading
from collections import OrderedDict
from typing import NamedTuple

_MOST_THUMBNAILS = 4096  # of some 15 kB each
_MOST_WAITING = 256_000_000  # bytes of photos that nobody asked with yet


class Upload(NamedTuple):
    """A file as a reader sent it.

    Args:
        data: None where it did not arrive.
        size: Bytes, as the reader's browser says.
    """

    name: str
    data: bytes | None
    size: int


class Thumbnails:
    """The last that were shown, by their content; the page loads them as they come into sight."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def address(self, jpeg: bytes) -> str:
        name = hashlib.sha256(jpeg).hexdigest()[:32]
        with self._lock:
            self._kept[name] = jpeg
            self._kept.move_to_end(name)
            while len(self._kept) > _MOST_THUMBNAILS:
                self._kept.popitem(last=False)
        return f"thumbnails/{name}"

    def get(self, name: str) -> bytes | None:
        return self._kept.get(name)


class Uploads:
    """Photos between their arrival and the question that takes them; of too many the oldest are dropped."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, data: bytes) -> str:
        """A name for ``data`` that nobody can guess."""
        name = secrets.token_urlsafe()
        with self._lock:
            self._waiting[name] = data
            while sum(map(len, self._waiting.values())) > _MOST_WAITING:
                self._waiting.popitem(last=False)
        return name

    def take(self, name: str) -> bytes | None:
        with self._lock:
            return self._waiting.pop(name, None)
