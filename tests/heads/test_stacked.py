"""Stacked heads are the heads that single runs would train: every case is compared with those very runs."""

import math
import warnings
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from torch import nn

from likeness.errors import LikenessError
from likeness.features.datamodule import Batches, FeatureData
from likeness.features.extraction import Features
from likeness.features.store import MappedRows, Places
from likeness.heads.autoencoder import Autoencoder, codes_of
from likeness.heads.conv import Conv
from likeness.heads.dense import Dense
from likeness.heads.loss import CosineLoss
from likeness.heads.noise import Gaussian, GaussianAsPublished, Masking, NoNoise, SaltAndPepper
from likeness.heads.scaling import Scaling
from likeness.heads.stacked import Stack, StackedAutoencoder
from likeness.images.table import Row, tabulate
from likeness.retrieval.metric import SimilarityRetrieval

SEEDS = (5, 6, 7)
ADAMW = (torch.optim.AdamW, {"lr": 0.03, "weight_decay": 0.1})
ADADELTA = (torch.optim.Adadelta, {"lr": 1.0, "rho": 0.95, "eps": 1e-7})
SGD = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})


def data_of(shape: tuple[int, ...] = (9,)) -> FeatureData:
    """41 rows to train on, 24 for val, three classes that overlap; 41 = 2 × 16 + 9, so that a batch is cut."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(65) % 3
    centres = torch.randn(3, math.prod(shape), generator=generator)
    rows = (centres[labels] + torch.randn(65, math.prod(shape), generator=generator)).reshape(65, *shape)
    listed = [Row(f"{i:02d}", "abc"[label], "train" if i < 41 else "val") for i, label in enumerate(labels.tolist())]
    table = tabulate(Path("/x"), listed, 0, (0.6, 0.2, 0.2))
    return FeatureData(Features(table, rows, np.zeros((65, 32), np.uint8), 0, 65), batch_size=16, seed=0)


def head_of(
    seed: int, noise=None, optimizer=ADAMW, loss=None, scaling="standardize", shape=(9,), make=Dense, **options
):
    torch.manual_seed(seed)
    kind, given = optimizer
    return Autoencoder(
        head=make(shape, **options),
        scaling=Scaling(shape, scaling),
        noise=deepcopy(noise) or NoNoise(),
        loss=deepcopy(loss) or nn.MSELoss(),
        optimizer=lambda parameters: kind(parameters, **given),
        metric=SimilarityRetrieval(ks=(1, 5), map_at_r=False),
        seed=seed,
    )


class Epochs(Checkpoint):
    """What was logged in each epoch; as a checkpoint it comes last."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, module):
        self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(module, data, epochs, callbacks, left=None, **options) -> tuple[pl.Trainer, list[dict[str, float]]]:
    epochs_seen = Epochs()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        num_sanity_val_steps=0,
        callbacks=[*callbacks, epochs_seen],
        **quiet,
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(srun|Checkpoint directory|monitor condition).*")
        trainer.fit(module, data, ckpt_path=left, weights_only=True if left else None)
    return trainer, epochs_seen.seen


class Trained(NamedTuple):
    weights: dict[str, torch.Tensor]
    codes: torch.Tensor
    losses: list[tuple[float, float, float]]
    epochs: int
    best_epoch: int


def shown(epochs, prefix="") -> list[tuple[float, float, float]]:
    names = [f"{prefix}{name}" for name in ("train/loss", "val/loss", "val/hit@1")]
    return [tuple(epoch[name] for name in names) for epoch in epochs]


def trained_alone(folder, seed, data, epochs, stopping, best, trainer, **options) -> Trained:
    module, data = head_of(seed, **options), deepcopy(data)
    data.seed = seed
    kept = [ModelCheckpoint(folder, f"best-{seed}", "val/loss", save_weights_only=True)] if best else []
    rules = [EarlyStopping("val/loss", **stopping)] if stopping else []
    done, seen = fit(module, data, epochs, [*rules, *kept], **trainer)
    best_epoch = -1
    if best:
        content = torch.load(kept[0].best_model_path, weights_only=True)
        module.load_state_dict(content["state_dict"])
        best_epoch = content["epoch"]
    codes = codes_of(module.eval().encode, data.split("val"))
    return Trained(module.state_dict(), codes, shown(seen), done.current_epoch, best_epoch)


def trained_together(seeds, data, epochs, stopping, best, trainer, **options) -> list[Trained]:
    heads, data = [head_of(seed, **options) for seed in seeds], deepcopy(data)
    rules = EarlyStopping("val/loss", **stopping) if stopping else None, ModelCheckpoint(monitor="val/loss")
    stack = StackedAutoencoder(heads, rules[0], rules[1] if best else None)
    _, seen = fit(stack, data, epochs, [], **trainer)
    stack.give_back(heads)
    found = []
    for place, (seed, head) in enumerate(zip(seeds, heads, strict=True)):
        own, last = f"seed-{seed}/", int(stack.epochs[place])
        codes = codes_of(head.eval().encode, data.split("val"))
        found.append(Trained(head.state_dict(), codes, shown(seen[:last], own), last, int(stack.best_epoch[place])))
    return found


def check(folder, epochs=4, stopping=None, best=True, shape=(9,), trainer=None, **options) -> list[Trained]:
    """Trains alone and together and compares all that a run can show; gives what was trained together."""
    data, trainer = data_of(shape), trainer or {}
    together = trained_together(SEEDS, data, epochs, stopping, best, trainer, shape=shape, **options)
    for seed, found in zip(SEEDS, together, strict=True):
        alone = trained_alone(folder, seed, data, epochs, stopping, best, trainer, shape=shape, **options)
        assert found.weights.keys() == alone.weights.keys()
        for name, value in alone.weights.items():
            torch.testing.assert_close(found.weights[name], value, atol=1e-5, rtol=1e-5, msg=name)
        torch.testing.assert_close(found.codes, alone.codes, atol=1e-5, rtol=1e-5)
        assert (found.epochs, found.best_epoch) == (alone.epochs, alone.best_epoch)
        np.testing.assert_allclose(found.losses, alone.losses, atol=1e-5)
    return together


HEADS = {
    "one layer": {"widths": [3]},
    "three layers, tied, l1": {"widths": [8, 6, 3], "tied": True, "l1": 0.01, "activation": "elu"},
    "three layers": {"widths": [8, 6, 3], "code_activation": "softmax", "output_activation": "tanh"},
}


@pytest.mark.parametrize("optimizer", [ADAMW, ADADELTA, SGD], ids=["adamw", "adadelta", "sgd"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_stacked_heads_are_those_of_single_runs(head, optimizer, tmp_path):
    check(tmp_path, optimizer=optimizer, **head)


NOISES = [Gaussian(0.3), Masking(0.3), SaltAndPepper(0.3), GaussianAsPublished(0.3)]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_each_head_has_its_own_noise(noise, tmp_path):
    check(tmp_path, epochs=3, noise=noise, widths=[4])


@pytest.mark.parametrize("scaling", ["none", "max_abs", "l2", "root"])
def test_every_row_is_scaled_on_its_own(scaling, tmp_path):
    check(tmp_path, epochs=2, scaling=scaling, widths=[4])


@pytest.mark.parametrize("loss", [CosineLoss(), nn.HuberLoss()], ids=lambda loss: type(loss).__name__)
def test_every_loss_is_a_loss_a_head(loss, tmp_path):
    check(tmp_path, epochs=2, loss=loss, widths=[4])


def test_the_precision_is_that_of_training(tmp_path):
    found = check(tmp_path, epochs=2, trainer={"precision": "64-true"}, widths=[4])
    assert all(value.dtype is torch.float64 for each in found for value in each.weights.values())


def test_convolutions_are_stacked_too(tmp_path):
    check(tmp_path, epochs=2, shape=(3, 5, 5), make=Conv, channels=[6, 4], noise=Gaussian(0.1))


FAST_ADADELTA = (torch.optim.Adadelta, {"lr": 5.0, "eps": 1e-5})
DIVERGING = (torch.optim.SGD, {"lr": 0.6, "momentum": 0.9})


@pytest.mark.parametrize("best", [True, False], ids=["best weights", "last weights"])
@pytest.mark.parametrize("optimizer", [ADAMW, FAST_ADADELTA, DIVERGING], ids=["adamw", "adadelta", "sgd"])
def test_each_head_stops_when_it_would_alone(optimizer, best, tmp_path):
    """They stop in different epochs; the optimizers' memories of the others are untouched by it."""
    rule = {"patience": 2, "min_delta": 0.002}
    found = check(tmp_path, 40, rule, best, optimizer=optimizer, noise=GaussianAsPublished(0.5), widths=[4])
    epochs = [each.epochs for each in found]
    assert len(set(epochs)) > 1, epochs
    assert min(epochs) < 40


def test_a_validation_every_other_epoch_judges_every_other_epoch(tmp_path):
    rule = {"patience": 1, "min_delta": 0.01}
    heads = [head_of(seed, widths=[4]) for seed in SEEDS]
    stack = StackedAutoencoder(heads, EarlyStopping("val/loss", **rule), ModelCheckpoint(monitor="val/loss"))
    fit(stack, data_of(), 30, [], check_val_every_n_epoch=2)
    for place, seed in enumerate(SEEDS):
        data, alone = data_of(), head_of(seed, widths=[4])
        data.seed = seed
        done, _ = fit(alone, data, 30, [EarlyStopping("val/loss", **rule)], check_val_every_n_epoch=2)
        assert int(stack.epochs[place]) == done.current_epoch < 30


@pytest.mark.parametrize(
    "rule",
    [
        {"monitor": "val/hit@1", "mode": "max", "patience": 2},
        {"monitor": "train/loss", "patience": 3, "min_delta": 0.05},
        {"monitor": "val/loss", "stopping_threshold": 0.9},
        {"monitor": "val/loss", "divergence_threshold": 0.95, "patience": 9},
    ],
    ids=lambda rule: " ".join(map(str, rule.values())),
)
def test_every_rule_of_early_stopping_is_lightnings(rule):
    heads = [head_of(seed, widths=[4]) for seed in SEEDS]
    stack = StackedAutoencoder(heads, EarlyStopping(**rule))
    fit(stack, data_of(), 12, [])
    for place, seed in enumerate(SEEDS):
        data = data_of()
        data.seed = seed
        done, _ = fit(head_of(seed, widths=[4]), data, 12, [EarlyStopping(**rule)])
        assert int(stack.epochs[place]) == done.current_epoch


def test_heads_do_not_influence_each_other():
    """Another neighbour, and fewer of them, change nothing."""
    options = {"epochs": 6, "stopping": {"patience": 1, "min_delta": 0.01}, "best": True, "trainer": {}}
    options |= {"widths": [4], "noise": Gaussian(0.3)}
    first = trained_together((5, 6, 7), data_of(), **options)[1]
    other = trained_together((8, 6, 9), data_of(), **options)[1]
    fewer = trained_together((6, 9), data_of(), **options)[0]
    for found in (other, fewer):
        for name, value in first.weights.items():
            torch.testing.assert_close(found.weights[name], value, atol=1e-6, rtol=0)
        assert (found.epochs, found.best_epoch) == (first.epochs, first.best_epoch)


def test_a_stack_logs_the_mean_of_all_and_each_that_learns():
    heads = [head_of(seed, widths=[4], noise=GaussianAsPublished(0.5)) for seed in SEEDS]
    stack = StackedAutoencoder(heads, EarlyStopping("val/loss", patience=2, min_delta=0.002))
    _, seen = fit(stack, data_of(), 40, [])
    last = {seed: seen[int(stack.epochs[place]) - 1][f"seed-{seed}/val/loss"] for place, seed in enumerate(SEEDS)}
    assert seen[0]["val/loss"] == pytest.approx(np.mean([seen[0][f"seed-{seed}/val/loss"] for seed in SEEDS]))
    assert seen[-1]["val/loss"] == pytest.approx(np.mean(list(last.values())))
    best = [max(epoch[f"seed-{seed}/val/hit@1"] for epoch in seen) for seed in SEEDS]
    assert seen[-1]["val/hit@1_best"] == pytest.approx(np.mean(best))


def test_training_goes_on_from_a_checkpoint_where_it_was_left(tmp_path):
    """Some heads have stopped by then: what is kept of them, and the optimizer's memory, is in the checkpoint."""

    def stack():
        heads = [head_of(seed, widths=[4], noise=GaussianAsPublished(0.5)) for seed in SEEDS]
        rule = EarlyStopping("val/loss", patience=2, min_delta=0.002)
        return heads, StackedAutoencoder(heads, rule, ModelCheckpoint(monitor="val/loss"))

    heads, whole = stack()
    fit(whole, data_of(), 40, [])
    whole.give_back(heads)
    at = int(whole.epochs.sort().values[:2].float().mean())
    assert whole.epochs.min() <= at < whole.epochs.max()
    _, begun = stack()
    trainer, _ = fit(begun, data_of(), at, [])
    trainer.save_checkpoint(tmp_path / "left.ckpt")
    again, gone_on = stack()
    fit(gone_on, data_of(), 40, [], left=tmp_path / "left.ckpt")
    gone_on.give_back(again)
    assert torch.equal(gone_on.epochs, whole.epochs)
    assert torch.equal(gone_on.best_epoch, whole.best_epoch)
    for first, second in zip(heads, again, strict=True):
        for name, value in first.state_dict().items():
            torch.testing.assert_close(second.state_dict()[name], value, atol=1e-6, rtol=0)


def test_a_loss_that_is_not_finite_names_the_seed():
    heads = [head_of(seed, widths=[4]) for seed in SEEDS]
    with torch.no_grad():
        heads[1].head.encoder[0].bias.fill_(torch.nan)
    with pytest.raises(LikenessError, match="the val loss is nan in epoch 0") as refusal:
        fit(StackedAutoencoder(heads), data_of(), 2, [])
    assert (refusal.value.code, refusal.value.where) == ("NAN-LOSS", "seed 6")


def test_a_stack_is_its_heads_side_by_side():
    heads = [Dense((4,), widths=[3, 2]) for _ in range(3)]
    stack = Stack(heads)
    rows = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
    for head, own, code in zip(heads, rows, stack.encode(rows), strict=True):
        torch.testing.assert_close(code, head.encode(own))
    optimizer = torch.optim.SGD(stack.parameters(), lr=0.1)
    stack.drop(torch.tensor([False, True, False]), optimizer)
    assert (stack.places, stack.learning.tolist()) == ([0, 2], [0, 2])
    torch.testing.assert_close(stack.encode(rows[[0, 2]])[1], heads[2].encode(rows[2]))
    assert optimizer.param_groups[0]["params"] == list(stack.parameters())
    assert all(torch.equal(stack.kept(1)[name], value) for name, value in heads[1].state_dict().items())


def test_batches_of_several_seeds_are_those_of_each():
    split = data_of().training_split()
    together = Batches(split, 16, [3, 4])
    together.set_epoch(2)
    for place, seed in enumerate((3, 4)):
        alone = Batches(split, 16, seed)
        alone.set_epoch(2)
        for both, own in zip(together, alone, strict=True):
            assert torch.equal(both.position[place], own.position)
            assert torch.equal(both.features[place], own.features)


def test_rows_on_disk_give_batches_of_several_seeds():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    mapped = MappedRows([rows[:4], rows[4:]], Places(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 0, 1])))
    at = torch.tensor([[5, 0], [2, 4]])
    assert mapped[at].tolist() == [[[10, 11], [0, 1]], [[4, 5], [8, 9]]]
