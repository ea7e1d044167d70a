"""A gallery on disk that pictures enter and leave: whoever reads it sees the state before a change or after it.

    index.json                      of which model its codes are, and how wide; never changes
    generation-NUMBER.json          one state: segments, and what is gone of them; the greatest number counts
    rows-DIGEST.safetensors         a segment
    gone-DIGEST.safetensors         rows that are gone: ``parts`` and ``rows``, the positions of the segment and in it

Nothing is ever changed in place. A change writes its segments, then its generation in one step that only one writer
can do (``files.write_once``): a writer that was overtaken begins again from what the other made. Then the files that
neither this generation nor the one before it needs are removed; whoever still reads an older one has them mapped.
A lock keeps writers from overtaking each other, and what is not yet in a generation from being removed.

Small segments are merged as they come (each row is written again once for each doubling, up to 128 MB), and segments
of which most is gone are written anew.
"""

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8

from likeness.errors import LikenessError, listed
from likeness.features.store import positions
from likeness.files import digest, sweep_temporary, write_once
from likeness.locking import held
from likeness.retrieval.generation import (
    SCHEMA,
    Entries,
    Generation,
    Part,
    Segment,
    all_columns,
    damaged,
    write_segment,
)
from likeness.retrieval.rows import comparable, refusal
from likeness.sealed import Damaged, read_signed, seal, signed, unseal

log = logging.getLogger(__name__)

_ABOUT = "index.json"
_NUMBERED = re.compile(r"generation-(\d{8})\.json")
_OURS = re.compile(r"(rows|gone)-[0-9a-f]{64}\.safetensors|generation-\d{8}\.json")
_GONE = {"parts": "I64", "rows": "I64"}
_LARGEST_MERGED = 128 << 20  # bytes
_TRIES = 5


class Added(NamedTuple):
    """What became of the pictures that were to be added.

    Attributes:
        generation: With them.
        ids: Of each; of one that was there before, the id that it has had.
        new: Whether it was not there before.
    """

    generation: Generation
    ids: Int64[np.ndarray, " n"]
    new: Bool[np.ndarray, " n"]


class Fault(NamedTuple):
    """What is wrong with a file, and the rows that it costs (None where the whole state is unknown)."""

    what: str
    rows: int | None


@dataclass(frozen=True)
class Index:
    """An index in a folder.

    Attributes:
        identity: The fingerprints of the model that its codes are of, by part.
        about: Plain values that were given when it was made.
    """

    folder: Path
    identity: Mapping[str, str]
    width: int
    about: Mapping[str, Any]

    @staticmethod
    def create(
        folder: Path, identity: Mapping[str, str], width: int, about: Mapping[str, Any] | None = None
    ) -> "Index":
        """An empty index.

        Raises:
            LikenessError: INDEX-EXISTS when there is one already, or a file has that name; DISK, STORE-PERM.
        """
        content = {
            "schema": SCHEMA,
            "model": dict(identity),
            "width": width,
            "created": int(time.time()),
            "about": dict(about or {}),
        }
        if folder.is_file() or (folder / _ABOUT).exists():
            raise _exists(folder)
        write_once(_generation_path(folder, 1), signed(_manifest(1, 0, [], None, None)))
        if not write_once(folder / _ABOUT, signed(content)):
            raise _exists(folder)
        return Index.open(folder)

    @staticmethod
    def open(folder: Path) -> "Index":
        """The index in a folder.

        Raises:
            LikenessError: INDEX-MISSING, INDEX-VERSION when a newer version wrote it, INDEX-DAMAGED.
        """
        try:
            content = _current(folder / _ABOUT)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise LikenessError(
                "INDEX-MISSING",
                "there is no index in this folder.",
                where=str(folder.absolute()),
                fix=f"Make one with likeness index create {folder} --run outputs/train/NAME.",
            ) from error
        except Damaged as error:
            raise damaged(folder, str(error)) from error
        return Index(folder, content["model"], content["width"], content["about"])

    @property
    def model(self) -> str:
        """One digest for the model's fingerprints."""
        return digest(dict(self.identity))

    def refuse_other(self, identity: Mapping[str, str]) -> None:
        """Raises INDEX-MODEL where codes of this model have no meaning here."""
        if dict(identity) == dict(self.identity):
            return
        raise LikenessError(
            "INDEX-MODEL",
            "the codes of this model cannot be compared with those of the index.",
            where=str(self.folder),
            cause="\n".join(
                f"{name}: {here[:16]} in the index, {other[:16]} in the model"
                for name in sorted({*identity, *self.identity})
                if (here := self.identity.get(name, "none")) != (other := identity.get(name, "none"))
            ),
            fix="Use the model that the index was made with (it lies beside index.json), or make another index.",
        )

    def refuse_present(self, paths: Sequence[str], keys: UInt8[np.ndarray, "n 32"]) -> None:
        """Raises INDEX-ID for a picture that is here already or comes twice, as ``add`` would: before there is work."""
        unknown, none = [""] * len(paths), np.empty((len(paths), 0), np.float32)
        _Entrance(self.newest(), False).pass_through(Entries(none, keys, paths, unknown, unknown, []))

    def number(self) -> int:
        """Of its newest generation, 0 where there is none."""
        return max(_numbers(self.folder), default=0)

    def newest(self) -> Generation:
        """Its state now.

        Raises:
            LikenessError: INDEX-DAMAGED.
        """
        for _ in range(_TRIES):
            number = _numbers(self.folder)[-1:]
            if not number:
                raise damaged(self.folder, "There is no generation.")
            try:
                return self._generation(number[0])
            except (Damaged, FileNotFoundError) as error:
                # A writer may have made a newer one meanwhile, and removed what this one needs.
                if _numbers(self.folder)[-1:] == number:
                    raise damaged(self.folder, str(error)) from error
        raise damaged(self.folder, f"It changed {_TRIES} times while it was opened.")

    def add(self, batches: Iterable[Entries], identity: Mapping[str, str], *, skip_present: bool = False) -> Added:
        """A generation with these pictures as well. ``batches`` are taken one after the other, and written at once.

        Args:
            identity: Of the model that their codes are of.
            skip_present: Pictures that are here already are passed over, and so is what comes twice. Else refused.

        Raises:
            LikenessError: INDEX-MODEL; INDEX-ID for a picture or an id that is here already; RETRIEVAL for a code that
                is zero, not finite or of another width; DISK. The index then is as it was.
        """
        self.refuse_other(identity)
        with self._writing():
            before = self.newest()
            entrance, parts = _Entrance(before, skip_present), list(before.parts)
            for batch in batches:
                _refuse_unusable(batch, self.width)
                new = entrance.pass_through(batch)
                if new.any():
                    some = _taken(batch, new)
                    segment = write_segment(self.folder, some, entrance.ids[-1][new], int(time.time()), self.model)
                    parts.append(_untouched(segment))
            after = self._commit(before, parts, next_id=entrance.next_id) if parts[len(before.parts) :] else before
        none: list[np.ndarray] = [np.empty(0, np.int64)]
        return Added(after, np.concatenate(none + entrance.ids), np.concatenate([np.empty(0, bool), *entrance.new]))

    def remove(self, *, ids: Sequence[int] = (), homes: Sequence[str] = ()) -> Generation:
        """A generation without the pictures of these ids and homes.

        Raises:
            LikenessError: INDEX-ID for an id or a home that is not here, INDEX-BUSY, DISK; then nothing is removed.
        """
        with self._writing():
            before = self.newest()
            rows = before.rows_of(np.asarray(ids, np.int64))
            missing = [f"id {number}" for number, row in zip(ids, rows, strict=True) if row < 0]
            names = {name: number for number, name in enumerate(before.home_names)} if homes else {}
            missing += [f"home {name}" for name in homes if name not in names]
            if missing:
                raise _not_here(missing, self.folder)
            if homes:
                of_homes = np.flatnonzero(np.isin(before.homes, [names[name] for name in homes]))
                rows = np.union1d(rows, of_homes)
            return self._commit(before, before.without(np.unique(rows)))

    def calibrate(self, threshold: dict[str, Any] | None) -> Generation:
        """A generation with this threshold of rejection, which is kept until another is given."""
        with self._writing():
            before = self.newest()
            return self._commit(before, before.parts, threshold=threshold)

    def verify(self) -> Iterator[Fault]:
        """Read every byte of the newest generation; gives what is wrong."""
        for number in _numbers(self.folder)[-1:]:
            try:
                manifest = _state(self.folder, number)
            except (Damaged, OSError) as error:
                yield Fault(str(error), None)
                return
            for named in manifest["segments"]:
                try:
                    _verify_segment(Segment(self.folder / named["file"], self.model))
                except (Damaged, OSError) as error:
                    yield Fault(str(error), named["rows"])
            try:
                _gone_rows(self.folder, manifest)
            except (Damaged, OSError) as error:
                yield Fault(str(error), None)
            return
        yield Fault("There is no generation.", None)

    def mend(self) -> tuple[Generation, int]:
        """Its newest state without the files that are damaged, which are set aside, and how many rows that cost.

        A damaged generation gives way to the one before it, and a damaged list of what is gone as well.
        """
        with self._writing():
            lost = 0
            while numbers := _numbers(self.folder):
                path = _generation_path(self.folder, numbers[-1])
                try:
                    manifest = _state(self.folder, numbers[-1])
                    gone = _gone_rows(self.folder, manifest)
                    break
                except (Damaged, OSError):
                    _set_aside(path)
            else:
                raise damaged(self.folder, "No generation is whole.")
            parts = []
            for number, named in enumerate(manifest["segments"]):
                path = self.folder / named["file"]
                try:
                    segment = Segment(path, self.model)
                    _verify_segment(segment)
                    parts.append(_part(segment, gone, number))
                except (Damaged, OSError):
                    lost += named["rows"] - int((gone[0] == number).sum())
                    _set_aside(path)
            if not lost:
                return self.newest(), 0
            whole = Generation(self.folder, numbers[-1], manifest["next_id"], parts, self.width, manifest["threshold"])
            return self._commit(whole, parts), lost

    def _generation(self, number: int) -> Generation:
        manifest = _state(self.folder, number)
        gone = _gone_rows(self.folder, manifest)
        segments = [Segment(self.folder / named["file"], self.model) for named in manifest["segments"]]
        parts = [_part(segment, gone, place) for place, segment in enumerate(segments)]
        return Generation(self.folder, number, manifest["next_id"], parts, self.width, manifest["threshold"])

    def _commit(
        self, before: Generation, parts: Sequence[Part], *, next_id: int | None = None, threshold: Any = ...
    ) -> Generation:
        """The next generation, of these parts, made tidy."""
        kept = before.threshold if threshold is ... else threshold
        number, next_id = before.number + 1, before.next_id if next_id is None else next_id
        parts = self._tidy(parts)
        gone = self._write_gone(parts)
        content = _manifest(number, next_id, [part.segment for part in parts], gone, kept)
        if not write_once(_generation_path(self.folder, number), signed(content)):
            raise _busy(self.folder)
        return Generation(self.folder, number, next_id, parts, self.width, kept)

    def _tidy(self, parts: Sequence[Part]) -> list[Part]:
        """Without segments of which nothing is left; half-empty ones written anew; small ones at the end merged."""
        tidy: list[Part] = []
        for part in parts:
            if not part.left:
                continue
            tidy.append(self._rewritten([part]) if 2 * part.left < part.segment.length else part)
        while len(tidy) > 1 and _merge_pays(*tidy[-2:]):
            tidy[-2:] = [self._rewritten(tidy[-2:])]
        return tidy

    def _rewritten(self, parts: Sequence[Part]) -> Part:
        some = Generation(self.folder, 0, 0, parts, self.width)
        entries = some.entries(np.arange(len(some)))
        assert entries.ids is not None
        return _untouched(write_segment(self.folder, entries, entries.ids, some.added, self.model))

    def _write_gone(self, parts: Sequence[Part]) -> str | None:
        rows = [np.flatnonzero(part.gone) for part in parts]
        if not sum(map(len, rows)):
            return None
        numbers = np.repeat(np.arange(len(parts)), [len(some) for some in rows])
        tensors = {"parts": numbers, "rows": np.concatenate(rows)}
        return seal(self.folder, "gone", tensors, {"schema": str(SCHEMA), "model": self.model}).name

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone where there are locks; afterwards what is needed no more is removed."""
        with ExitStack() as locks:
            try:
                locks.enter_context(held(self.folder, "", "the index", "one of two changes is refused"))
            except (OSError, NotImplementedError) as error:
                log.warning(
                    "[LOCK] no working lock in %s (%s): of two changes at once one is refused", self.folder, error
                )
                yield
                return
            try:
                yield
            finally:
                self._collect()

    def _collect(self) -> None:
        """Remove what neither of the two newest generations needs. Nothing where one of them cannot be read."""
        kept = _numbers(self.folder)[-2:]
        needed = {_generation_path(self.folder, number).name for number in kept}
        try:
            for number in kept:
                manifest = _state(self.folder, number)
                needed |= {named["file"] for named in manifest["segments"]} | {manifest["gone"]}
            for path in self.folder.iterdir():
                if _OURS.fullmatch(path.name) and path.name not in needed:
                    path.unlink(missing_ok=True)
            sweep_temporary(self.folder)
        except (Damaged, OSError) as error:
            log.debug("nothing was cleared away in %s: %s", self.folder, error)


class _Entrance:
    """Who may come in: ids for new pictures, and those that are known already found or refused."""

    def __init__(self, before: Generation, skip_present: bool) -> None:
        self.before, self.skip_present, self.next_id = before, skip_present, before.next_id
        self.ids: list[Int64[np.ndarray, " n"]] = []
        self.new: list[Bool[np.ndarray, " n"]] = []
        self._came: dict[bytes, tuple[int, str]] = {}  # id and path of what is new
        self._given: set[int] = set()

    def pass_through(self, batch: Entries) -> Bool[np.ndarray, " n"]:
        """Which of these are new; the ids of all are the last of ``ids``."""
        place = positions(self.before.keys, batch.keys)
        present = self.before.ids[place].tolist() if len(self.before) else place.tolist()
        whole, ids, new = batch.keys.tobytes(), np.empty(len(place), np.int64), np.zeros(len(place), bool)
        for row, (at, known) in enumerate(zip(place.tolist(), present, strict=True)):
            key = whole[32 * row : 32 * row + 32]
            if at < 0 and (known := self._came.get(key, (-1, ""))[0]) < 0:
                new[row] = True
                known = self.next_id if batch.ids is None else int(batch.ids[row])
                self._came[key] = known, batch.paths[row]
                self.next_id = max(self.next_id, known + 1)
            ids[row] = known
        self._refuse(batch, ids, new)
        self.ids.append(ids)
        self.new.append(new)
        return new

    def _refuse(self, batch: Entries, ids: Int64[np.ndarray, " n"], new: Bool[np.ndarray, " n"]) -> None:
        if batch.ids is not None:
            self._refuse_taken(batch.ids[new])
        if (present := np.flatnonzero(~new)).size and not self.skip_present:
            told = [f"{batch.paths[row]}: {self._twin(batch.keys[row], int(ids[row]))}" for row in present.tolist()]
            raise LikenessError(
                "INDEX-ID",
                f"{len(told)} of {len(ids)} pictures are in the index already, or given twice.",
                where=listed(told),
                cause="The bytes of the file are the same.",
                kept="The index is as it was; all features.",
                fix="Leave them out, or pass over them with --skip-present.",
            )

    def _refuse_taken(self, given: Int64[np.ndarray, " m"]) -> None:
        numbers = given.tolist()
        taken = [n for n in numbers if n in self._given] + given[self.before.rows_of(given) >= 0].tolist()
        twice = len(set(numbers)) < len(numbers)
        if taken or twice or (given < 0).any():
            told = [f"id {number} {self._since(number)}" for number in taken] or ["an id comes twice, or is below 0"]
            raise LikenessError(
                "INDEX-ID",
                f"{len(told)} ids cannot be given.",
                where=listed(told),
                kept="The index is as it was.",
                fix="Give others, or none: the index then chooses them.",
            )
        self._given |= set(numbers)

    def _twin(self, key: UInt8[np.ndarray, "32"], number: int) -> str:
        row = int(self.before.rows_of(np.array([number]))[0])
        path = self._came[key.tobytes()][1] if row < 0 else self.before.path(row)
        return f"as {path}, id {number} {self._since(number)}"

    def _since(self, number: int) -> str:
        row = int(self.before.rows_of(np.array([number]))[0])
        if row < 0:
            return "(in this same call)"
        return f"(added {time.strftime('%Y-%m-%d', time.gmtime(self.before.added[row]))})"


def _refuse_unusable(batch: Entries, width: int) -> None:
    count = len(batch.codes)
    lengths = {len(column) for column in batch if column is not None}
    if batch.codes.ndim != 2 or batch.codes.shape[1] != width or lengths != {count}:
        raise refusal(
            f"codes are {batch.codes.shape}; needed are [n, {width}], and as many of all that is known of them.",
            "Make the codes with the model of the index.",
        )
    rows = comparable(torch.from_numpy(batch.codes), torch.arange(count))  # refuses what is not finite
    if zero := torch.nonzero(rows.is_zero)[:, 0].tolist():
        raise refusal(
            f"{len(zero)} of {count} codes are zero: they point nowhere, so nothing is near them.",
            "Leave these pictures out, or look for dead units in the head.",
            where=listed(batch.paths[row] for row in zero),
        )


def _taken(batch: Entries, which: Bool[np.ndarray, " n"]) -> Entries:
    """Some of the pictures."""
    if which.all():
        return batch
    rows = np.flatnonzero(which).tolist()
    texts = [[column[row] for row in rows] for column in (batch.paths, batch.labels, batch.homes, batch.pictures)]
    return Entries(batch.codes[which], batch.keys[which], *texts)  # type: ignore[arg-type]


def _untouched(segment: Segment) -> Part:
    return Part(segment, np.zeros(segment.length, bool))


def _part(segment: Segment, gone: tuple[np.ndarray, np.ndarray], number: int) -> Part:
    part, rows = _untouched(segment), gone[1][gone[0] == number]
    if len(rows) and not 0 <= rows.min() <= rows.max() < segment.length:
        raise Damaged(f"{segment.name}: rows are gone that it never had")
    part.gone[rows] = True
    return part


def _merge_pays(one: Part, last: Part) -> bool:
    """Whether the last is so large beside the one before that each row is written again but once a doubling."""
    return one.segment.size <= 2 * last.segment.size and one.segment.size + last.segment.size <= _LARGEST_MERGED


def _verify_segment(segment: Segment) -> None:
    for _ in all_columns(segment):
        pass
    for row in range(segment.length):
        segment.picture(row)


def _generation_path(folder: Path, number: int) -> Path:
    return folder / f"generation-{number:08d}.json"


def _numbers(folder: Path) -> list[int]:
    """The generations there are, ascending."""
    named = map(_NUMBERED.fullmatch, os.listdir(folder))
    return sorted(int(match[1]) for match in named if match)


def _manifest(number: int, next_id: int, segments: Sequence[Segment], gone: str | None, threshold: Any) -> dict:
    return {
        "schema": SCHEMA,
        "number": number,
        "created": int(time.time()),
        "next_id": next_id,
        "segments": [{"file": segment.name, "rows": segment.length} for segment in segments],
        "gone": gone,
        "threshold": threshold,
    }


def _state(folder: Path, number: int) -> dict[str, Any]:
    content = _current(_generation_path(folder, number))
    if content["number"] != number:
        raise Damaged(f"generation {number} is a copy of {content['number']}")
    return content


def _gone_rows(folder: Path, manifest: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    if manifest["gone"] is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    sealed = unseal(folder / manifest["gone"])
    sealed.rows(_GONE)
    return sealed.tensor("parts"), sealed.tensor("rows")


def _current(path: Path) -> dict[str, Any]:
    """A signed file of this version or an older one."""
    content = read_signed(path)
    if content["schema"] > SCHEMA:
        raise LikenessError(
            "INDEX-VERSION",
            f"the index was written with schema {content['schema']}; this version reads up to {SCHEMA}.",
            where=str(path),
            cause="A newer likeness has written it.",
            fix="Upgrade likeness.",
        )
    return content


def _set_aside(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.rename(path.with_name(f"{path.name}.damaged-{int(time.time())}"))


def _exists(folder: Path) -> LikenessError:
    if folder.is_file():
        what, where = "an index is a folder, and a file has that name.", str(folder.absolute())
        return LikenessError("INDEX-EXISTS", what, where=where, fix="Choose another name.")
    return LikenessError(
        "INDEX-EXISTS",
        "there is an index in this folder already.",
        where=str(folder.absolute()),
        fix=f"Add pictures to it with likeness index add {folder}, or choose another folder.",
    )


def _busy(folder: Path) -> LikenessError:
    return LikenessError(
        "INDEX-BUSY",
        "another process changed the index at the same time, and was first.",
        where=str(folder.absolute()),
        cause="This file system has no working locks.",
        kept="The index with the other's change; all features.",
        fix="Run the same command again.",
    )


def _not_here(missing: Sequence[str], folder: Path) -> LikenessError:
    return LikenessError(
        "INDEX-ID",
        f"{len(missing)} of what is to be removed is not in the index.",
        where=f"{folder}\n{listed(missing)}",
        kept="The index is as it was; nothing was removed.",
        fix="Name ids and homes that likeness query shows.",
    )
