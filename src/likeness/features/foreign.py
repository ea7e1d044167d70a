"""What the weight files of other frameworks have in common: named layers of arrays, read when they are wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from likeness.errors import LikenessError

_STARTS = {
    b"\x89HDF": "an HDF5 file (Keras)",
    b"PK\x03\x04": "a zip archive (a .keras or .pth file, or packed weights)",
    b"\x1f\x8b": "a gzip archive",
    b"\x80\x02": "a Python pickle",
    b"version https://git-lfs": "a Git LFS pointer: the file itself was not fetched",
}


@dataclass(frozen=True)
class Array:
    """One array of a file.

    Args:
        shape: As the file states it, in PyTorch's order of axes (out, in, height, width).
        read: The numbers in that shape, float32 or float64; nothing is read before the call.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Layer:
    """A layer that has weights. ``epsilon`` is a batch norm's, where the file states it."""

    name: str
    arrays: tuple[Array, ...]
    epsilon: float | None = None


def format_error(path: Path, cause: str) -> LikenessError:
    return LikenessError(
        "WEIGHTS-FORMAT",
        f"{path.name} could not be read as weights of Keras or Caffe.",
        where=str(path.absolute()),
        cause=f"{cause}  [{looks_like(path)}]",
        kept="Nothing was written.",
        fix="Give a Keras .h5 or a Caffe .caffemodel; archives are not unpacked, so give the file inside.",
    )


def looks_like(path: Path) -> str:
    """Size and first bytes of a file, in words where they are known."""
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return "empty file"
    size = f"{path.stat().st_size:,} bytes"
    if start.lstrip()[:1] == b"<":
        return f"{size}, starts with HTML or XML: a failed download?"
    known = next((words for first, words in _STARTS.items() if start.startswith(first)), None)
    return f"{size}, {known}" if known else f"{size}, starts with {start[:8]!r}"
