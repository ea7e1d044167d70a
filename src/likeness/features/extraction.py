"""Fill the store once: decode what is missing, show it to the frozen network, keep the rows."""

import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt8
from torch import Tensor

from likeness.console import progress
from likeness.errors import LikenessError, listed
from likeness.features.store import WHOLE, Rows, Share, Shelf, row_bytes
from likeness.files import digest, patiently, write_atomic
from likeness.images.decoding import BadImage, Decoder, white_share
from likeness.images.folder import ImageTable, digests, report_duplicates
from likeness.images.ledger import Ledger
from likeness.images.options import readable
from likeness.images.preprocessing import Preprocessing

log = logging.getLogger(__name__)

_GO_ON = (
    "Mend or remove the files, or go on without them: data.on_bad_image=quarantine "
    "(likeness index: --on-bad-image quarantine)."
)

_SHARD_BYTES = 32 << 20
_SECONDS_A_SHARD = 5.0
_LARGEST_BATCH_TIMED, _BATCHES_TIMED = 16, 4
_SECONDS_TO_TIME = 10.0

Undisturbed = Callable[[], AbstractContextManager[Callable[[], bool]]]
"""Within it, whoever wants the process to end waits, and what it gives says whether somebody does."""


def nobody_waits() -> AbstractContextManager[Callable[[], bool]]:
    return nullcontext(lambda: False)


@runtime_checkable
class Network(Protocol):
    """What looks at pictures: ``[b, 3, s, s]`` float32 in, one feature a picture out. ``Backbone`` is one."""

    def __call__(self, pictures: Tensor) -> Tensor: ...

    def policy(self) -> dict[str, Any]: ...

    def feature_shape(self, size: int) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Extractor:
    """Decoding, preprocessing and backbone: all that turns a picture's bytes into its feature."""

    decoder: Decoder
    preprocessing: Preprocessing
    backbone: Network
    device: str = "cpu"

    def identity(self) -> dict[str, Any]:
        """All that decides a feature, as plain values."""
        return {
            "decoding": self.decoder.policy(),
            "preprocessing": self.preprocessing.policy(),
            "backbone": self.backbone.policy(),
            "dtype": "float32",
        }

    @property
    def fingerprint(self) -> str:
        return digest(self.identity())

    def feature_shape(self) -> tuple[int, ...]:
        return self.backbone.feature_shape(self.preprocessing.size)

    @torch.inference_mode()
    def __call__(self, pixels: UInt8[Tensor, "b s s 3"]) -> Float32[Tensor, "b ..."]:
        """Features in float32 whatever TF32 settings say: a row must not depend on the machine's switches."""
        pictures = self.preprocessing.normalize(pixels.to(self.device, non_blocking=True))
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if self.on_gpu else nullcontext():
            return self.backbone(pictures).float()

    @property
    def on_gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"

    @property
    def at_once(self) -> int:
        """Batches that are looked at, or wait their turn, at the same time."""
        return {"cpu": torch.get_num_threads(), "cuda": 2}.get(torch.device(self.device).type, 1)


@dataclass(frozen=True)
class Bad:
    """A picture that has no feature, and why."""

    path: str
    label: str
    code: str
    cause: str


@dataclass(frozen=True)
class Features:
    """A table of pictures, their rows and the SHA-256 of their bytes, in the same order."""

    table: ImageTable
    rows: Rows
    keys: UInt8[np.ndarray, "n 32"]
    computed: int
    reused: int
    bad: Sequence[Bad] = ()
    left_out: int = 0


class _Prepared(NamedTuple):
    row: int
    pixels: UInt8[np.ndarray, "s s 3"] | None = None
    white: float = 0.0
    notes: frozenset[str] = frozenset()
    bad: BadImage | None = None
    changed: bool = False


@dataclass
class _Writer:
    """Collects rows and commits them as a shard every 32 MiB or 5 s: what a kill can cost."""

    shelf: Shelf
    keys: UInt8[np.ndarray, "n 32"]
    pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    not_finite: list[int] = field(default_factory=list)
    written: int = 0
    taken: int = 0  # rows that another process had committed before

    def add(
        self, indices: np.ndarray, features: Float32[np.ndarray, "b ..."], white: Float32[np.ndarray, " b"]
    ) -> None:
        finite = np.isfinite(features).reshape(len(features), -1).all(1)
        self.not_finite += indices[~finite].tolist()
        self.pending.append((self.keys[indices[finite]], features[finite], white[finite]))
        size = sum(rows.nbytes for _, rows, _ in self.pending)
        if size >= _SHARD_BYTES or time.monotonic() - self.since >= _SECONDS_A_SHARD:
            self.flush()

    def flush(self) -> None:
        """Commit what is pending, but for rows that another process, which no lock keeps out, has committed since."""
        pending, self.pending, self.since = self.pending, [], time.monotonic()
        if not sum(len(keys) for keys, _, _ in pending):
            return
        keys, features, white = (np.concatenate(parts) for parts in zip(*pending, strict=True))
        self.shelf.refresh()
        new = self.shelf.find(keys).missing
        if new.any():
            self.shelf.add(keys[new], features[new], white[new])
        self.written += int(new.sum())
        self.taken += int((~new).sum())


def extract(
    extractor: Extractor,
    table: ImageTable,
    store: Path,
    *,
    on_bad_image: str = "raise",
    mostly_white: float | None = None,
    batch_size: int = 64,
    workers: int = 2,
    memory_bytes: float | int = np.inf,
    undisturbed: Undisturbed = nobody_waits,
    rehash: bool = False,
    shelf: Shelf | None = None,
) -> Features:
    """The features of a table of pictures: those in the store are read, the others computed and kept.

    Args:
        on_bad_image: ``raise`` stops after all good pictures are done, naming every bad one; ``quarantine`` goes on
            without the bad ones.
        mostly_white: Pictures with a larger share of pure white pixels are left out (plans and maps); None keeps all.
        memory_bytes: Above this the rows stay on disk, memory-mapped.
        undisturbed: Asked before each batch; those that the network looks at are kept before the process may end.
        rehash: Read every file, also those that did not change since their digest was noted.
        shelf: Where the rows lie in the store, if that is open already: what it has verified is not verified again.

    Raises:
        LikenessError: IMG-BAD, DATA-CHANGED, NAN, DISK; whatever was computed stays in the store.
    """
    ledger = Ledger(store, table.root, rehash)
    keys = digests(table.files(), workers, ledger)
    ledger.keep()
    report_duplicates(table, keys)
    shelf = shelf or Shelf(store, extractor.identity())
    work = filling(extractor, table, keys, shelf, batch_size, workers, undisturbed=undisturbed)
    with work as missing, undisturbed() as asked_to_end:
        for batch, features in looked_at(extractor, takewhile(lambda _: not asked_to_end(), missing)):
            missing.keep(batch, features)
    missing.refuse_unusable()
    bad, computed = missing.bad, missing.writer.written
    shelf.refresh()
    decide(bad, len(table), table, shelf, on_bad_image)
    good = np.setdiff1d(np.arange(len(table)), list(bad))
    if _lacking(shelf, keys[good]).any():
        raise LikenessError(
            "DISK",
            "rows that were written a moment ago fail their checksum.",
            where=str(shelf.folder),
            kept="The damaged shards, set aside; every other row.",
            fix="Check the disk, or move the store with paths.store= or LIKENESS_STORE.",
        )
    places = shelf.find(keys[good])
    reused = len(good) - computed
    log.info("features: %s rows, %s found in the store, %s computed (%s)", len(good), reused, computed, shelf.folder)
    white = shelf.white(places) > (1.0 if mostly_white is None else mostly_white)
    if white.any():
        log.info("left out %d pictures that are mostly white (over %s)", white.sum(), mostly_white)
        places = shelf.find(keys[good[~white]])
    kept = table.take(good[~white])
    rows = shelf.rows(places, memory_bytes)
    return Features(kept, rows, keys[good[~white]], computed, reused, tuple(bad.values()), int(white.sum()))


class Cost(NamedTuple):
    """What the store lacks of a table's features.

    Args:
        network: What computes them.
        missing: Pictures that the network has not seen, of ``images``; copies count once.
        seconds: By the pace of a few of them; None where none is missing, or none of the few can be used.
        bytes: In the store.
        fault: Why nothing is known, where that is so.
    """

    network: str
    fingerprint: str = ""
    images: int = 0
    missing: int = 0
    seconds: float | None = None
    bytes: int = 0
    fault: LikenessError | None = None


def cost(
    extractor: Extractor, table: ImageTable, store: Path, *, batch_size: int, workers: int, rehash: bool = False
) -> Cost:
    """What :func:`extract` would compute, at the pace of at most 64 pictures that are looked at now and not kept."""
    keys = digests(table.files(), workers, Ledger(store, table.root, rehash))
    shelf = Shelf(store, extractor.identity())
    shelf.refresh()
    wanted = _first_of_each(keys, np.flatnonzero(shelf.find(keys).missing))
    pace = _seconds_a_picture(extractor, table, keys, wanted, min(batch_size, _LARGEST_BATCH_TIMED), workers)
    return Cost(
        str(extractor.backbone.policy()["network"]),
        shelf.fingerprint[:16],
        len(table),
        len(wanted),
        None if pace is None else pace * len(wanted),
        len(wanted) * row_bytes(extractor.feature_shape()),
    )


def _seconds_a_picture(
    extractor: Extractor, table: ImageTable, keys: np.ndarray, wanted: np.ndarray, size: int, workers: int
) -> float | None:
    """The pace from the first picture's file to the last one's feature, of some from all over the table.

    The network is warmed up before. Threads decode ahead, so that the pace of a later batch alone would leave out what
    was decoded meanwhile.
    """
    if not len(wanted):
        return None
    few = wanted[np.linspace(0, len(wanted) - 1, min(len(wanted), _BATCHES_TIMED * size)).astype(int)]
    side = extractor.preprocessing.size
    extractor(torch.zeros(min(size, len(few)), side, side, 3, dtype=torch.uint8)).cpu()
    seen, spent, started = 0, 0.0, time.monotonic()
    decoded = _batches(_prepared(extractor, table, keys, few.tolist(), workers, size), size)
    usable = ([item for item in items if item.pixels is not None] for items in decoded)
    for batch, _ in looked_at(extractor, map(_stacked, filter(None, usable))):
        seen, spent = seen + len(batch.positions), time.monotonic() - started
        if spent > _SECONDS_TO_TIME:
            break
    return spent / seen if seen else None


class Batch(NamedTuple):
    """Usable pictures: their positions in the table, pixels and shares of white."""

    positions: Int[np.ndarray, " b"]
    pixels: UInt8[Tensor, "b s s 3"]
    white: Float32[np.ndarray, " b"]


class Missing:
    """The pictures of a share that the shelf lacks: whoever iterates gets them decoded, and gives back their features.

    Args:
        wanted: Positions in the table; copies are looked at once.
        shown: Whether progress is.
        alone: Whether a lock keeps other processes from looking at the same.
    """

    def __init__(
        self,
        extractor: Extractor,
        table: ImageTable,
        keys: UInt8[np.ndarray, "n 32"],
        shelf: Shelf,
        wanted: Int[np.ndarray, " m"],
        batch_size: int,
        workers: int,
        shown: bool = True,
        alone: bool = True,
    ) -> None:
        self.extractor, self.table, self.keys, self.wanted = extractor, table, keys, wanted
        self.first = _first_of_each(keys, wanted)
        self.batch_size, self.workers, self.shown, self.alone = batch_size, workers, shown, alone
        self.writer = _Writer(shelf, keys)
        self._notes: Counter[str] = Counter()
        self._bad: dict[int, Bad] = {}
        self._changed: list[int] = []

    def __iter__(self) -> Iterator[Batch]:
        size, at_once = self.batch_size, self.extractor.at_once
        ahead = (2 + at_once) * size
        prepared = _prepared(self.extractor, self.table, self.keys, self._order(), self.workers, ahead)
        with progress("features", len(self.first)) if self.shown else nullcontext(_unseen) as advance:
            for items in _batches(prepared, size):
                self._bad |= {item.row: _described(item.bad, item.row, self.table) for item in items if item.bad}
                self._changed += [item.row for item in items if item.changed]
                if good := [item for item in items if item.pixels is not None]:
                    self._notes.update(note for item in good for note in item.notes)
                    yield _stacked(good)
                advance(len(items))

    def _order(self) -> Iterator[int]:
        """Positions to look at: the table's order, as long as no other process looks at the same.

        One that does, since no lock keeps it out, is seen by its shards. What it has done is passed over; and who finds
        done what it was about to do goes on from anywhere, so that the two seldom look at the same picture.
        """
        left = self.first if self.alone else _from_anywhere(self.first)
        flushed = taken = 0
        while len(left):
            yield int(left[0])
            left = left[1:]
            if self.writer.written + self.writer.taken > flushed:
                left = self._not_done_by_others(left, was_done=self.writer.taken > taken)
                taken = self.writer.taken
                flushed = self.writer.written + taken

    def _not_done_by_others(self, left: Int[np.ndarray, " m"], was_done: bool) -> Int[np.ndarray, " k"]:
        missing = self.writer.shelf.find(self.keys[left]).missing
        if missing.all() and not was_done:
            return left
        if self.alone:
            self.alone = False
            folder = self.writer.shelf.folder
            log.warning("[LOCK] another process fills %s as well: some work may be done twice", folder)
        is_next = was_done or not missing[:1].all()
        return _from_anywhere(left[missing]) if is_next else left[missing]

    def keep(self, batch: Batch, features: Float32[Tensor, "b ..."]) -> None:
        """Take the features of a batch into the store.

        Raises:
            LikenessError: DISK, STORE-PERM.
        """
        self.writer.add(batch.positions, features.cpu().numpy(), batch.white)

    def refuse_unusable(self) -> None:
        """Raises DATA-CHANGED or NAN for pictures that gave no feature and are not merely bad."""
        for note, count in sorted(self._notes.items()):
            log.info("%d pictures: %s", count, note)
        _refuse_changed(self._changed, self.table, self.writer.shelf, self.writer.written)
        _refuse_non_finite(self.writer, self.table)

    @property
    def distinct_bad(self) -> int:
        """Bad pictures, copies counted once."""
        return len(self._bad)

    @property
    def bad(self) -> dict[int, Bad]:
        """By position; a copy of a bad picture is bad."""
        same_bytes = {self.keys[index].tobytes(): fault for index, fault in self._bad.items()}
        found = {index: same_bytes.get(self.keys[index].tobytes()) for index in self.wanted.tolist()}
        return {index: replace(bad, path=str(self.table.paths[index])) for index, bad in found.items() if bad}


def _from_anywhere(rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """The same in the same order, begun at another place by each process."""
    return np.roll(rows, np.random.default_rng().integers(max(len(rows), 1)))


def _unseen(count: int = 1) -> None:
    """Progress that nobody is shown."""


def looked_at(extractor: Extractor, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Float32[Tensor, "b ..."]]]:
    """Each batch and its features, in order, while the next ones are decoded and looked at."""
    yield from (_on_gpu if extractor.on_gpu else _on_cores)(extractor, batches)


def _on_cores(extractor: Extractor, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor]]:
    """A core a batch: cores that share one wait for each other at each layer, the longer the busier they are."""
    threads, cores = torch.get_num_threads(), extractor.at_once
    waiting: deque[tuple[Batch, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(extractor, batch.pixels)))
                if len(waiting) > cores:
                    batch, features = waiting.popleft()
                    yield batch, features.result()
            yield from ((batch, features.result()) for batch, features in waiting)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)


def _on_gpu(extractor: Extractor, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor]]:
    """One batch behind the queue: while the host waits for its features, the device has the next batch to look at."""
    waiting: deque[tuple[Batch, Tensor, torch.cuda.Event]] = deque()
    with torch.cuda.device(extractor.device):
        for batch in batches:
            waiting.append((batch, *_queued(extractor, batch)))
            if len(waiting) == extractor.at_once:
                yield _arrived(*waiting.popleft())
        yield from (_arrived(*each) for each in waiting)


def _queued(extractor: Extractor, batch: Batch) -> tuple[Tensor, torch.cuda.Event]:
    """Where the features will be, and the event after which they are; the host waits for neither."""
    features = extractor(batch.pixels.pin_memory())
    arriving = torch.empty(features.shape, pin_memory=True).copy_(features, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return arriving, event


def _arrived(batch: Batch, features: Tensor, event: torch.cuda.Event) -> tuple[Batch, Tensor]:
    event.synchronize()
    return batch, features


def _stacked(good: list[_Prepared]) -> Batch:
    return Batch(
        np.array([item.row for item in good]),
        torch.from_numpy(np.stack([item.pixels for item in good if item.pixels is not None])),
        np.array([item.white for item in good], np.float32),
    )


@contextmanager
def filling(
    extractor: Extractor,
    table: ImageTable,
    keys: UInt8[np.ndarray, "n 32"],
    shelf: Shelf,
    batch_size: int,
    workers: int,
    share: Share = WHOLE,
    shown: bool = True,
    undisturbed: Undisturbed = nobody_waits,
) -> Iterator[Missing]:
    """What a share lacks, to be looked at here and by nobody else meanwhile; all that is kept is on disk at the end.

    Raises:
        LikenessError: DISK when the rows will not fit.
    """
    mine = np.flatnonzero(share.holds(keys))
    shelf.refresh()
    alone = True
    with ExitStack() as held:
        if len(wanted := mine[_lacking(shelf, keys[mine])]):
            alone = held.enter_context(shelf.filling(share))
            shelf.refresh()
            wanted = mine[_lacking(shelf, keys[mine])]
        work = Missing(extractor, table, keys, shelf, wanted, batch_size, workers, shown, alone)
        if len(work.first):
            shelf.refuse_full_disk(len(work.first), extractor.feature_shape())
        try:
            yield work
        finally:
            with undisturbed():
                work.writer.flush()


def _lacking(shelf: Shelf, keys: np.ndarray) -> np.ndarray:
    """Which rows are missing, damaged shards counted as absent."""
    while not shelf.verify(places := shelf.find(keys)):
        pass
    return places.missing


def _first_of_each(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The first position of each distinct picture, so that copies are shown to the network once."""
    return among[np.sort(np.unique(keys[among], axis=0, return_index=True)[1])]


def _prepared(
    extractor: Extractor, table: ImageTable, keys: np.ndarray, wanted: Iterable[int], workers: int, ahead: int
) -> Iterator[_Prepared]:
    """Decoded pictures in order, prepared by threads at most ``ahead`` in advance of the network."""
    waiting: deque[Future[_Prepared]] = deque()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        try:
            for index in wanted:
                waiting.append(pool.submit(_prepare, extractor, table.path(index), keys[index].tobytes(), index))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare(extractor: Extractor, path: Path, key: bytes, index: int) -> _Prepared:
    try:
        data = patiently(path.read_bytes)
    except OSError:
        return _Prepared(index, changed=True)
    if hashlib.sha256(data).digest() != key:
        return _Prepared(index, changed=True)
    try:
        decoded = extractor.decoder.decode(data)
    except BadImage as fault:
        return _Prepared(index, bad=fault)
    pixels = extractor.preprocessing.pixels(decoded.image)
    return _Prepared(index, pixels, white_share(decoded.image), decoded.notes)


def _batches(items: Iterator[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _described(fault: BadImage, index: int, table: ImageTable) -> Bad:
    label = table.classes[table.labels[index]] if table.labels[index] >= 0 else "unlabelled"
    return Bad(str(table.paths[index]), label, fault.code, fault.cause)


def decide(bad: Mapping[int, Bad], of: int, table: ImageTable, shelf: Shelf, on_bad_image: str) -> None:
    """Name the bad ones ``of`` so many pictures, and go on or refuse to (IMG-BAD) as ``on_bad_image`` says."""
    if not bad:
        return
    lines = [
        readable(f"{table.root / fault.path}  (class {fault.label!r}): [{fault.code}] {fault.cause}")
        for fault in bad.values()
    ]
    if on_bad_image == "quarantine" and len(bad) < of:
        log.warning("[IMG-BAD] going on without %d of %d pictures:\n%s", len(bad), of, _all_named(lines, 10, shelf))
        return
    raise LikenessError(
        "IMG-BAD",
        f"{len(bad)} of {of} pictures could not be used.",
        where=_all_named(lines, 50, shelf),
        cause=", ".join(f"{count} × {code}" for code, count in sorted(Counter(f.code for f in bad.values()).items())),
        kept=f"{of - len(bad)} finished features in {shelf.folder}; nothing to redo",
        fix=_GO_ON if len(bad) < of else "Mend the files, or name others.",
    )


def _all_named(lines: Sequence[str], most: int, shelf: Shelf) -> str:
    """The first ``most`` lines; where there are more, all of them are in a file, and the last line says in which."""
    if len(lines) <= most:
        return listed(lines, most)
    path = shelf.folder / f"bad-pictures-{digest(lines)[:8]}.txt"
    try:
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
    except LikenessError as error:
        return f"{listed(lines, most)}\nthe full list cannot be written: {error.cause}"
    return f"{listed(lines, most)}\nfull list: {path}"


def _refuse_changed(changed: list[int], table: ImageTable, shelf: Shelf, written: int) -> None:
    if changed:
        raise LikenessError(
            "DATA-CHANGED",
            f"{len(changed)} pictures changed or vanished while they were read.",
            where=listed(readable(table.path(index)) for index in changed),
            kept=f"{written} features computed now, in {shelf.folder}; none of a changed picture.",
            fix="Run the same command again when nothing writes to the folder any more; if files were exchanged under\n"
            "their old time of change, with extraction.rehash=true.",
        )


def _refuse_non_finite(writer: _Writer, table: ImageTable) -> None:
    if writer.not_finite:
        raise LikenessError(
            "NAN",
            f"{len(writer.not_finite)} features are not finite.",
            where=listed(readable(table.path(index)) for index in writer.not_finite),
            cause="The network gave NaN or infinity: wrong weights, or a preprocessing that overflows them.",
            kept=f"{writer.written} finite features in {writer.shelf.folder}; no other was stored.",
            fix="Check backbone.weights and preprocessing, or leave the named pictures out.",
        )
