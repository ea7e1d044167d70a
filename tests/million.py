"""A million drawn rows from the store to the scores, in a process whose memory is its own: prints what it took."""

import json
import resource
import sys
from pathlib import Path

import numpy as np
from small_run import Shaped, config_of

from likeness.assembly import baselines, modules, reporting, scoring, training
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Extractor, Features
from likeness.features.store import MappedRows, Shelf
from likeness.images.decoding import Decoder
from likeness.images.preprocessing import Preprocessing
from likeness.images.table import Row, tabulate
from likeness.runs.folder import RunFolder

ROWS, WIDTH, CLASSES, SCORED = 1_000_000, 256, 2_000, 20_000
A_SHARD = 32_768


class Wide(Shaped):
    def feature_shape(self, size: int) -> tuple[int, ...]:
        return (WIDTH,)


def main(folder: Path) -> None:
    config = config_of("architecture.widths=[64]", "trainer.max_epochs=1", "batch_size=512", "metric.ks=[1,5]")
    extractor = Extractor(Decoder(), Preprocessing(size=8, mean=[0.0] * 3, std=[1.0] * 3), Wide())
    splits = ["train"] * (ROWS - 2 * SCORED) + ["val"] * SCORED + ["test"] * SCORED
    listed = [Row(f"{i % CLASSES}/{i:07d}.jpg", str(i % CLASSES), split) for i, split in enumerate(splits)]
    table = tabulate(Path("/none"), listed, 0, (0.6, 0.2, 0.2))
    keys = np.random.default_rng(1).integers(256, size=(ROWS, 32), dtype=np.uint8)
    filled(folder / "store", extractor, keys, table.labels)
    shelf = Shelf(folder / "store", extractor.identity())
    shelf.refresh()
    places = shelf.find(keys)
    assert shelf.verify(places)
    assert not places.missing.any()
    rows = shelf.rows(places, memory_bytes=200 << 20)
    assert isinstance(rows, MappedRows)
    data = FeatureData(Features(table, rows, keys, 0, ROWS), config["batch_size"], config["seed"])
    run = RunFolder(folder / "run", config)
    card = modules.build_card(config, {"architecture": "dense", "backbone": "drawn"}, extractor, data)
    heads = modules.build_heads([config], data.feature_shape, card)
    trainer = training.build_trainer(config, run)
    epochs = training.fit_heads(trainer, heads, data, run)
    methods = baselines.fit_methods(heads[0], data, config["seed"], run, [])
    results = scoring.score_splits(methods, data, ("val", "test"), None, config["metric"])
    metrics = reporting.write_results(
        results, heads[0], data, run, trainer, scoring.score_seeds(heads, epochs, results, data, config["metric"])
    )
    assert reporting.validation_value(metrics) > 0.5, "drawn around centres, far from chance"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(json.dumps({"peak GiB": peak, "hit@1": reporting.validation_value(metrics)}) + "\n")


def filled(store: Path, extractor: Extractor, keys: np.ndarray, labels: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, WIDTH), np.float32)
    shelf = Shelf(store, extractor.identity())
    for start in range(0, ROWS, A_SHARD):
        part = slice(start, start + A_SHARD)
        rows = centres[labels[part]] + rng.standard_normal((len(labels[part]), WIDTH), np.float32)
        shelf.add(keys[part], rows, np.zeros(len(rows), np.float32))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
