"""How cost grows with the number of pictures: table, store, opening, fits, hits, neighbours, disk and memory.

    python benchmarks/growth.py [--sizes 1000,10000,100000] [--width 128] [--repeats 5] [--folder /tmp]
    python benchmarks/growth.py --sizes 1000000 --repeats 1

Drawn features in classes of 200 go through the real store, data module, heads and metrics; every number of pictures in
a process of its own, so that memory is its own too. A fifth each is val and test, and val is scored. Writes
benchmarks/results/growth.{json,md}, or with sizes above 100,000 growth_large.{json,md}. Looking at pictures is not in
it: benchmarks/extraction.py.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from matplotlib.ticker import FuncFormatter
from measuring import ROOT, Rounds, environment, note, report, spread

from likeness.assembly import modules, training
from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Features
from likeness.features.store import Shelf
from likeness.heads.autoencoder import codes_of, row_batches
from likeness.heads.linear import PCA, NeighbourAverage
from likeness.images.table import Row, tabulate
from likeness.reports import style
from likeness.retrieval.metric import SimilarityRetrieval
from likeness.retrieval.neighbours import neighbours
from likeness.runs.folder import RunFolder

OF_A_CLASS, CODE, K = 200, 64, 10
LARGEST_OF_ALL_DAYS = 100_000
SHARD_BYTES = 32 << 20
DRAWN = {  # what the picture shows
    "opening s": "opening the store",
    "epoch s": "an epoch of a dense head",
    "default head s": "the default head's fit",
    "hits s": "hits of a fifth",
    "neighbours s": "ten neighbours of a fifth",
    "scores s": "scores of a fifth",
    "peak GB": "peak memory, GB",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--sizes", default="1000,10000,100000", help="numbers of pictures")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="where the stores lie meanwhile")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        sys.stdout.write(json.dumps(_measured(given.only, given.width, given.repeats, Path(given.folder))))
        return
    sizes = [int(size) for size in given.sizes.split(",")]
    rows = [_in_a_process(size, given) for size in sizes]
    name = "growth" if max(sizes) <= LARGEST_OF_ALL_DAYS else "growth_large"
    sys.stdout.write(report(name, rows, environment(("numpy",))))


def _in_a_process(count: int, given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        words = ["--only", str(count), "--width", str(given.width), "--repeats", str(given.repeats), "--folder", place]
        done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measured(count: int, width: int, repeats: int, folder: Path) -> dict[str, Any]:
    base, taken = _peak(), defaultdict[str, Rounds](Rounds)
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            stored = _round(count, width, Path(place), taken)
    row = {"pictures": count, "width": width, "rounds": repeats, "store GB": stored / 1e9}
    row |= {f"{name} s": median(each) for name, each in taken.items()}
    row |= {"peak GB": (_peak() - base) / 1e9, "most spread": max(map(spread, taken.values()))}
    used = {name: each.processor for name, each in taken.items()}
    medians = {name: median(each) for name, each in used.items()}
    return {**row, "of the processor": medians, "seconds": taken, "processor seconds": used}


def _round(count: int, width: int, folder: Path, taken: dict[str, Rounds]) -> int:
    """All of it once; returns the store's bytes."""

    def timed(name: str, call: Callable[[], Any]) -> Any:
        return note(taken[name], call)

    keys = np.random.default_rng(1).integers(256, size=(count, 32), dtype=np.uint8)
    table = timed("table", lambda: _table(count))
    timed("writing", lambda: _write(folder / "store", keys, table.labels, width))
    shelf = Shelf(folder / "store", {"drawn": width})
    rows = timed("opening", lambda: _opened(shelf, keys))
    data = FeatureData(Features(table, rows, keys, 0, count), 128, 0)
    training, val = data.training_split(), data.split("val")
    pca = PCA((width,), CODE)
    timed("PCA", lambda: pca.fit(row_batches(training)))
    default = NeighbourAverage((width,), CODE)
    timed("default head", lambda: default.fit(row_batches(training)))
    timed("epoch", lambda: _trained(data, folder / "run"))
    codes, ids = codes_of(pca.encode, val), val.sample_ids
    timed("hits", _metric(codes, val, only_hits=True).compute)
    timed("neighbours", lambda: neighbours(codes, codes, K, query_ids=ids, gallery_ids=ids))
    timed("scores", _metric(codes, val, only_hits=False).compute)
    return sum(path.stat().st_size for path in folder.glob("store/*/*"))


def _metric(codes: torch.Tensor, val: Any, only_hits: bool) -> SimilarityRetrieval:
    metric = SimilarityRetrieval(only_hits=only_hits)
    metric.update(codes, val.labels, val.sample_ids)
    return metric


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _table(count: int) -> Any:
    classes = max(5, count // OF_A_CLASS)
    splits = ["train"] * (count - 2 * (count // 5)) + ["val"] * (count // 5) + ["test"] * (count // 5)
    listed = [Row(f"{i % classes}/{i:09d}.jpg", str(i % classes), splits[i]) for i in range(count)]
    return tabulate(Path("/none"), listed, 0, (0.6, 0.2, 0.2))


def _write(store: Path, keys: np.ndarray, labels: np.ndarray, width: int) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((labels.max() + 1, width), np.float32)
    size = SHARD_BYTES // (4 * width)
    for start in range(0, len(keys), size):
        part = slice(start, start + size)
        rows = centres[labels[part]] + 2 * rng.standard_normal((len(labels[part]), width), np.float32)
        Shelf(store, {"drawn": width}).add(keys[part], rows, np.zeros(len(rows), np.float32))


def _opened(shelf: Shelf, keys: np.ndarray) -> Any:
    """As train.py opens it: headers, keys and every checksum, then the rows into memory."""
    shelf.refresh()
    places = shelf.find(keys)
    assert shelf.verify(places)
    return shelf.rows(places)


def _trained(data: FeatureData, folder: Path) -> None:
    """One epoch with all that belongs to it: scaling, validation with its hits, journal, checkpoints."""
    register()
    words = ["data=folder", "data.root=/none", "architecture=dense", f"architecture.widths=[{CODE}]", "logger=none"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = checked(compose("train", [*words, "trainer.max_epochs=1", "trainer.accelerator=cpu"]))
    card = {"schema": 1, "options": {}, "fingerprint": "0" * 64}
    run, heads = RunFolder(folder, config), modules.build_heads([config], data.feature_shape, card)
    training.fit_heads(training.build_trainer(config, run), heads, data, run)


def draw(rows: Sequence[Mapping[str, Any]], threads: int, path: Path) -> None:
    figure = style.new_figure(7.5, 4.5)
    axes = figure.add_subplot()
    counts = [row["pictures"] for row in rows]
    for (name, told), colour, marker in zip(DRAWN.items(), style.COLOURS, style.MARKERS, strict=False):
        values = [row.get(name, math.nan) for row in rows]
        axes.plot(counts, values, color=colour, marker=marker, markersize=5, linewidth=1.5, label=told)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.set_xlabel("pictures", fontsize=style.SMALL)
    axes.set_ylabel("seconds, and GB of memory", fontsize=style.SMALL)
    style.quiet(axes, "y")
    style.headline(axes, f"How cost grows: features of {rows[0]['width']} numbers, threads: {threads}")
    figure.legend(loc="outside right center", fontsize=style.SMALL, frameon=False)
    style.save(figure, path)


if __name__ == "__main__":
    main()
