"""Files that cannot be changed unseen: written whole or not at all, and verified when read.

Tensors are safetensors. The header holds the SHA-256 of each tensor's bytes and the file's name is made of the SHA-256
of the header, so that every byte is covered: the header can be trusted before the tensors are read, and each tensor is
verified when it is first asked for.
"""

import hashlib
import json
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors.numpy import save

from likeness.files import digest, write_atomic

_NAME = re.compile(r"[a-z]+-([0-9a-f]{64})\.safetensors")
_LARGEST_HEADER = 1 << 20
_TYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
}


class Damaged(Exception):
    """A file that is not what was written; its text says what is wrong."""


@dataclass(frozen=True)
class Sealed:
    """A file whose header is verified; its tensors are memory-mapped and verified when first asked for."""

    path: Path
    offset: int
    header: Mapping[str, Any]
    _maps: dict[str, np.ndarray] = field(default_factory=dict)
    _verified: set[str] = field(default_factory=set)

    @property
    def facts(self) -> Mapping[str, str]:
        """What was written beside the tensors."""
        return self.header["__metadata__"]

    def rows(self, kinds: Mapping[str, str]) -> int:
        """How many rows each of these tensors has.

        Args:
            kinds: The type of each, by name, as safetensors calls it.

        Raises:
            Damaged: When the header tells of other tensors, or does not say where each lies.
        """
        try:
            counts = {_rows(self.header[name], kind) for name, kind in kinds.items()}
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise Damaged(f"{self.path.name}: the header cannot be read") from error
        rows = counts.pop()
        if counts or rows is None:
            raise Damaged(f"{self.path.name} holds other tensors than {', '.join(kinds)}")
        return rows

    def tensor(self, name: str) -> Shaped[np.ndarray, "n ..."]:
        """The named tensor, as a read-only memory map.

        Raises:
            Damaged: Also when the file is gone.
        """
        rows = self.unverified(name)
        if name not in self._verified:
            if hashlib.sha256(rows.data).hexdigest() != self.facts.get(name):
                raise Damaged(f"{self.path.name}: {name} fails its checksum")
            self._verified.add(name)
        return rows

    def unverified(self, name: str) -> Shaped[np.ndarray, "n ..."]:
        """The named tensor without its bytes having been read; once mapped it stays, also when the file is removed."""
        if name not in self._maps:
            self._maps[name] = self._mapped(name)
        return self._maps[name]

    def _mapped(self, name: str) -> Shaped[np.ndarray, "n ..."]:
        entry = self.header[name]
        start, end = entry["data_offsets"]
        kind, shape = _TYPES[entry["dtype"]], tuple(entry["shape"])
        try:
            if self.path.stat().st_size < self.offset + end:
                raise Damaged(f"{self.path.name} is cut short")
            if start == end:
                return np.empty(shape, kind)
            return np.memmap(self.path, kind, "r", self.offset + start, shape)
        except FileNotFoundError as error:  # another process has set it aside
            raise Damaged(f"{self.path.name} is gone") from error


def signed(content: Mapping[str, Any]) -> bytes:
    """JSON that says its own SHA-256, for ``read_signed``.

    >>> signed({"rows": 3}).decode().splitlines()[2]
    ' "rows": 3'
    """
    whole = {"sha256": digest(content), **content}
    return (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode()


def read_signed(path: Path) -> dict[str, Any]:
    """The content of a file that ``signed`` spelled; every byte of it is as it was written.

    Raises:
        Damaged: Or no such file at all.
        OSError: FileNotFoundError among them.
    """
    data = path.read_bytes()
    try:
        content = json.loads(data)
        content.pop("sha256")
        whole = signed(content) == data
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"{path.name} cannot be read") from error
    if not whole:
        raise Damaged(f"{path.name} fails its checksum")
    return content


def seal(folder: Path, kind: str, tensors: Mapping[str, Shaped[np.ndarray, "..."]], facts: Mapping[str, str]) -> Path:
    """Write ``folder/KIND-DIGEST.safetensors``: it is there whole, or not at all.

    Raises:
        LikenessError: DISK, STORE-PERM.
    """
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    sums = {name: hashlib.sha256(value.data).hexdigest() for name, value in tensors.items()}
    data = save(tensors, {**facts, **sums})
    path = folder / f"{kind}-{hashlib.sha256(data[: _header_end(data)]).hexdigest()}.safetensors"
    write_atomic(path, data)
    return path


def unseal(path: Path) -> Sealed:
    """Read and verify a file's header.

    Raises:
        Damaged: When the header is not the one that the file's name was made of.
        OSError: FileNotFoundError among them.
    """
    named = _NAME.fullmatch(path.name)
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise Damaged(f"{path.name} is no file")
    with open(path, "rb") as file:
        start = file.read(8)
        end = _header_end(start)
        if named is None or end > _LARGEST_HEADER:
            raise Damaged(f"{path.name} is none of ours")
        head = start + file.read(end - 8)
    if hashlib.sha256(head).hexdigest() != named[1]:
        raise Damaged(f"{path.name}: the header fails its checksum")
    try:
        header = json.loads(head[8:])
        described = isinstance(header["__metadata__"], dict)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged(f"{path.name}: the header cannot be read") from error
    if not described:
        raise Damaged(f"{path.name}: the header cannot be read")
    return Sealed(path, end, header)


def _header_end(data: bytes) -> int:
    if len(data) < 8:
        raise Damaged("no header")
    return 8 + struct.unpack("<Q", data[:8])[0]


def _rows(entry: Mapping[str, Any], kind: str) -> int | None:
    """The length of a tensor of this type that lies where its size says; None for another."""
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (start, end, *shape)) or entry["dtype"] != kind:
        return None
    return shape[0] if end - start == prod(shape) * _TYPES[kind].itemsize else None
