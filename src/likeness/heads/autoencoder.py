"""The LightningModule: a head learns to rebuild clean features from noisy ones; no label is used."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchmetrics import Metric

from likeness.errors import LikenessError
from likeness.features.datamodule import Batch, Batches, Epoch, FeatureData, Shown, Split, mixed
from likeness.heads.linear import ClosedForm
from likeness.heads.noise import Noise, NoNoise
from likeness.heads.recording import Recorded, Recorder
from likeness.heads.scaling import Scaling

_ROWS_AT_ONCE = 4096
_KEPT_AS, _PROGRESS = "likeness", "likeness_progress"


class Head(Protocol):
    """What is trained: ``encode`` gives the code, ``decode`` rebuilds the scaled feature from it."""

    l1: float

    def encode(self, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b code"]: ...

    def decode(self, code: Float[Tensor, "b code"]) -> Float[Tensor, "b ..."]: ...


class Autoencoder(pl.LightningModule):
    """Scaling, noise and head; logs ``train/loss``, ``val/loss`` and, by the metric, ``val/hit@k``.

    The noise of a step follows from (seed, step), so that a resumed run draws what it would have drawn.

    Args:
        head: A trained head, or one in closed form (then only ``encode`` and ``fit_closed_form`` are of use).
        scaling: Fitted on the training rows when training starts.
        noise: What corrupts the input; validation is of clean input, except for noise that is drawn once.
        loss: Takes (rebuilt, clean), both in scaled units.
        optimizer: Takes parameters.
        scheduler: Takes the optimizer; None keeps the learning rate.
        metric: Scores the codes of the validation split.
        hits_every_n_epochs: How often, from the first validation on; the loss is measured in each.
        card: Plain values that travel in the checkpoint: what another program needs to use this head.
        recorder: Makes what records a step, where an epoch is one training step; None takes each as it is.
    """

    def __init__(
        self,
        head: nn.Module,
        scaling: Scaling,
        noise: Noise,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        metric: Metric | None = None,
        hits_every_n_epochs: int = 1,
        seed: int = 0,
        card: dict[str, Any] | None = None,
        recorder: Callable[[], Recorder] | None = None,
    ) -> None:
        super().__init__()
        self.head: Any = head
        self.scaling, self.noise, self.loss = scaling, noise, loss
        self.metric: Any = metric
        self.hits_every_n_epochs = hits_every_n_epochs
        self.seed, self.card = seed, card or {}
        self._make_optimizer, self._make_scheduler, self._make_recorder = optimizer, scheduler, recorder
        self._drawn: dict[tuple[str, int], Tensor] = {}
        self._losses: dict[str, list[tuple[Tensor, int]]] = {"train": [], "val": []}  # sum over rows, rows
        self._best_hit = float("-inf")
        self._resumed = False
        self._recorded: Recorded | None = None
        self.between_steps: Callable[[], None] = _nothing  # what a callback has to do between two batches of an epoch

    def encode(self, features: Float[Tensor, "b ..."]) -> Float[Tensor, "b code"]:
        """Codes of raw features: scaled as in training, never corrupted."""
        return self.head.encode(self.scaling(features))

    def rebuild(self, scaled: Float[Tensor, "..."]) -> tuple[Float[Tensor, "*heads b code"], Float[Tensor, "..."]]:
        code = self.head.encode(scaled)
        return code, self.head.decode(code)

    def objective(self, noisy: Float[Tensor, "..."], clean: Float[Tensor, "..."]) -> Float[Tensor, "*heads"]:
        """Reconstruction loss of the clean feature, plus the code's L1 norm where the head asks for it."""
        code, rebuilt = self.rebuild(noisy)
        assert rebuilt.shape == clean.shape, f"reconstruction {rebuilt.shape} of features {clean.shape}"
        loss = self.loss(rebuilt, clean)
        return loss + self.head.l1 * code.abs().sum(-1).mean(-1) if self.head.l1 else loss

    def on_fit_start(self) -> None:
        """Fit the scaling, once; a resumed run brings its own."""
        if not self._resumed and self.trainer.current_epoch == 0 and self.trainer.global_step == 0:
            self.scaling.fit(row_batches(self._data.training_split()))

    def on_train_start(self) -> None:
        if self._make_recorder is not None:
            self._recorded = Recorded(self._take, self.trainer.optimizers[0], self._make_recorder())

    def on_train_end(self) -> None:
        self._recorded = None

    def training_step(self, batch: Batch | Epoch, index: int) -> Float[Tensor, ""]:
        if isinstance(batch, Epoch):
            self._learn(batch)
            return torch.zeros((), device=self.device, requires_grad=True)  # for Lightning to go backward through
        loss = self.objective(*self._shown(batch))
        self._note("train", loss.detach(), batch)
        return loss.sum()

    def _learn(self, epoch: Epoch) -> None:
        """What Lightning does with each batch, without what it asks between them; it counts the last one itself."""
        loop = self.trainer.fit_loop.epoch_loop
        steps = loop.automatic_optimization.optim_progress.optimizer.step
        take = self._recorded or self._take
        if self._recorded is not None:
            self._recorded.follow()
        with torch.autocast(self.device.type, enabled=False):  # which Lightning has around the whole training step
            for batch, is_last in epoch:
                self._note("train", take(*self._shown(batch.to(self.device))), batch)
                loop.batch_progress.is_last_batch = is_last
                if not is_last:
                    steps.increment_ready()
                    steps.increment_completed()
                    self.between_steps()
                    loop._batches_that_stepped += 1

    def _take(self, noisy: Float[Tensor, "..."], clean: Float[Tensor, "..."]) -> Float[Tensor, "*heads"]:
        """One step of the optimizer, and the loss before it."""
        (optimizer,) = self.trainer.optimizers
        optimizer.zero_grad()
        with self.trainer.precision_plugin.forward_context():
            loss = self.objective(noisy, clean)
        loss.backward(torch.ones_like(loss))
        if self.trainer.gradient_clip_val is not None:
            clipping = self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
            self.configure_gradient_clipping(optimizer, *clipping)
        optimizer.step()
        return loss.detach()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """An epoch as one training step has taken its steps already."""
        if isinstance(self.trainer.train_dataloader, Batches) and self.trainer.train_dataloader.undivided:
            assert optimizer_closure is not None
            optimizer_closure()
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def validation_step(self, batch: Batch, index: int) -> None:
        clean = self._scaled(batch)
        if len(batch.position):
            noisy = self._corrupted(clean, batch, "val") if self.noise.drawn_once else clean
            self._note("val", self.objective(noisy, clean), batch)
        if self._measures_hits():
            self._remember(self.head.encode(clean).float(), batch)

    def on_train_epoch_end(self) -> None:
        self._report({"train/loss": self._mean_loss("train")})

    def on_validation_epoch_end(self) -> None:
        self._report({"val/loss": self._mean_loss("val"), **(self._hits() if self._measures_hits() else {})})

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer(self.head.parameters())
        if self._make_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._make_scheduler(optimizer), "monitor": "val/loss"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEPT_AS] = self.card
        if "optimizer_states" in checkpoint:  # to go on from, not weights alone
            checkpoint[_PROGRESS] = {"train_losses": self._gathered_losses(), "best_hit": self._best_hit}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was written: every process takes the losses that were its own."""
        progress, self._resumed = checkpoint[_PROGRESS], True
        self._best_hit = progress["best_hit"]
        own = progress["train_losses"][self.trainer.global_rank]
        self._losses["train"] = [(total, int(count.max())) for total, count in own]

    def _gathered_losses(self) -> Float[Tensor, "p n 2 *heads"]:
        """The losses of this epoch's steps so far, of every process; summed up in the same order they give the same."""
        world, own = self.trainer.world_size, self._losses["train"]
        if not own:
            return torch.zeros(world, 0, 2)
        counted = torch.stack([sum_and_count(total.to(self.device), count) for total, count in own])
        every = self.all_gather(counted)
        assert isinstance(every, Tensor)
        return every.reshape(world, *counted.shape).cpu()

    def fit_closed_form(self, split: Split) -> None:
        """Fit the scaling and a closed-form head on these rows."""
        assert isinstance(self.head, ClosedForm)
        batches = row_batches(split)
        self.scaling.fit(batches)
        self.head.fit(lambda: (self.scaling(rows) for rows in batches()))

    def _measures_hits(self) -> bool:
        validation = self.current_epoch // (self.trainer.check_val_every_n_epoch or 1)
        return self.metric is not None and validation % self.hits_every_n_epochs == 0

    @property
    def _data(self) -> FeatureData:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def _shown(self, batch: Batch | Shown) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """What the head sees of these rows in training, and what it should make of it."""
        clean = self._scaled(batch)
        return self._corrupted(clean, batch, "train"), clean

    def _note(self, split: str, loss: Float[Tensor, "*heads"], batch: Batch | Shown) -> None:
        count = batch.position.shape[-1]
        self._losses[split].append((loss * count, count))

    def _scaled(self, batch: Batch | Shown) -> Float[Tensor, "..."]:
        return self.scaling(batch.features)

    def _remember(self, codes: Float[Tensor, "..."], batch: Batch) -> None:
        update_metric(self.metric, codes, batch)

    def _hits(self) -> dict[str, Any]:
        hits = computed_hits(self.metric)
        self._best_hit = max(self._best_hit, float(hits["val/hit@1"]))
        return hits | {"val/hit@1_best": self._best_hit}

    def _report(self, values: dict[str, Any]) -> None:
        self.log_dict(values, sync_dist=True)

    def _corrupted(self, clean: Float[Tensor, "..."], batch: Batch | Shown, split: str) -> Float[Tensor, "..."]:
        return self._noisy(clean, batch.position, split, self.seed)

    def _noisy(
        self, clean: Float[Tensor, "b ..."], position: Int[Tensor, " b"], split: str, seed: int
    ) -> Float[Tensor, "b ..."]:
        """What a head of this seed sees of these rows at this step."""
        if isinstance(self.noise, NoNoise):
            return clean  # without drawing a generator for nothing
        if not self.noise.drawn_once:
            return self.noise(clean, self._generator(clean.device, seed, self.global_step))
        if (split, seed) not in self._drawn:
            whole = self._data.training_split() if split == "train" else self._data.split(split)
            every = torch.arange(len(whole))
            rows = self.scaling(whole.rows[every].to(clean.device))
            self._drawn[split, seed] = self.noise(rows, self._generator(clean.device, seed, sum(split.encode())))
        return self._drawn[split, seed][position.to(clean.device)]

    def _generator(self, device: torch.device, seed: int, step: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(mixed(seed, step, self.trainer.global_rank))

    def _seeds(self) -> list[int]:
        """Of the heads that learn here, one for each value that ``objective`` gives."""
        return [self.seed]

    def _mean_loss(self, name: str) -> Float[Tensor, "*heads"]:
        """The mean over the rows of all processes since the last call."""
        totals, counts = zip(*self._losses[name] or [(torch.zeros(()), 0)], strict=True)
        total = torch.stack([part.to(self.device) for part in totals]).sum(0)
        total, count = self.trainer.strategy.reduce(sum_and_count(total, sum(counts)), reduce_op="sum")
        self._losses[name].clear()
        found = zip(self._seeds(), (total / count).flatten().tolist(), strict=True)
        if bad := {seed: loss for seed, loss in found if not math.isfinite(loss)}:
            raise LikenessError(
                "NAN-LOSS",
                f"the {name} loss is {min(bad.values())} in epoch {self.current_epoch}, step {self.global_step}.",
                where=f"seed {', '.join(map(str, bad))}",
                cause="The optimizer diverged, or the features' scale is too large for this learning rate.",
                kept="The checkpoints of earlier epochs in the run folder's checkpoints/, and all features.",
                fix="Lower optimizer.lr, or scale the features (scaling=standardize).",
            )
        return total / count


def _nothing() -> None:
    """Nothing has to be done."""


def sum_and_count(total: Float[Tensor, "*heads"], count: int) -> Float[Tensor, "2 *heads"]:
    """Losses summed over ``count`` rows, and their number, in one tensor that can be sent and added up."""
    return torch.stack([total, torch.full_like(total, count)])


def update_metric(metric: Any, codes: Float[Tensor, "b code"], batch: Batch) -> None:
    """The codes of these rows, and what is known of them, into the metric."""
    metric.update(codes, batch.labels, batch.sample_ids, batch.homes, batch.is_query, batch.is_gallery)


def computed_hits(metric: Any) -> dict[str, Tensor]:
    """Every ``val/hit@k`` of the rows that the metric has seen, which it then forgets."""
    values = metric.compute()
    metric.reset()
    return {f"val/{name}": value for name, value in values.items() if name.startswith("hit@")}


def row_batches(split: Split) -> Callable[[], Iterable[Float[Tensor, "b ..."]]]:
    """The rows of a split in order, some thousand at a time, as often as it is called."""
    return lambda: (batch.features for batch in split.batches(_ROWS_AT_ONCE))


@torch.inference_mode()
def codes_of(encode: Callable[[Tensor], Tensor], split: Split) -> Float[Tensor, "n code"]:
    """The codes of a split's rows, in order, on the CPU."""
    return torch.cat([encode(rows).float().cpu() for rows in row_batches(split)()])
