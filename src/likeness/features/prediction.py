"""Fill a share of the store by Lightning's predict loop, on any number of devices and nodes; nobody holds all rows."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from likeness.errors import LikenessError
from likeness.features.extraction import Batch, Extractor, Missing, decide, filling, looked_at
from likeness.features.store import WHOLE, Share, Shelf
from likeness.images.folder import ImageTable, digests
from likeness.images.ledger import Ledger

log = logging.getLogger(__name__)

_PATIENCE = timedelta(days=30)  # the usual half an hour may be over while one process waits for another job's lock
Item = TypeVar("Item")


class Filled(NamedTuple):
    """What became of the distinct pictures of a share; ``seconds`` are of looking at them, the slowest process's."""

    found: int = 0
    computed: int = 0
    bad: int = 0
    seconds: float = 0.0


class _Filling(pl.LightningModule):
    """The frozen network before the pictures of this process's part of a share; it writes their rows itself.

    The part's lock is held from the first batch to the last row: in between no process waits for another of its group,
    so that groups cannot wait for each other. For the same reason an error becomes ``fault`` and ends the batches.
    """

    def __init__(
        self,
        extractor: Extractor,
        table: ImageTable,
        shelf: Shelf,
        share: Share,
        on_bad_image: str,
        ledger: Ledger,
        **pace: int,
    ) -> None:
        super().__init__()
        assert isinstance(extractor.backbone, nn.Module)
        self.backbone = extractor.backbone  # for Lightning to move to the process's device
        self.extractor, self.table, self.shelf, self.share = extractor, table, shelf, share
        self.on_bad_image, self.ledger, self.pace = on_bad_image, ledger, pace
        self.missing: Missing | None = None
        self.filled = Filled()
        self.fault: LikenessError | None = None
        self.ends: list[tuple[Filled, LikenessError | None]] = []
        self._held = ExitStack()

    def setup(self, stage: str) -> None:
        trainer = self.trainer
        self.extractor = replace(self.extractor, device=str(trainer.strategy.root_device))
        self.share = self.share.part(trainer.global_rank, trainer.world_size)
        self.group = _Group(trainer.global_rank, trainer.world_size)
        self.keys = _shared_digests(self.group, self.table.files(), self.pace["workers"], self.ledger)

    def predict_dataloader(self) -> Iterator[tuple[Batch, Tensor]]:
        try:
            work = filling(
                self.extractor,
                self.table,
                self.keys,
                self.shelf,
                self.pace["batch_size"],
                self.pace["workers"],
                self.share,
                self.trainer.is_global_zero,
            )
            self.missing = self._held.enter_context(work)
            self.started = time.monotonic()
            for seen in looked_at(self.extractor, self.missing):
                yield seen
                if self.fault:
                    return
        except LikenessError as fault:
            self.fault = fault

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # its features are there to be written

    def predict_step(self, seen: tuple[Batch, Float32[Tensor, "b ..."]]) -> Tensor:
        assert self.missing is not None
        try:
            self.missing.keep(*seen)
        except LikenessError as fault:
            self.fault = fault
        return seen[1]

    def on_predict_end(self) -> None:
        try:
            self.close()
            if self.missing and not self.fault:
                self._sum_up(self.missing)
        except LikenessError as fault:
            self.fault = fault
        self.ends = self.group.gathered((self.filled, self.fault))

    def close(self) -> None:
        """Write what is pending and let the share go."""
        self._held.close()

    def _sum_up(self, missing: Missing) -> None:
        mine = self.keys[self.share.holds(self.keys)]
        missing.refuse_unusable()
        decide(missing.bad, len(mine), self.table, self.shelf, self.on_bad_image)
        computed, bad = missing.writer.written, missing.distinct_bad
        found = len(np.unique(mine, axis=0)) - computed - bad
        self.filled = Filled(found, computed, bad, time.monotonic() - self.started)


def fill(
    trainer: pl.Trainer,
    extractor: Extractor,
    table: ImageTable,
    store: Path,
    *,
    share: Share = WHOLE,
    on_bad_image: str = "raise",
    batch_size: int = 64,
    workers: int = 2,
    rehash: bool = False,
) -> Filled:
    """Compute what the store lacks of a share of a table's pictures; each of the trainer's processes does its part.

    Returns:
        The sums over all processes.

    Raises:
        LikenessError: As ``extract`` does; process 0 raises the first error of any process, when all have ended.
        KeyboardInterrupt: What was computed until then is kept.
    """
    shelf = Shelf(store, extractor.identity())
    ledger, pace = Ledger(store, table.root, rehash), {"batch_size": batch_size, "workers": workers}
    module = _Filling(extractor, table, shelf, share, on_bad_image, ledger, **pace)
    try:
        trainer.predict(module, return_predictions=False)
    except SystemExit as left:  # what Lightning makes of an interrupt
        raise KeyboardInterrupt from left
    finally:
        module.close()
    faults = [fault for _, fault in module.ends if fault]
    if faults and trainer.is_global_zero:
        for fault in faults[1:]:
            log.error("%s", fault)
        raise faults[0]
    found, computed, bad, seconds = zip(*(filled for filled, _ in module.ends), strict=True)
    return Filled(sum(found), sum(computed), sum(bad), max(seconds))


class _Group:
    """The trainer's processes, which wait for each other as long as it takes: one may have to wait for another job."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self._group: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if world > 1 else None

    def gathered(self, item: Item) -> list[Item]:
        """What each process has, by rank."""
        items = [item] * self.world
        if self._group is not None:
            dist.all_gather_object(items, item, self._group)
        return items


def _shared_digests(group: _Group, files: Sequence[Path], workers: int, ledger: Ledger) -> UInt8[np.ndarray, "n 32"]:
    """The files' SHA-256; each process reads a part of them and tells the others, and the first one notes them all."""
    fault, mine = None, np.empty((0, 32), np.uint8)
    try:
        mine = digests(files[group.rank :: group.world], workers, ledger)
    except LikenessError as error:
        fault = error
    parts = group.gathered((len(files), mine, fault, ledger.fresh))
    if group.rank == 0:
        for *_, fresh in parts:
            ledger.fresh |= fresh
        ledger.keep()
    for _, _, fault, _ in parts:
        if fault:
            raise fault
    if len({count for count, *_ in parts}) > 1:
        raise LikenessError(
            "DATA-CHANGED",
            "the processes found different numbers of pictures.",
            where=", ".join(f"process {rank}: {count}" for rank, (count, *_) in enumerate(parts)),
            fix="Run the same command again when nothing writes to the folder.",
        )
    keys = np.empty((len(files), 32), np.uint8)
    for rank, (_, part, *_) in enumerate(parts):
        keys[rank :: group.world] = part
    return keys
