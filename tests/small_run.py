"""A small training as train.py assembles it, for tests that cut it; as a script one of two processes."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from helpers import ROOT
from hydra import compose, initialize_config_dir

from likeness.assembly import modules, training
from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Extractor, Features
from likeness.images.decoding import Decoder
from likeness.images.preprocessing import Preprocessing
from likeness.images.table import Row, tabulate
from likeness.runs import preemption
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


def drawn(seed: int = 0, width: int = 9) -> FeatureData:
    """40 rows to train on and 20 for val, of three classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    rows = rng.normal(size=(60, width)) + rng.normal(size=(3, width))[labels]
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

    def __init__(self, at: int | None = None, sent: signal.Signals = signal.SIGUSR1, rank: int = 0) -> None:
        self.at, self.sent, self.rank, self.seen = at, sent, rank, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append(trainer.current_epoch * BATCHES + batch_idx + 1)
        if self.seen[-1] == self.at and trainer.global_rank == self.rank:
            signal.raise_signal(self.sent)


def train(
    config: dict, path: Path, watcher: RaisedAt, data: FeatureData | None = None, extractor: Extractor | None = None
) -> tuple:
    """A run as train.py assembles it, up to the head that is scored; of several seeds, the heads as one module."""
    data = data or drawn()
    folder = RunFolder(path, config)
    extractor = extractor or Extractor(Decoder(), Preprocessing(size=8, mean=[0.0] * 3, std=[1.0] * 3), Shaped())
    card = modules.build_card(config, {"architecture": "x", "backbone": "y"}, extractor, data)
    each = [{**config, "seed": config["seed"] + place} for place in range(config["seeds"])]
    heads = modules.build_heads(each, data.feature_shape, card)
    trainer = training.build_trainer(config, folder)
    trainer.callbacks.insert(0, watcher)
    with preemption.listening():
        training.fit_heads(trainer, heads, data, folder)
    module = heads[0] if len(heads) == 1 else torch.nn.ModuleList(heads)
    return module, trainer, epochs(read(folder.journal.path))


def main(place: Path) -> None:
    """Train once without a cut, then thrice with one and again; keep what each process ends with."""
    config = config_of("noise=gaussian", "trainer.devices=2", "trainer.strategy=ddp", "scheduler=plateau")
    for at in (None, 2, 3, 5):
        folder, saved = place / str(at or "whole"), []
        if at:
            try:
                train(config, folder, RaisedAt(at, rank=at % 2))
            except preemption.Preempted as end:
                saved.append(end.step)
        module, trainer, history = train(config, folder, RaisedAt())
        ends = {"weights": dict(module.state_dict()), "optimizer": trainer.optimizers[0].state_dict(), "saved": saved}
        history = history if trainer.is_global_zero else []
        torch.save({**ends, "history": history}, place / f"{at or 'whole'}-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
