"""Eight heads in one job against eight jobs one after the other, in one process and on the same features.

    python benchmarks/seeds.py [--repeats 5] [--epochs 4] [--seeds 8] [--threads 2] [--accelerator cpu]

What is timed is the fit as train.py does it: with journal, csv, validation, early stopping and checkpoints. Both kinds
take turns. Writes benchmarks/results/seeds.{json,md}, on a GPU gpu_seeds.{json,md}.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from hydra import compose, initialize_config_dir

from likeness.assembly import modules, training
from likeness.config.checking import of_each_seed
from likeness.config.composing import register
from likeness.console import terminal
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Features
from likeness.images.table import Row, tabulate
from likeness.runs.folder import RunFolder

SIZES = ((512, 64), (1024, 128))
BATCH, STEPS, VAL = 128, 26, 1024
ALONE = "one after the other"


def features_of(width: int) -> Features:
    """Drawn features in ten classes that overlap: 26 batches to train on, 1024 rows for val."""
    generator = torch.Generator().manual_seed(0)
    count = BATCH * STEPS + VAL
    labels = torch.arange(count) % 10
    rows = torch.randn(10, width, generator=generator)[labels] + torch.randn(count, width, generator=generator)
    splits = ["train"] * (BATCH * STEPS) + ["val"] * VAL
    named = zip(labels.tolist(), splits, strict=True)
    listed = [Row(f"{i:05d}", str(label), split) for i, (label, split) in enumerate(named)]
    table = tabulate(Path("/none"), listed, 0, (0.6, 0.2, 0.2))
    return Features(table, rows, np.zeros((count, 32), np.uint8), 0, count)


def composed(code: int, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    overrides = ["data=folder", "data.root=/none", "architecture=dense", f"architecture.widths=[{code}]"]
    overrides += [f"batch_size={BATCH}", f"seeds={options.seeds}", f"trainer.max_epochs={options.epochs}"]
    overrides += [f"trainer.accelerator={options.accelerator}", f"logger.csv.folder={folder}"]
    with initialize_config_dir(str(measuring.ROOT / "conf"), version_base="1.3"):
        return of_each_seed(compose("train", overrides))


def fitted(each: list[dict[str, Any]], features: Features, folder: Path) -> None:
    """One job that trains a head for each of these configs."""
    data = FeatureData(features, BATCH, each[0]["seed"])
    card = {"schema": 1, "options": {}, "fingerprint": "0" * 64}
    heads = modules.build_heads(each, data.feature_shape, card)
    run = RunFolder(folder, each[0])
    training.fit_heads(training.build_trainer(each[0], run), heads, data, run)


def one_after_the_other(each: list[dict[str, Any]], features: Features, folder: Path) -> None:
    for config in each:
        fitted([config], features, folder / str(config["seed"]))


def measured(width: int, code: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    features = features_of(width)

    def in_a_folder(train: Callable[..., None]) -> None:
        with tempfile.TemporaryDirectory() as place:
            train(composed(code, options, Path(place)), features, Path(place) / "run")

    ways = {ALONE: partial(in_a_folder, one_after_the_other), "in one job": partial(in_a_folder, fitted)}
    seconds = measuring.interleaved(ways, options.repeats, memory=True)
    for name in ways:
        told = {"head": f"{width} → {code} → {width}", "heads": options.seeds, "way": name}
        yield {**told, **measuring.figures(seconds, name, base=(ALONE, ALONE))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accelerator", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", ".*exists and is not empty")
    register()
    rows = [row for width, code in SIZES for row in measured(width, code, options)]
    name = "seeds" if options.accelerator == "cpu" else "gpu_seeds"
    told = measuring.report(name, rows, measuring.environment(("pytorch-lightning",)))
    terminal().print(told, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
