"""An epoch of head training on a GPU: step by step, recorded as a CUDA graph, in bf16, and eight heads in one job.

    python benchmarks/gpu_training.py [--repeats 5] [--accelerator gpu]

26 steps of 128 drawn rows and a validation split of 1024, Adadelta, 40 epochs, divided by them. The floor is forward,
backward and optimizer on one batch, over and over, as PyTorch takes them. The rest is the whole fit as train.py does
it: journal, csv, validation, checkpoints, and an early stopping that never comes. All take turns. Without a GPU it says
so and ends; with --accelerator cpu it is tried there, without graphs. Not yet run on a GPU.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import measuring
import torch
from hydra import compose, initialize_config_dir
from seeds import BATCH, STEPS, features_of, fitted
from torch import nn
from training import ADADELTA, network

from likeness.config.checking import of_each_seed
from likeness.config.composing import register
from likeness.console import terminal
from likeness.features.extraction import Features

SIZES = ((512, 64), (4096, 512))
EPOCHS, SEEDS = 40, 8
FLOOR = "floor: forward, backward, optimizer"
BF16, GRAPH = "trainer.precision=bf16-mixed", "cuda_graph=true"
ALONE, TOGETHER = f"{SEEDS} heads, one after the other", f"{SEEDS} heads in one job"


def floor(width: int, code: int, device: str) -> None:
    model = network(width, code).to(device)
    optimizer, rows = torch.optim.Adadelta(model.parameters(), **ADADELTA), torch.randn(BATCH, width, device=device)
    for _ in range(STEPS * EPOCHS):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(rows), rows).backward()
        optimizer.step()


def composed(code: int, accelerator: str, folder: Path, *more: str) -> list[dict[str, Any]]:
    options = ["data=folder", "data.root=/none", "architecture=dense", f"architecture.widths=[{code}]"]
    options += ["optimizer=adadelta", f"batch_size={BATCH}", f"trainer.max_epochs={EPOCHS}"]
    options += [f"trainer.accelerator={accelerator}", f"logger.csv.folder={folder}"]
    options += [f"callbacks.early_stopping.patience={EPOCHS}"]
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        return of_each_seed(compose("train", [*options, *more]))


def as_train_does(features: Features, code: int, accelerator: str, *more: str, apart: bool = False) -> None:
    """One job, or one for each seed."""
    with tempfile.TemporaryDirectory() as place:
        each = composed(code, accelerator, Path(place), *more)
        for job in [[config] for config in each] if apart else [each]:
            fitted(job, features, Path(place) / f"run-{job[0]['seed']}")


def done(call: Callable[[], None]) -> None:
    """The call, with all that it asked of the GPU."""
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measured(width: int, code: int, accelerator: str, repeats: int) -> Iterator[dict[str, Any]]:
    features, seeds = features_of(width), f"seeds={SEEDS}"
    fit = partial(as_train_does, features, code, accelerator)
    ways = {
        FLOOR: partial(floor, width, code, "cpu" if accelerator == "cpu" else "cuda"),
        "likeness": fit,
        "likeness, bf16": partial(fit, BF16),
        ALONE: partial(fit, seeds, apart=True),
        TOGETHER: partial(fit, seeds),
    }
    if accelerator != "cpu":
        ways |= {
            "likeness, graph": partial(fit, GRAPH),
            "likeness, bf16, graph": partial(fit, BF16, GRAPH),
            f"{TOGETHER}, graph": partial(fit, seeds, GRAPH),
        }
    seconds = measuring.interleaved({name: partial(done, way) for name, way in ways.items()}, repeats)
    for name, taken in seconds.items():
        base, called = (ALONE, "one after the other") if name.startswith(TOGETHER) else (FLOOR, "floor")
        told = {"head": f"{width} → {code} → {width}", "way": name, "ms an epoch": 1e3 * median(taken) / EPOCHS}
        ratios = {"× floor": None, "× one after the other": None, f"× {called}": measuring.ratio(seconds, name, base)}
        yield {**told, **ratios, "spread": measuring.spread(taken), "seconds": list(taken)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    options = parser.parse_args()
    if options.accelerator == "gpu" and not torch.cuda.is_available():
        terminal().print("There is no CUDA device here: nothing was measured.")
        return
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    register()
    rows = [row for size in SIZES for row in measured(*size, options.accelerator, options.repeats)]
    name = "gpu_training" if options.accelerator == "gpu" else "gpu_training_on_a_cpu"
    told = measuring.report(name, rows, measuring.environment(("pytorch-lightning",)))
    terminal().print(told, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
