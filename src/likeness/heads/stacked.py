"""Heads that differ by their seed alone, trained as one: a large product of matrices in place of many small ones."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from likeness.features.datamodule import Batch, Batches, Shown
from likeness.heads.autoencoder import Autoencoder, computed_hits, update_metric
from likeness.heads.noise import NoNoise

_SHOWN_BY_SEED = ("train/loss", "val/loss", "val/hit@1")


class Stack(nn.Module):
    """Heads of one make with their weights stacked; ``encode`` and ``decode`` take and give a block of rows a head.

    Only heads that still learn are in the parameters: ``learning`` has their places, in order, ``places`` the same as
    plain numbers. ``kept`` weights are of all heads: what each is to be scored with.
    """

    learning: Int[Tensor, " learning"]

    def __init__(self, heads: Sequence[Any]) -> None:
        super().__init__()
        self.l1 = heads[0].l1
        self._form = [_Called(deepcopy(heads[0])).to("meta")]  # in a list: its weights are no weights of this module
        stacked, buffers = stack_module_state(list(heads))
        assert not buffers, "a head with buffers would share them"
        self._names = list(stacked)
        for name, value in stacked.items():
            self.register_parameter(_flat(name), nn.Parameter(value.detach()))
            self.register_buffer(f"kept/{_flat(name)}", value.detach().clone())
        self.register_buffer("learning", torch.arange(len(heads)))
        self.places = list(range(len(heads)))

    def encode(self, rows: Float[Tensor, "learning b ..."]) -> Float[Tensor, "learning b code"]:
        return self._each("encode", rows)

    def decode(self, code: Float[Tensor, "learning b code"]) -> Float[Tensor, "learning b ..."]:
        return self._each("decode", code)

    def _each(self, method: str, rows: Tensor) -> Tensor:
        def one(weights: dict[str, Tensor], rows: Tensor) -> Tensor:
            return functional_call(self._form[0], weights, (method, rows))

        weights: dict[str, Tensor] = {f"head.{name}": self.get_parameter(_flat(name)) for name in self._names}
        return torch.vmap(one)(weights, rows)

    @torch.no_grad()
    def keep(self, which: Bool[Tensor, " learning"]) -> None:
        """The weights that these heads have now are those to be scored."""
        for name, value in self.named_parameters():
            self.get_buffer(f"kept/{name}")[self.learning[which]] = value[which]

    def kept(self, place: int) -> dict[str, Tensor]:
        """The state dict of the head at this place, as it would have it on its own."""
        return {name: self.get_buffer(f"kept/{_flat(name)}")[place].clone() for name in self._names}

    def drop(self, which: Bool[Tensor, " learning"], optimizer: torch.optim.Optimizer) -> None:
        """These heads learn no more: out of the parameters, and out of what the optimizer remembers of them."""
        stay = ~which
        renewed = {old: nn.Parameter(old.detach()[stay]) for old in self.parameters()}
        for name, old in list(self.named_parameters()):
            self.register_parameter(name, renewed[old])
        for group in optimizer.param_groups:
            group["params"] = [renewed[old] for old in group["params"]]
        for old, new in renewed.items():
            optimizer.state[new] = dict(_of_those(stay, optimizer.state.pop(old, {}), old.shape))
        self.learning = self.learning[stay]
        self.places = self.learning.tolist()

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """As many heads as were learning still, which no option says."""
        count = len(state.get(f"{prefix}learning", self.learning))
        for value in self.parameters():
            value.data = value.data[:count]
        self.learning = self.learning[:count]
        super()._load_from_state_dict(state, prefix, *rest)
        self.places = self.learning.tolist()


class _Called(nn.Module):
    """Makes ``encode`` and ``decode`` callable through ``forward``, the one way that ``functional_call`` knows."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, method: str, rows: Tensor) -> Tensor:
        return getattr(self.head, method)(rows)


def _flat(name: str) -> str:
    return name.replace(".", "/")  # a parameter's name must have no dot


def _of_those(
    stay: Bool[Tensor, " learning"], remembered: Mapping[str, Any], shape: torch.Size
) -> Iterator[tuple[str, Any]]:
    """An optimizer's state of one parameter: what is of its shape is cut as it is, the rest is the same for all."""
    for name, value in remembered.items():
        yield name, value[stay] if isinstance(value, Tensor) and value.shape == shape else value


class StackedAutoencoder(Autoencoder):
    """Trains each head as it would be trained alone: own order, own noise, own early stopping, own best weights.

    Logs means over all heads, one that has stopped with what it had then; and ``seed-K/train/loss``,
    ``seed-K/val/loss`` and ``seed-K/val/hit@1`` while K learns. A head that stops leaves the stack, so that the others
    go faster.

    Args:
        heads: As they would be trained alone. They differ by ``seed`` and the head's first weights; the rest is taken
            of the first. Their optimizer must treat every number on its own.
        stopping: When a head stops; None trains all to the end.
        best: Which epoch's weights a head keeps; None keeps the last.
    """

    measured: Float[Tensor, "measures heads"]  # the last value of each; NaN before the first
    waited: Int[Tensor, " heads"]  # judgements since one was better
    to_beat: Float[Tensor, " heads"]
    best_value: Float[Tensor, " heads"]
    best_epoch: Int[Tensor, " heads"]  # whose weights are kept; -1 where none was judged
    epochs: Int[Tensor, " heads"]  # that each has learned

    def __init__(
        self, heads: Sequence[Autoencoder], stopping: EarlyStopping | None = None, best: ModelCheckpoint | None = None
    ) -> None:
        first = heads[0]
        super().__init__(
            Stack([each.head for each in heads]),
            first.scaling,
            first.noise,
            torch.vmap(first.loss),
            first._make_optimizer,
            first._make_scheduler,
            hits_every_n_epochs=first.hits_every_n_epochs,
            seed=first.seed,
            card=first.card | {"seeds": [each.seed for each in heads]},
            recorder=first._make_recorder,
        )
        if first.metric is not None:
            self.metric = nn.ModuleList([each.metric for each in heads])
        self._stopping, self._best = stopping, best
        self._seed_of = [each.seed for each in heads]
        hits = [] if first.metric is None else [*(f"val/hit@{k}" for k in first.metric.options.ks), "val/hit@1_best"]
        self._measures = ["train/loss", "val/loss", *hits]
        self._fresh: set[str] = set()
        self.register_buffer("measured", torch.full((len(self._measures), len(heads)), torch.nan))
        self.register_buffer("waited", torch.zeros(len(heads), dtype=torch.long))
        self.register_buffer("to_beat", torch.full((len(heads),), _worst(stopping)))
        self.register_buffer("best_value", torch.full((len(heads),), _worst(best)))
        self.register_buffer("best_epoch", torch.full((len(heads),), -1))
        self.register_buffer("epochs", torch.zeros(len(heads), dtype=torch.long))

    def on_train_start(self) -> None:
        super().on_train_start()
        self._follow()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.epochs[self.head.learning] = self.current_epoch + 1
        if self._best and self._best.monitor in self._fresh:
            self._keep_best(self._best)
        if self._stopping and self._stopping.monitor in self._fresh:
            self._stop(self._stops(self._stopping))
        self._fresh.clear()

    @torch.no_grad()
    def give_back(self, heads: Sequence[Autoencoder]) -> None:
        """Load what each head is to be scored with, its best weights or else its last, into the heads given."""
        self.head.keep(self.best_epoch[self.head.learning] < 0)
        for place, each in enumerate(heads):
            each.head.load_state_dict(self.head.kept(place), assign=True)  # of the precision that was trained in
            each.scaling.load_state_dict(deepcopy(self.scaling.state_dict()), assign=True)

    def _seeds(self) -> list[int]:
        return [self._seed_of[place] for place in self.head.places]

    def _follow(self) -> None:
        """The training order is that of the heads that still learn."""
        cast(Batches, self.trainer.train_dataloader).seed = self._seeds()

    def _scaled(self, batch: Batch | Shown) -> Float[Tensor, "learning b ..."]:
        """A training batch has rows for each head; of a validation batch each head gets all."""
        if batch.position.ndim == 1:
            return self.scaling(batch.features).expand(len(self.head.places), *batch.features.shape)
        return self.scaling(batch.features.flatten(0, 1)).reshape(batch.features.shape)

    def _corrupted(self, clean: Float[Tensor, "..."], batch: Batch | Shown, split: str) -> Float[Tensor, "..."]:
        if isinstance(self.noise, NoNoise):
            return clean
        positions = batch.position.expand(clean.shape[:2])
        each = zip(clean, positions, self._seeds(), strict=True)
        return torch.stack([self._noisy(rows, position, split, seed) for rows, position, seed in each])

    def _remember(self, codes: Float[Tensor, "..."], batch: Batch) -> None:
        for place, own in zip(self.head.places, codes, strict=True):
            update_metric(self.metric[place], own, batch)

    def _hits(self) -> dict[str, Any]:
        each = [computed_hits(self.metric[place]) for place in self.head.places]
        hits = {name: torch.stack([found[name] for found in each]) for name in each[0]}
        so_far = self._last("val/hit@1_best")
        return hits | {"val/hit@1_best": torch.fmax(hits["val/hit@1"].to(so_far), so_far)}

    def _last(self, measure: str) -> Float[Tensor, " learning"]:
        return self.measured[self._measures.index(measure), self.head.learning]

    def _report(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            row = self.measured[self._measures.index(name)]
            row[self.head.learning] = value.to(row)
            self.log(name, row.mean())
            if name in _SHOWN_BY_SEED:
                self.log_dict({f"seed-{seed}/{name}": own for seed, own in zip(self._seeds(), value, strict=True)})
        self._fresh |= values.keys()

    def _keep_best(self, rule: ModelCheckpoint) -> None:
        """As ``ModelCheckpoint``: the first epoch is the best so far, then whichever is strictly better."""
        at, better_than = self.head.learning, operator.lt if rule.mode == "min" else operator.gt
        value = self._last(str(rule.monitor)).nan_to_num(nan=_worst(rule))
        better = better_than(value, self.best_value[at]) | (self.best_epoch[at] < 0)
        self.best_value[at[better]] = value[better]
        self.best_epoch[at[better]] = self.current_epoch
        self.head.keep(better)

    def _stops(self, rule: EarlyStopping) -> Bool[Tensor, " learning"]:
        """As ``EarlyStopping``, whose ``min_delta`` has its sign already."""
        at, value, better_than = self.head.learning, self._last(rule.monitor), rule.monitor_op
        better = better_than(value - rule.min_delta, self.to_beat[at])
        self.to_beat[at] = torch.where(better, value, self.to_beat[at])
        self.waited[at] = torch.where(better, 0, self.waited[at] + 1)
        stops = self.waited[at] >= rule.patience
        if rule.check_finite:
            stops = stops | ~value.isfinite()
        if rule.stopping_threshold is not None:
            stops = stops | better_than(value, torch.full_like(value, rule.stopping_threshold))
        if rule.divergence_threshold is not None:
            stops = stops | better_than(-value, torch.full_like(value, -rule.divergence_threshold))
        return stops

    def _stop(self, stops: Bool[Tensor, " learning"]) -> None:
        if self._best is None:
            self.head.keep(stops)
        if stops.all():
            self.trainer.should_stop = True
        elif stops.any():
            self.head.drop(stops, self.trainer.optimizers[0])
            self._drawn = {(split, seed): rows for (split, seed), rows in self._drawn.items() if seed in self._seeds()}
            self._follow()


def _worst(rule: EarlyStopping | ModelCheckpoint | None) -> float:
    return -torch.inf if rule is not None and rule.mode == "max" else torch.inf
