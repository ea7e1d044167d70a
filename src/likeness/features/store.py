"""Feature rows on disk, kept by content: one folder an extractor, in it immutable shards of rows.

A shard is a sealed file (``likeness.sealed``) with ``features [n, ...]`` float32, ``keys [n, 32]`` (the SHA-256 of each
picture's bytes) and ``white [n]`` (share of white pixels), so that rows are verified when a process first reads them.
There is no index to corrupt: readers list the folder. Nothing depends on the locks; they only keep two jobs from
computing the same rows.
"""

import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor

from likeness.errors import LikenessError
from likeness.files import canonical_json, digest, explained, patiently, sweep_temporary, write_json
from likeness.locking import held
from likeness.sealed import Damaged, Sealed, seal, unseal

log = logging.getLogger(__name__)

SCHEMA = 1
_LOCK_OF_A_SHARE = re.compile(r"\.lock-(\d+)-of-(\d+)")
_TENSORS = {"features": "F32", "keys": "U8", "white": "F32"}
_IDENTITY = "extractor.json"
_MOST_SHOWN = 12  # characters of a digest


@dataclass(frozen=True)
class Places:
    """Where rows lie: ``shard [n]`` (-1 = not in the store) and ``row [n]`` within it."""

    shard: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]

    @property
    def missing(self) -> np.ndarray:
        return self.shard < 0


class MappedRows:
    """Rows that stay on disk: indexing by a tensor of positions reads just those, as a tensor would."""

    def __init__(self, maps: list[np.ndarray], places: Places) -> None:
        self._maps, self._places = maps, places
        self.shape = torch.Size((len(places.row), *maps[0].shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def chosen(self, at: Int[np.ndarray, " m"]) -> "MappedRows":
        """The rows at these positions, still on disk."""
        return MappedRows(self._maps, Places(self._places.shard[at], self._places.row[at]))

    def __getitem__(self, positions: Int[Tensor, "*any b"] | slice) -> Float[Tensor, "..."]:
        at = np.arange(len(self))[positions] if isinstance(positions, slice) else positions.cpu().numpy()
        rows = _gather(self._maps, self._places.shard[at.ravel()], self._places.row[at.ravel()])
        return rows.reshape(*at.shape, *self.shape[1:])


Rows = Float32[Tensor, "n ..."] | MappedRows


def _gather(maps: list[np.ndarray], shards: np.ndarray, rows: np.ndarray) -> Float[Tensor, "n ..."]:
    gathered = np.empty((len(rows), *maps[0].shape[1:]), np.float32)
    for shard in np.unique(shards):
        here = np.flatnonzero(shards == shard)
        gathered[here] = maps[shard][rows[here]]
    return torch.from_numpy(gathered)


@dataclass(frozen=True)
class Share:
    """Part ``number`` of ``of`` equal parts of all pictures, cut by their bytes: the same on every machine.

    A part of a part is one of the whole, so that disjoint shares stay disjoint however each is cut further.
    """

    number: int = 0
    of: int = 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"

    def part(self, number: int, of: int) -> "Share":
        return Share(self.number * of + number, self.of * of)

    def holds(self, digests: UInt8[np.ndarray, "n 32"]) -> Bool[np.ndarray, " n"]:
        """Which of these pictures are in the share."""
        place = np.ascontiguousarray(digests[:, :4]).view(">u4")[:, 0].astype(np.uint64)  # of 2 ** 32
        return (place * np.uint64(self.of)) >> np.uint64(32) == self.number

    def overlaps(self, other: "Share") -> bool:
        """Whether a picture can be in both."""
        starts, ends = self.number * other.of, (self.number + 1) * other.of
        return starts < (other.number + 1) * self.of and other.number * self.of < ends


WHOLE = Share()


def shelf_folder(store: Path, fingerprint: str) -> Path:
    """Where the rows of an extractor lie in a store."""
    return store / fingerprint[:16]


class Shelf:
    """The rows of one extractor.

    Args:
        store: The store's folder; shelves of many extractors lie in it side by side.
        identity: All that decides a row, as plain values; the shelf's folder is named by its digest.

    Raises:
        LikenessError: STORE-VERSION when the shelf was written by a newer version.
    """

    def __init__(self, store: Path, identity: Mapping[str, Any]) -> None:
        self.identity = identity
        self.fingerprint = digest(identity)
        self.folder = shelf_folder(store, self.fingerprint)
        self.shards: list[Sealed] = []
        self._seen: set[str] = set()
        self._refused: set[str] = set()
        self._keys = np.empty((0, 32), np.uint8)

    def refresh(self) -> None:
        """Take in the shards that have appeared since; set aside those that are damaged.

        Raises:
            LikenessError: STORE-VERSION, STORE-PERM, DISK for a shard that this process cannot read.
        """
        appeared = []
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            if path.name in self._seen | self._refused:
                continue
            try:
                shard = patiently(partial(_open_shard, path, self.fingerprint))
                keys = np.asarray(shard.tensor("keys"))
            except FileNotFoundError:  # listed a moment ago, and set aside by another process since
                continue
            except Damaged as error:
                self._set_aside(path, error)
                continue
            except OSError as error:
                raise _unread(path, error) from error
            self.shards.append(shard)
            self._seen.add(path.name)
            appeared.append(keys)
        self._keys = np.concatenate([self._keys, *appeared])

    def _set_aside(self, path: Path, error: Exception) -> None:
        self._refused.add(path.name)
        aside = path.with_name(f"{path.name}.corrupt-{int(time.time())}")
        try:
            path.rename(aside)
        except OSError:
            aside = path
        log.warning("[STORE-CORRUPT] %s; set aside as %s, its rows will be computed again", error, aside)

    def find(self, digests: UInt8[np.ndarray, "n 32"]) -> Places:
        """Where the rows of these pictures lie; ``shard`` is -1 for those that are not in the store."""
        lengths = [_length(shard) for shard in self.shards]
        places = Places(np.full(len(digests), -1), np.zeros(len(digests), np.int64))
        if not lengths or not len(digests):
            return places
        at = positions(self._keys, digests)
        found = at >= 0
        starts = np.concatenate([[0], np.cumsum(lengths)])
        places.shard[found] = np.searchsorted(starts, at[found], side="right") - 1
        places.row[found] = at[found] - starts[places.shard[found]]
        return places

    def verify(self, places: Places) -> bool:
        """Whether every shard that these rows lie in is whole; damaged ones are set aside and forgotten."""
        damaged = []
        for index in np.unique(places.shard[~places.missing]):
            try:
                self.shards[index].tensor("features")
                self.shards[index].tensor("white")
            except Damaged as error:
                self._set_aside(self.shards[index].path, error)
                damaged.append(int(index))
        if damaged:
            self.shards = [shard for index, shard in enumerate(self.shards) if index not in damaged]
            keys = [np.asarray(shard.tensor("keys")) for shard in self.shards]
            self._keys = np.concatenate([np.empty((0, 32), np.uint8), *keys])
        return not damaged

    def rows(self, places: Places, memory_bytes: float | int = np.inf) -> Rows:
        """The rows at these places: a tensor, or where they would exceed ``memory_bytes``, memory-mapped rows."""
        maps = [shard.tensor("features") for shard in self.shards]
        if len(places.row) * row_bytes(maps[0].shape[1:]) > memory_bytes:
            return MappedRows(maps, places)
        return _gather(maps, places.shard, places.row)

    def white(self, places: Places) -> Float32[np.ndarray, " n"]:
        """The share of white pixels of each picture at these places."""
        return _gather([shard.tensor("white") for shard in self.shards], places.shard, places.row).numpy()

    def add(
        self,
        digests: UInt8[np.ndarray, "n 32"],
        features: Float32[np.ndarray, "n ..."],
        white: Float32[np.ndarray, " n"],
    ) -> None:
        """Commit rows as one new shard: it is there whole, or not at all."""
        if not (self.folder / _IDENTITY).exists():
            write_json(self.folder / _IDENTITY, self.identity)
        tensors = {"features": features, "keys": digests, "white": white}
        facts = {"schema": str(SCHEMA), "extractor": self.fingerprint}
        seal(self.folder, "shard", tensors, facts)

    @contextmanager
    def filling(self, share: Share = WHOLE) -> Iterator[bool]:
        """Hold a share: while another process fills one that overlaps it, wait and say every 10 s who does.

        ``.lock`` is held while a process waits for those before it and takes its own share's lock, never while it
        computes; nobody waits for ``.lock`` holding another, so that all get their turn.

        A file system without working locks is warned of and gone without: some rows may then be computed twice. So may
        they where somebody removes the lock of a process that is stopped, or whose machine is gone. Gives whether there
        is a lock.

        Raises:
            LikenessError: STORE-PERM, DISK where nothing can be written here.
        """
        first = self.folder / _IDENTITY
        with explained(first):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))
        locked = False
        with ExitStack() as locks:
            try:
                with self._locked(""):
                    for other in self._overlapping(share):
                        with self._locked(f"-{other}"):
                            pass
                    locks.enter_context(self._locked(f"-{share}"))
                locked = True
            except (OSError, NotImplementedError) as error:
                log.warning("[LOCK] no working lock in %s (%s): some work may be done twice", self.folder, error)
            if stale := sweep_temporary(self.folder):
                log.info("removed %d stale temporary files", stale)
            if not first.exists():
                self._say_what_is_new()
            yield locked

    def _say_what_is_new(self) -> None:
        """In what this extractor differs from the one most like it whose rows are in the store, if there are any."""
        others = filter(None, map(_identity_in, sorted(self.folder.parent.glob(f"*/{_IDENTITY}"))))
        if told := min((_differences(self.identity, other) for other in others), key=len, default=None):
            log.info("[STORE] nothing computed yet with these options: %s; those that were there stay", "; ".join(told))

    def _overlapping(self, share: Share) -> list[Share]:
        """The shares that were ever filled here and that overlap this one; whose lock is free is done or dead."""
        named = [_LOCK_OF_A_SHARE.fullmatch(path.name) for path in sorted(self.folder.glob(".lock-*"))]
        return [other for match in named if match and share.overlaps(other := Share(int(match[1]), int(match[2])))]

    def _locked(self, name: str) -> AbstractContextManager[None]:
        return held(self.folder, name, "features", "rows are computed twice")

    def refuse_full_disk(self, rows: int, shape: tuple[int, ...]) -> None:
        """Raises DISK when this many more rows will not fit, before any is computed."""
        needed = rows * row_bytes(shape)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise LikenessError(
                "DISK",
                f"{rows:,} features of shape {shape} need {needed / 1e9:.2f} GB; {free / 1e9:.2f} GB are free.",
                where=str(self.folder),
                cause="The disk of the store is too small for what is missing.",
                kept="Every row that is in the store.",
                fix="Free some space, or move the store with paths.store= or LIKENESS_STORE.",
            )


def row_bytes(shape: tuple[int, ...]) -> int:
    """What a row, its key and its share of white pixels take in the store."""
    return int(np.prod(shape)) * 4 + 36


def positions(known: UInt8[np.ndarray, "k 32"], asked: UInt8[np.ndarray, "n 32"]) -> Int[np.ndarray, " n"]:
    """Where each of the digests that are asked for is among those that are known, -1 where it is not."""
    if not len(known):
        return np.full(len(asked), -1)
    by_start, starts = _sortable(known), _sortable(asked)
    order = np.argsort(by_start, kind="stable")
    at = order[np.minimum(np.searchsorted(by_start, starts, sorter=order), len(order) - 1)]
    return np.where((known[at] == asked).all(1), at, -1)


def _sortable(keys: UInt8[np.ndarray, "n 32"]) -> np.ndarray:
    """The first 8 bytes of each key; all 32 are compared afterwards."""
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]


def _open_shard(path: Path, fingerprint: str) -> Sealed:
    """Read and verify a shard's header.

    Raises:
        Damaged: When it is not what was written, or not of this extractor.
        LikenessError: STORE-VERSION for a shard of a newer version.
    """
    shard = unseal(path)
    try:
        schema = int(shard.facts["schema"])
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{path.name}: the header cannot be read") from error
    _refuse_newer(schema, path)
    rows = shard.rows(_TENSORS)
    whole = rows and shard.header["keys"]["shape"] == [rows, 32] and shard.header["white"]["shape"] == [rows]
    if not whole or shard.facts.get("extractor") != fingerprint:
        raise Damaged(f"{path.name} holds no rows of this extractor")
    return shard


def _length(shard: Sealed) -> int:
    return shard.header["keys"]["shape"][0]


def _refuse_newer(schema: int, path: Path) -> None:
    if schema > SCHEMA:
        raise LikenessError(
            "STORE-VERSION",
            f"the store was written with schema {schema}; this version reads up to {SCHEMA}.",
            where=str(path),
            cause="A newer likeness has filled it.",
            kept="Nothing was changed.",
            fix="Upgrade likeness, or take another store with paths.store= or LIKENESS_STORE.",
        )


def _unread(path: Path, error: OSError) -> LikenessError:
    refused = isinstance(error, PermissionError)
    return LikenessError(
        "STORE-PERM" if refused else "DISK",
        f"a shard of the store cannot be read{f' by uid {os.getuid()}' if refused else ''}.",
        where=str(path),
        cause=str(error),
        kept="The store: nothing was changed.",
        fix="Ask its owner to let you read it, or take another store with paths.store= or LIKENESS_STORE."
        if refused
        else "Check the disk or the network it is reached by, then run the same again; or take another store with "
        "paths.store=.",
    )


def _identity_in(path: Path) -> Any:
    """What a shelf is of; None where that cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _differences(identity: Mapping[str, Any], other: Any) -> list[str]:
    """``name changed (before -> now)`` for each plain value that is not the same in both."""
    now, before = dict(_leaves(json.loads(canonical_json(identity)))), dict(_leaves(other))
    names = sorted(name for name in now | before if now.get(name) != before.get(name))
    return [f"{name} changed ({_shown(before.get(name))} -> {_shown(now.get(name))})" for name in names]


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else key)
    else:
        yield name, node


def _shown(value: Any) -> str:
    text = str(value)
    return f"{text[:_MOST_SHOWN]}…" if re.fullmatch(r"[0-9a-f]{32,}", text) else text


class Inspected(NamedTuple):
    """What lies in a shelf's folder: whole rows, the bytes they take, and what is wrong, each with the file's name."""

    rows: int
    bytes: int
    faults: list[str]


def inspect(folder: Path) -> Inspected:
    """Verify every shard of a shelf, and change nothing."""
    identity = _identity_in(folder / "extractor.json")
    if identity is None:
        return Inspected(0, 0, ["extractor.json cannot be read: whose the rows are is not known"])
    rows, size, faults, fingerprint = 0, 0, [], digest(identity)
    if fingerprint[: len(folder.name)] != folder.name:
        faults.append(f"extractor.json describes another shelf, {fingerprint[: len(folder.name)]}")
    for path in sorted(folder.glob("shard-*.safetensors")):
        try:
            shard = _open_shard(path, fingerprint)
            for name in _TENSORS:
                shard.tensor(name)
            rows, size = rows + _length(shard), size + path.stat().st_size
        except (Damaged, LikenessError, OSError) as error:
            faults.append(str(error))
    return Inspected(rows, size, faults)
