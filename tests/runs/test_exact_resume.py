"""Training that was cut at any batch and went on ends bit for bit as training that was not."""

import signal
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import ROOT
from hydra import compose, initialize_config_dir

from likeness import assembly
from likeness.config import checked, register
from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Extractor, Features
from likeness.heads.autoencoder import Autoencoder
from likeness.images.decoding import Decoder
from likeness.images.preprocessing import Preprocessing
from likeness.images.table import Row, tabulate
from likeness.runs import preemption
from likeness.runs.checkpoint import newest_checkpoint, open_checkpoint, step_of
from likeness.runs.folder import RunFolder
from likeness.runs.journal import epochs, read

BATCHES = 3  # an epoch: 40 rows in batches of 16, 16 and 8


class Shaped:
    """Stands for a backbone that is never asked for a feature."""

    def __call__(self, pictures):
        raise AssertionError("no picture is looked at here")

    def policy(self) -> dict:
        return {"network": "none", "weights": "none"}

    def feature_shape(self, size: int) -> tuple[int, ...]:
        return (9,)


def drawn(seed: int = 0) -> FeatureData:
    """40 rows to train on and 20 for val, of three classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    rows = rng.normal(size=(60, 9)) + rng.normal(size=(3, 9))[labels]
    listed = [Row(f"{i:02d}", "abc"[label], "train" if i < 40 else "val") for i, label in enumerate(labels)]
    keys = rng.integers(0, 256, (60, 32)).astype(np.uint8)
    features = Features(
        tabulate(Path("/none"), listed, 0, (0.6, 0.2, 0.2)), torch.from_numpy(rows.astype(np.float32)), keys, 0, 60
    )
    return FeatureData(features, batch_size=16, seed=0)


def config_of(*overrides: str) -> dict:
    register()
    always = ("data=folder", "data.root=/none", "trainer.accelerator=cpu", "architecture=dense", "batch_size=16")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return checked(
            compose("train", [*always, "architecture.widths=[4]", "logger=none", "trainer.max_epochs=3", *overrides])
        )


class RaisedAt(pl.Callback):
    """A signal arrives while batch ``at`` is computed, as it may at any time; each batch it saw is in ``seen``."""

    def __init__(self, at: int | None = None, sent: signal.Signals = signal.SIGUSR1) -> None:
        self.at, self.sent, self.seen = at, sent, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append(trainer.current_epoch * BATCHES + batch_idx + 1)
        if self.seen[-1] == self.at:
            signal.raise_signal(self.sent)


def train(config: dict, path: Path, watcher: RaisedAt, data: FeatureData | None = None) -> tuple:
    """A run as train.py assembles it, up to the head that is scored."""
    data = data or drawn()
    folder = RunFolder(path, config)
    extractor = Extractor(Decoder(), Preprocessing(size=8, mean=[0.0] * 3, std=[1.0] * 3), Shaped())
    card = assembly.build_card(config, {"architecture": "x", "backbone": "y"}, extractor, data)
    module = assembly.build_head(config, data.feature_shape, card)
    trainer = assembly.build_trainer(config, folder)
    trainer.callbacks.insert(0, watcher)
    with preemption.listening():
        assembly.fit(trainer, module, data, folder)
    return module, trainer, epochs(read(folder.journal.path))


def cut(config: dict, path: Path, at: int, sent: signal.Signals = signal.SIGUSR1) -> list[int]:
    """Train until a signal in batch ``at`` has been answered; the batches that were seen."""
    with pytest.raises(preemption.Preempted) as end:
        train(config, path, watcher := RaisedAt(at, sent))
    newest = newest_checkpoint(path / "checkpoints")
    assert newest is not None
    assert (end.value.sent, end.value.step) == (sent, step_of(newest))
    return watcher.seen


def assert_same_tensors(one, other, at: str = "") -> None:
    """Equal bit for bit, through all nesting."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), at
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one:
            assert_same_tensors(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), at
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_tensors(a, b, f"{at}[{index}]")
    else:
        assert one == other, at


def state_at_the_end(path: Path) -> dict:
    """What the last checkpoint of a finished training holds of optimizer, scheduler, early stopping and the module."""
    content = open_checkpoint(newest_checkpoint(path / "checkpoints"))
    stopping = {name: state for name, state in content["callbacks"].items() if name.startswith("EarlyStopping")}
    names = ("state_dict", "optimizer_states", "lr_schedulers", "likeness_progress", "epoch", "global_step")
    return {name: content[name] for name in names} | {"stopping": stopping}


VARIANTS = [
    ["optimizer=adamw", "noise=gaussian", "scheduler=cosine", "scaling=standardize"],
    ["optimizer=adadelta", "noise=masking", "scheduler=plateau", "scheduler.patience=0", "optimizer.lr=3"],
    ["optimizer=adamw", "noise=gaussian_as_published", "scaling=max_abs", "callbacks=last_weights"],
    ["optimizer=sgd", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=100"],
    ["optimizer=adamw", "noise=gaussian", "+trainer.max_steps=8", "scheduler=plateau"],
    ["optimizer=adamw", "+trainer.accumulate_grad_batches=2", "+trainer.val_check_interval=2", "scheduler=cosine"],
]


@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
def test_cut_at_every_batch_the_end_is_the_same_bit_for_bit(variant, tmp_path):
    config = config_of(*variant)
    module, trainer, history = train(config, tmp_path / "whole", whole := RaisedAt())
    expected = state_at_the_end(tmp_path / "whole")
    assert len(whole.seen) == (8 if "+trainer.max_steps=8" in variant else 6 if "optimizer=sgd" in variant else 9)
    accumulates = "+trainer.accumulate_grad_batches=2" in variant  # then only an epoch's start is one
    for at in whole.seen:
        path = tmp_path / str(at)
        seen = cut(config, path, at)
        resumed, again, found = train(config, path, rest := RaisedAt())
        assert seen + rest.seen == whole.seen, "no batch twice and none left out"
        assert len(seen) == (-(-at // BATCHES) * BATCHES if accumulates else at), "it ends at the next boundary"
        assert_same_tensors(dict(resumed.state_dict()), dict(module.state_dict()), f"cut at {at}")
        assert_same_tensors(state_at_the_end(path), expected, f"cut at {at}")
        assert found == history
        assert {"train/loss", "val/loss", "val/hit@1", "val/hit@1_best"} <= found[0].keys()
        assert again.current_epoch == trainer.current_epoch
