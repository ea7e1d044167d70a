"""One state of an index, which never changes: the rows that are in it, read from the segments that hold them.

A segment is a sealed file (``likeness.sealed``). A generation is a list of segments, and of the rows of each that are
gone. Rows are in ascending order of their ids, whatever segment they lie in.

Axes: n rows, d width of a code, m rows of one segment.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8
from torch import Tensor

from likeness.errors import LikenessError
from likeness.sealed import Damaged, seal, unseal

SCHEMA = 1
_ROWS = {"ids": "I64", "keys": "U8", "codes": "F32", "labels": "I64", "homes": "I64", "added": "I64"}
_TEXTS = ("paths", "pictures", "label_names", "home_names")  # the first two have one a row


class Entries(NamedTuple):
    """Pictures to be added, one a row.

    Attributes:
        keys: SHA-256 of each file's bytes: the same picture is in an index once.
        labels, homes: "" where unknown.
        pictures: A small JPEG of each, b"" for none.
        ids: Chosen by the index when left out: ascending, and never those of a picture that was removed.
    """

    codes: Float32[np.ndarray, "n d"]
    keys: UInt8[np.ndarray, "n 32"]
    paths: Sequence[str]
    labels: Sequence[str]
    homes: Sequence[str]
    pictures: Sequence[bytes]
    ids: Int64[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class Texts:
    """Many byte strings as one, and where each ends."""

    content: UInt8[np.ndarray, " bytes"]
    ends: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> bytes:
        return self.content[self.ends[row - 1] if row else 0 : self.ends[row]].tobytes()

    @staticmethod
    def of(values: Sequence[bytes]) -> "Texts":
        return Texts(
            np.frombuffer(b"".join(values), np.uint8),
            np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), dtype=np.int64),
        )


def text(value: bytes) -> str:
    """As it was written; bytes that are no UTF-8 are kept by surrogates."""
    return value.decode("utf-8", "surrogateescape")


def _bytes(values: Sequence[str]) -> list[bytes]:
    return [value.encode("utf-8", "surrogateescape") for value in values]


class Segment:
    """Rows as they were added, in one file that stays mapped when it is removed.

    Raises:
        Damaged: When the file is not what was written, or not of this model.
        OSError: FileNotFoundError among them.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.sealed = unseal(path)
        self._texts: dict[str, Texts] = {}
        if self.sealed.facts.get("model") != model or self.sealed.facts.get("schema") != str(SCHEMA):
            raise Damaged(f"{path.name} holds no rows of this index")
        self.length = self.sealed.rows(_ROWS)
        ends = [self.sealed.rows({f"{name}_ends": "I64"}) for name in _TEXTS]
        sums = self.sealed.rows({"picture_sums": "U32"})
        if {*ends[:2], sums} != {self.length} or self.sealed.header["codes"]["shape"][1:] == []:
            raise Damaged(f"{path.name} has columns of several lengths")
        for name in self.sealed.header.keys() - {"__metadata__"}:
            self.sealed.unverified(name)

    @property
    def name(self) -> str:
        return self.sealed.path.name

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return max(entry["data_offsets"][1] for name, entry in self.sealed.header.items() if name != "__metadata__")

    def column(self, name: str) -> Shaped[np.ndarray, "m ..."]:
        return self.sealed.tensor(name)

    def texts(self, name: str) -> Texts:
        self.sealed.tensor(name)
        return self._laid_out(name)

    def names(self, of: str) -> list[str]:
        """The names that the numbers in ``labels`` or ``homes`` stand for."""
        found = self.texts(f"{of}_names")
        return [text(found[place]) for place in range(len(found))]

    def picture(self, row: int) -> bytes:
        """Of one row; only its own bytes are read, and checked by their CRC-32."""
        found = self._laid_out("pictures")[row]
        if zlib.crc32(found) != self.sealed.tensor("picture_sums")[row]:
            raise Damaged(f"{self.name}: the picture of row {row} fails its checksum")
        return found

    def _laid_out(self, name: str) -> Texts:
        """Texts that end where their content does; their content is not verified here."""
        if name not in self._texts:
            found = Texts(self.sealed.unverified(name), self.sealed.tensor(f"{name}_ends"))
            steps = np.diff(found.ends, prepend=0)
            if (steps < 0).any() or (found.ends[-1] if len(found) else 0) != len(found.content):
                raise Damaged(f"{self.name}: {name} do not fit their lengths")
            self._texts[name] = found
        return self._texts[name]


class Part(NamedTuple):
    """A segment and which of its rows are gone."""

    segment: Segment
    gone: Bool[np.ndarray, " m"]

    @property
    def left(self) -> int:
        return int((~self.gone).sum())


@dataclass(frozen=True)
class Generation:
    """The rows of an index at one time. What is read of it is verified then.

    Attributes:
        number: From 1; each change makes the next.
        next_id: The first that was never given to a picture.
        threshold: Of rejection, as plain values; None where none was calibrated.
    """

    folder: Path
    number: int
    next_id: int
    parts: Sequence[Part]
    width: int
    threshold: dict[str, Any] | None = None
    _texts: dict[str, list[Texts]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._order)

    @cached_property
    def ids(self) -> Int64[np.ndarray, " n"]:
        return self._column("ids", ())

    @cached_property
    def keys(self) -> UInt8[np.ndarray, "n 32"]:
        return self._column("keys", (32,))

    @cached_property
    def codes(self) -> Float32[Tensor, "n d"]:
        return torch.from_numpy(self._column("codes", (self.width,)))

    @cached_property
    def added(self) -> Int64[np.ndarray, " n"]:
        """When each row was added, in seconds since 1970."""
        return self._column("added", ())

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Positions in ``classes``, -1 where unknown."""
        return self._named("label")[1]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return self._named("label")[0]

    @cached_property
    def homes(self) -> Int64[np.ndarray, " n"]:
        """Positions in ``home_names``, -1 where unknown."""
        return self._named("home")[1]

    @cached_property
    def home_names(self) -> tuple[str, ...]:
        return self._named("home")[0]

    def label(self, row: int) -> str:
        return self.classes[self.labels[row]] if self.labels[row] >= 0 else ""

    def home(self, row: int) -> str:
        return self.home_names[self.homes[row]] if self.homes[row] >= 0 else ""

    def path(self, row: int) -> str:
        part, at = self._place(row)
        with reading(self.folder):
            if "paths" not in self._texts:
                self._texts["paths"] = [each.segment.texts("paths") for each in self.parts]
            return text(self._texts["paths"][part][at])

    def picture(self, row: int) -> bytes:
        """A small JPEG, b"" where none was kept."""
        part, at = self._place(row)
        with reading(self.folder):
            return self.parts[part].segment.picture(at)

    def rows_of(self, ids: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        """The row of each id, -1 where it is not here."""
        if not len(self):
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def without(self, rows: Int64[np.ndarray, " m"]) -> list[Part]:
        """Its parts with these rows gone as well."""
        parts = [Part(part.segment, part.gone.copy()) for part in self.parts]
        for number, at in map(self._place, rows.tolist()):
            parts[number].gone[at] = True
        return parts

    def entries(self, rows: Int64[np.ndarray, " m"]) -> Entries:
        """Rows as they were added."""
        return Entries(
            self.codes.numpy()[rows],
            self.keys[rows],
            [self.path(row) for row in rows.tolist()],
            [self.label(row) for row in rows.tolist()],
            [self.home(row) for row in rows.tolist()],
            [self.picture(row) for row in rows.tolist()],
            self.ids[rows],
        )

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " starts"]:
        return np.cumsum([0, *(part.segment.length for part in self.parts)])

    @cached_property
    def _order(self) -> Int64[np.ndarray, " n"]:
        """Of all rows of all segments, one behind the other, those that are not gone, by their ids."""
        with reading(self.folder):
            ids = np.concatenate([np.empty(0, np.int64), *(part.segment.column("ids") for part in self.parts)])
        left = np.flatnonzero(~np.concatenate([np.empty(0, bool), *(part.gone for part in self.parts)]))
        return left[np.argsort(ids[left], kind="stable")]

    def _place(self, row: int) -> tuple[int, int]:
        at = self._order[row]
        part = int(np.searchsorted(self._starts, at, side="right")) - 1
        return part, int(at - self._starts[part])

    def _column(self, name: str, shape: tuple[int, ...]) -> Shaped[np.ndarray, "n ..."]:
        kind = {"keys": np.uint8, "codes": np.float32}.get(name, np.int64)
        with reading(self.folder):
            whole = [np.asarray(part.segment.column(name)) for part in self.parts]
            if any(column.shape[1:] != shape for column in whole):
                raise Damaged(f"{name} of another width than {shape}")
        if len(whole) == 1 and len(self._order) == len(whole[0]) and (np.diff(self._order) == 1).all():
            return np.array(whole[0], kind)
        gathered = np.empty((len(self), *shape), kind)
        part = np.searchsorted(self._starts, self._order, side="right") - 1
        for number, column in enumerate(whole):
            here = np.flatnonzero(part == number)
            gathered[here] = column[self._order[here] - self._starts[number]]
        return gathered

    def _named(self, of: str) -> tuple[tuple[str, ...], Int64[np.ndarray, " n"]]:
        """All names, sorted, and the place of each row's among them."""
        with reading(self.folder):
            own = [part.segment.names(of) for part in self.parts]
        names = sorted({name for some in own for name in some})
        place = {name: number for number, name in enumerate(names)}
        maps = [np.array([*(place[name] for name in some), -1]) for some in own]  # the last is that of no name
        with reading(self.folder):
            columns = [part.segment.column(f"{of}s") for part in self.parts]
            if any(((c < -1) | (c >= len(some))).any() for c, some in zip(columns, own, strict=True)):
                raise Damaged(f"{of}s without a name")
        mapped = [each[column] for each, column in zip(maps, columns, strict=True)]
        numbers = np.concatenate([np.empty(0, np.int64), *mapped])[self._order]
        used = np.unique(numbers[numbers >= 0])
        renumbered = np.full(len(names) + 1, -1)
        renumbered[used] = np.arange(len(used))
        return tuple(names[place] for place in used.tolist()), renumbered[numbers]


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """What is damaged becomes INDEX-DAMAGED."""
    try:
        yield
    except Damaged as error:
        raise damaged(folder, str(error)) from error


def damaged(folder: Path, cause: str) -> LikenessError:
    return LikenessError(
        "INDEX-DAMAGED",
        "a file of the index is not what was written.",
        where=str(folder),
        cause=cause,
        fix=f"See what is lost with likeness index verify {folder}, and go on without it with --mend.",
    )


def write_segment(folder: Path, entries: Entries, ids: Int64[np.ndarray, " n"], added: Any, model: str) -> Segment:
    """Entries as a new segment, which no generation has yet."""
    columns: dict[str, np.ndarray] = {"ids": ids, "keys": entries.keys, "codes": entries.codes}
    columns["added"] = np.broadcast_to(np.asarray(added, np.int64), ids.shape)
    texts = {"paths": _bytes(entries.paths), "pictures": list(entries.pictures)}
    for of, values in (("label", entries.labels), ("home", entries.homes)):
        names = sorted(set(values) - {""})
        place = {name: number for number, name in enumerate(names)} | {"": -1}
        columns[f"{of}s"] = np.array([place[value] for value in values], np.int64)
        texts[f"{of}_names"] = _bytes(names)
    for name, content in texts.items():
        packed = Texts.of(content)
        columns |= {name: packed.content, f"{name}_ends": packed.ends}
    columns["picture_sums"] = np.fromiter(map(zlib.crc32, entries.pictures), np.uint32, len(ids))
    return Segment(seal(folder, "rows", columns, {"schema": str(SCHEMA), "model": model}), model)


def all_columns(segment: Segment) -> Iterator[Shaped[np.ndarray, "..."]]:
    """Every tensor of a segment, verified."""
    for name in segment.sealed.header.keys() - {"__metadata__"}:
        yield segment.column(name)
