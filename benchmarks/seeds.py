"""Eight heads in one job against eight jobs one after the other, in one process and on the same features.

    python benchmarks/seeds.py [--repeats 5] [--epochs 4] [--seeds 8] [--threads 2] [--accelerator cpu]

Prints a table, and writes every measured second to outputs/benchmarks/seeds.json. What is timed is the fit as train.py
does it: with journal, csv, validation, early stopping and checkpoints. Both kinds take turns, so that what else the
machine does falls on both; the processor's seconds beside those of the clock show how much that is.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from rich.text import Text

from likeness import assembly
from likeness.config import of_each_seed, register
from likeness.console import terminal
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Features
from likeness.files import write_json
from likeness.images.table import Row, tabulate
from likeness.reports.tables import table
from likeness.runs.folder import RunFolder

ROOT = Path(__file__).parents[1]
SIZES = ((512, 64), (1024, 128))
BATCH, STEPS, VAL = 128, 26, 1024


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
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return of_each_seed(compose("train", overrides))


def fitted(each: list[dict[str, Any]], features: Features, folder: Path) -> np.ndarray:
    """Seconds, of the clock and of the processor, that one job takes to train a head for each of these configs."""
    data = FeatureData(features, BATCH, each[0]["seed"])
    card = {"schema": 1, "options": {}, "fingerprint": "0" * 64}
    heads = assembly.build_heads(each, data.feature_shape, card)
    started = np.array([time.perf_counter(), time.process_time()])
    run = RunFolder(folder, each[0])
    assembly.fit_heads(assembly.build_trainer(each[0], run), heads, data, run)
    return np.array([time.perf_counter(), time.process_time()]) - started


def one_after_the_other(each: list[dict[str, Any]], features: Features, folder: Path) -> np.ndarray:
    return np.sum([fitted([config], features, folder / str(config["seed"])) for config in each], axis=0)


def measured(width: int, code: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both ways, by turns, and the median of the turns' ratios; a first turn of each is not counted."""
    features = features_of(width)
    ways: dict[str, Callable[..., np.ndarray]] = {"alone": one_after_the_other, "together": fitted}
    seconds: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    for _ in range(options.repeats + 1):
        for way, train in ways.items():
            with tempfile.TemporaryDirectory() as place:
                each = composed(code, options, Path(place))
                seconds[way].append(train(each, features, Path(place) / "run"))
    result: dict[str, Any] = {"head": f"{width} → {code} → {width}"}
    for column, clock in enumerate(("wall", "cpu")):
        alone, together = ([float(one[column]) for one in seconds[way][1:]] for way in ways)
        ratio = median(b / a for a, b in zip(alone, together, strict=True))
        medians = {"alone": median(alone), "together": median(together), "ratio": ratio}
        result[clock] = {"seconds": {"alone": alone, "together": together}, "median": medians}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accelerator", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    register()
    load = os.getloadavg()[0]
    found = [measured(width, code, options) for width, code in SIZES]
    figures = ["one after the\nother, s", "together, s", "ratio", "the same,\ncpu s", "together,\ncpu s", "ratio"]
    board = table(["head"], figures)
    for row in found:
        shown = (row[clock]["median"][name] for clock in ("wall", "cpu") for name in ("alone", "together", "ratio"))
        board.add_row(Text(row["head"]), *(f"{figure:.2f}" for figure in shown))
    terminal().print(board)
    where = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    facts = {**where, **vars(options), "steps": STEPS, "batch": BATCH, "load": [load, os.getloadavg()[0]]}
    write_json(ROOT / "outputs" / "benchmarks" / "seeds.json", {**facts, "heads": found})


if __name__ == "__main__":
    main()
