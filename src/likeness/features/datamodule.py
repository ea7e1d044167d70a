"""Features as Lightning sees them: whole batches cut from one tensor, in an order that the seed and epoch decide."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float, Int
from pytorch_lightning.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch import Tensor

from likeness.features.extraction import Features
from likeness.features.store import MappedRows, Rows
from likeness.files import digest

TRAINING_SPLITS = ("train", "unlabelled")
_ROWS_TO_JUDGE, _BYTES_TO_JUDGE = 4096, 16 << 20
_HOOKS_OF_A_BATCH = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


class Batch(NamedTuple):
    """Rows of one split. ``position`` is the row's place in its split; ids, labels and homes are the table's.

    ``*heads`` is nothing, or the number of heads that learn at once, each from rows of its own.
    """

    features: Float[Tensor, "..."]
    position: Int[Tensor, "*heads b"]
    labels: Int[Tensor, "*heads b"]
    sample_ids: Int[Tensor, "*heads b"]
    homes: Int[Tensor, "*heads b"]
    is_query: Bool[Tensor, "*heads b"]
    is_gallery: Bool[Tensor, "*heads b"]


class Shown(NamedTuple):
    """Rows as a head learns from them: of what else is known it is told nothing."""

    features: Float[Tensor, "..."]
    position: Int[Tensor, "*heads b"]

    def to(self, device: torch.device) -> "Shown":
        return Shown(*(sent(part, device) for part in self))


@dataclass(frozen=True)
class Split:
    """The rows of one split and what is known of them; indexing by positions gives a batch."""

    rows: Rows
    labels: Int[Tensor, " n"]
    sample_ids: Int[Tensor, " n"]
    homes: Int[Tensor, " n"]
    is_query: Bool[Tensor, " n"]
    is_gallery: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: Int[Tensor, "*heads b"]) -> Batch:
        facts = (self.labels, self.sample_ids, self.homes, self.is_query, self.is_gallery)
        return Batch(rows_at(self.rows, position), position, *(fact[position] for fact in facts))

    def to(self, device: torch.device) -> "Split":
        """The split on ``device``; memory-mapped rows stay on disk, the facts with them."""
        if isinstance(self.rows, MappedRows):
            return self
        return Split(*(value.to(device) for value in vars(self).values()))

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[torch.arange(start, min(start + size, len(self)), device=self.labels.device)]


class Epoch:
    """All batches of an epoch, for a training step that goes through them on its own."""

    def __init__(self, batches: "Batches") -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[tuple[Shown, bool]]:
        """The rows of each batch, and whether it is the last."""
        rows = self._batches.split.rows
        return ((Shown(rows_at(rows, at), at), self._batches.is_last) for at in self._batches.positions())


class Batches:
    """The batches of a split: in order, or shuffled by (seed, epoch); every process takes its own share of each.

    A process takes every ``world``-th row from its rank on. Nothing is padded: shares differ by a row at most.

    Args:
        split: The rows.
        size: Rows a batch, over all processes together.
        seed: Of the order; None keeps the rows in order. Several seeds give batches of [heads, b] rows: for each seed
            those that it alone would give.
        undivided: Give out an ``Epoch`` with all its batches as if it were one batch.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        seed: int | Sequence[int] | None = None,
        rank: int = 0,
        world: int = 1,
        undivided: bool = False,
    ) -> None:
        self.split, self.size, self.seed, self.rank, self.world = split, size, seed, rank, world
        self.undivided = undivided
        self.epoch = 0
        self._first = self._taken = 0
        self.sampler, self.batch_sampler = self, None  # Lightning tells ``loader.sampler`` the epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return min(self.count, 1) if self.undivided else self.count

    @property
    def count(self) -> int:
        """Batches in an epoch.

        A last one too small to give every process a row is dropped when training, so that none waits for ever.
        """
        whole, rest = divmod(len(self.split), self.size)
        return whole + (rest >= self.world if self.seed is not None else rest > 0)

    def __iter__(self) -> Iterator[Any]:
        if self.undivided:
            return iter([Epoch(self)] if len(self) else [])
        return (self.split[position] for position in self.positions())

    def positions(self) -> Iterator[Int[Tensor, "*heads b"]]:
        """The rows of each batch of an epoch that has not been given out."""
        first, self._first = self._first, 0
        order = self._order()
        for number in range(first, self.count):
            self._taken = number + 1
            yield order[..., number * self.size : self._taken * self.size][..., self.rank :: self.world]

    @property
    def is_last(self) -> bool:
        """Whether the batch that was given out is the epoch's last."""
        return self._taken == self.count

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch were given out; Lightning keeps it in a checkpoint."""
        return {"taken": self._taken % max(self.count, 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration starts after as many batches as had been given out."""
        self._first = state["taken"]

    def _order(self) -> Int[Tensor, "*heads n"]:
        device = self.split.labels.device
        if self.seed is None:
            return torch.arange(len(self.split), device=device)
        if isinstance(self.seed, int):
            return sent(self._shuffled(self.seed), device)
        return sent(torch.stack([self._shuffled(seed) for seed in self.seed]), device)

    def _shuffled(self, seed: int) -> Int[Tensor, " n"]:
        generator = torch.Generator().manual_seed(mixed(seed, self.epoch))
        return torch.randperm(len(self.split), generator=generator)


def rows_at(rows: Rows, position: Int[Tensor, "*heads b"]) -> Float[Tensor, "..."]:
    """``rows[position]``; of a tensor on a CPU in a third of the time that indexing takes."""
    if isinstance(rows, MappedRows):
        return rows[position]
    return rows.index_select(0, position.flatten()).unflatten(0, position.shape)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; this process does not wait for a GPU to have it."""
    if tensor.device.type == device.type:
        return tensor
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def mixed(*numbers: int) -> int:
    """One seed from several numbers, so that neighbouring seeds and steps share nothing."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class FeatureData(pl.LightningDataModule):
    """Serves features by split. Training takes the train split, and the unlabelled pictures where there are any.

    Args:
        features: The table and its rows.
        batch_size: Rows a step, over all processes.
        seed: Of the training order.
    """

    def __init__(self, features: Features, batch_size: int, seed: int) -> None:
        super().__init__()
        self.features, self.batch_size, self.seed = features, batch_size, seed
        self.classes = features.table.classes
        self._splits: dict[str, Split] = {}

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return tuple(self.features.rows.shape[1:])

    def digest(self) -> str:
        """One text for what a head can learn and be chosen by: which pictures, their labels and splits."""
        table = self.features.table
        parts = (self.features.keys, table.labels, table.splits, table.homes)
        return digest([hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts])

    def split(self, *names: str) -> Split:
        """The rows whose split is one of ``names``, in the table's order."""
        key = "+".join(names)
        if key not in self._splits:
            self._splits[key] = _chosen(self.features, np.flatnonzero(np.isin(self.features.table.splits, names)))
        return self._splits[key]

    def training_split(self) -> Split:
        return self.split(*TRAINING_SPLITS)

    def train_dataloader(self) -> Batches:
        split, size, trainer = self.training_split(), self.batch_size, self.trainer
        if trainer is None:
            return Batches(split, size, self.seed)
        split, rank, world = split.to(trainer.strategy.root_device), trainer.global_rank, trainer.world_size
        return Batches(split, size, self.seed, rank, world, undivided=asks_nothing_within_an_epoch(trainer))

    def val_dataloader(self) -> Batches:
        """In batches as large as is good for the caches: nothing is learned from them."""
        split, trainer = self.split("val"), self.trainer
        size = max(self.batch_size, min(_ROWS_TO_JUDGE, _BYTES_TO_JUDGE // (4 * prod(self.feature_shape))))
        if trainer is None:
            return Batches(split, size)
        return Batches(split.to(trainer.strategy.root_device), size, None, trainer.global_rank, trainer.world_size)


def asks_nothing_within_an_epoch(trainer: pl.Trainer) -> bool:
    """Whether an epoch may be one training step: no option and no callback wants a word between two batches.

    A callback that has one another way says so by ``asks_between_steps``.
    """
    return (
        trainer.world_size == 1
        and trainer.accumulate_grad_batches == 1
        and trainer.precision in ("32-true", "bf16-mixed")
        and trainer.max_steps == -1
        and not trainer.fast_dev_run  # type: ignore[attr-defined]
        and not trainer.overfit_batches  # type: ignore[attr-defined]
        and all(_is_whole(part) for part in (trainer.limit_train_batches, trainer.val_check_interval))
        and not any(_asks_within_an_epoch(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    )


def _is_whole(part: Any) -> bool:
    return isinstance(part, float) and part == 1.0


def _asks_within_an_epoch(callback: pl.Callback) -> bool:
    if getattr(callback, "asks_between_steps", False):
        return False
    if isinstance(callback, ModelCheckpoint) and not (callback._every_n_train_steps or callback._train_time_interval):
        return False
    own = (getattr(type(callback), hook) is not getattr(pl.Callback, hook) for hook in _HOOKS_OF_A_BATCH)
    return isinstance(callback, GradientAccumulationScheduler) or any(own)


def _chosen(features: Features, at: np.ndarray) -> Split:
    table = features.table.take(at)
    facts = (table.labels, table.sample_ids, table.homes, table.is_query, table.is_gallery)
    rows = features.rows
    chosen = rows.chosen(at) if isinstance(rows, MappedRows) else rows[torch.from_numpy(at)]
    return Split(chosen, *(torch.from_numpy(np.ascontiguousarray(fact)) for fact in facts))
