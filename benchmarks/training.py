"""An epoch of head training: as train.py does it, as people write it with Lightning, and the arithmetic alone.

    python benchmarks/training.py [--repeats 5] [--threads 2]

26 steps of 128 drawn rows and a validation split of 1024, Adadelta. The floor is forward, backward and optimizer on one
batch, over and over. What train.py does is the whole fit: journal, early stopping, best weights and checkpoints to go
on from, the loss on val after each epoch and hit@k every fifth, divided by its epochs. What people write has a
DataLoader, the CSV logger, early stopping and a checkpoint of the best, and no retrieval metric. All take turns.
A compiled optimizer is given twice the epochs: compiling anew for each run is in its figure (a run of the default 60
epochs pays it once as well), and the C++ compiler's work, which is kept on disk from the first time on, is not.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from seeds import BATCH, STEPS, features_of, fitted
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.console import terminal
from likeness.features.extraction import Features

SIZES = ((512, 64, 20, 40), (4096, 512, 5, 10))  # width, code, epochs, and epochs of a compiled optimizer
FLOOR = "floor: forward, backward, optimizer"
ADADELTA = {"lr": 1.0, "rho": 0.95, "eps": 1e-7}


def network(width: int, code: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, code), nn.ReLU(), nn.Linear(code, width))


def floor(width: int, code: int, epochs: int) -> None:
    model = network(width, code)
    optimizer, rows = torch.optim.Adadelta(model.parameters(), **ADADELTA), torch.randn(BATCH, width)
    for _ in range(STEPS * epochs):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(rows), rows).backward()
        optimizer.step()


class Written(pl.LightningModule):
    """An autoencoder as a tutorial has it."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.model = network(width, code)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[0])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val/loss", nn.functional.mse_loss(self.model(batch[0]), batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adadelta(self.parameters(), **ADADELTA)


def as_people_write_it(features: Features, code: int, epochs: int) -> None:
    rows, count = features.rows, BATCH * STEPS
    assert isinstance(rows, Tensor)
    train = DataLoader(TensorDataset(rows[:count]), BATCH, shuffle=True)
    val = DataLoader(TensorDataset(rows[count:]), BATCH)
    with tempfile.TemporaryDirectory() as place:
        callbacks = [EarlyStopping("val/loss", patience=10), ModelCheckpoint(place, monitor="val/loss")]
        quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=CSVLogger(place),
            callbacks=callbacks,
            **quiet,
        )
        trainer.fit(Written(rows.shape[1], code), train, val)


def composed(code: int, epochs: int, *more: str) -> dict[str, Any]:
    options = ["data=folder", "data.root=/none", "architecture=dense", f"architecture.widths=[{code}]"]
    options += ["optimizer=adadelta", f"batch_size={BATCH}", f"trainer.max_epochs={epochs}"]
    options += ["trainer.accelerator=cpu", "logger.csv.folder=/none"]
    with initialize_config_dir(str(measuring.ROOT / "conf"), version_base="1.3"):
        return checked(compose("train", [*options, *more]))


def as_train_does(features: Features, config: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        logger = {"csv": {**config["logger"]["csv"], "folder": place}}
        fitted([{**config, "logger": logger}], features, Path(place) / "run")


def measured(width: int, code: int, epochs: int, compiled_epochs: int, repeats: int) -> Iterator[dict[str, Any]]:
    features = features_of(width)
    bf16, compiled, more = "trainer.precision=bf16-mixed", "compile_optimizer=true", compiled_epochs
    ways = {
        FLOOR: (epochs, partial(floor, width, code, epochs)),
        "likeness": (epochs, partial(as_train_does, features, composed(code, epochs))),
        "likeness, bf16": (epochs, partial(as_train_does, features, composed(code, epochs, bf16))),
        "likeness, compiled": (more, partial(as_train_does, features, composed(code, more, compiled))),
        "likeness, bf16, compiled": (more, partial(as_train_does, features, composed(code, more, bf16, compiled))),
        "Lightning as people write it": (epochs, partial(as_people_write_it, features, code, epochs)),
    }
    seconds = measuring.interleaved({name: way for name, (_, way) in ways.items()}, repeats, memory=True)
    of_an_epoch = {name: divided(seconds[name], count) for name, (count, _) in ways.items()}
    for name, (count, _) in ways.items():
        told = {"head": f"{width} → {code} → {width}", "way": name, "epochs": count}
        yield {**told, **measuring.figures(of_an_epoch, name, "ms", base=(FLOOR, "floor"))}


def divided(taken: measuring.Rounds, by: int) -> measuring.Rounds:
    """So that ratios are of epochs."""
    each = measuring.Rounds([s / by for s in taken], [s / by for s in taken.processor])
    each.peak = taken.peak
    return each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--heads", type=int, default=len(SIZES), help="1: the small one alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    register()
    sizes = SIZES[: options.heads]
    rows = [row for size in sizes for row in measured(*size, options.repeats)]
    told = measuring.report("training", rows, measuring.environment(("pytorch-lightning",)))
    terminal().print(told, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
