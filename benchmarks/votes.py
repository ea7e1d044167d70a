"""Votes by weight: plain, by similarity, and by a softmax of it (as in DINO's evaluation), side by side.

    python benchmarks/votes.py [RUN] [--split val]

RUN is a finished run of train.py; without one the default model is trained on drawn rooms. Its pictures of the split
are labelled by its train pictures; for head and frozen features, each k and each weight the accuracy, and what it gains
over plain votes with a paired interval (by home where homes are known). The softmax is not part of likeness: it gains
nothing (docs/finding_votes.md). Nothing is timed. Writes benchmarks/results/votes_NAME.{json,md}, NAME that of the
run's folder.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import drawn
import numpy as np
import torch
from measuring import environment, report
from torch import Tensor

from likeness.assembly import baselines, extracting, restoring, splitting
from likeness.config import schema
from likeness.features.datamodule import FeatureData
from likeness.heads.autoencoder import codes_of
from likeness.retrieval.neighbours import Neighbours, neighbours
from likeness.retrieval.significance import paired
from likeness.retrieval.vote import vote

KS = (1, 5, 10, 20, 50, 100)
TEMPERATURES = (0.03, 0.07, 0.2)  # 0.07 is DINO's


def softmax_vote(labels: Tensor, similarities: Tensor, temperature: float) -> Tensor:
    """The label with the greatest sum of exp(similarity / temperature)."""
    weights = torch.exp((similarities.double() - similarities[:, :1]) / temperature)
    ballots = torch.zeros(len(labels), int(labels.max()) + 1, dtype=torch.float64).scatter_add_(1, labels, weights)
    return ballots.argmax(1)


def votes_by_weight(labels: Tensor, similarities: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "uniform", vote(labels).labels
    yield "similarity", vote(labels, similarities, "similarity").labels
    for temperature in TEMPERATURES:
        yield f"softmax {temperature:g}", softmax_vote(labels, similarities, temperature)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, nargs="?")
    parser.add_argument("--split", default="val", choices=("val", "test"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = given.run or drawn.trained(Path(place) / "drawn")
        rows = list(measured(run, given.split))
    sys.stdout.write(report(f"votes_{run.name}", rows, environment()))


def opened(run: Path) -> tuple[FeatureData, dict[str, Any]]:
    """The features of a run by split, and its methods from features to codes."""
    paths = schema.Paths(store=os.environ.get("LIKENESS_STORE"))
    config = asdict(schema.Evaluate(data={}, backbone={}, run=str(run), paths=paths))
    path = restoring.checkpoint_path(config)
    module, extractor, card = restoring.restore(path, config)
    config = restoring.as_trained(config, card)
    data = splitting.build_data(config, extracting.find_features(config, extractor))
    return data, dict(baselines.read_methods(module, data, (), card, path.parent))


def measured(run: Path, split: str) -> Iterator[dict[str, Any]]:
    data, methods = opened(run)
    queries, gallery = data.split(split), data.split("train")
    homes = queries.homes.numpy() if bool((queries.homes >= 0).any()) else None
    for name in ("head", "frozen"):
        codes = [codes_of(methods[name], rows) for rows in (queries, gallery)]
        found = neighbours(*codes, max(KS), query_ids=queries.sample_ids, gallery_ids=gallery.sample_ids)
        for k in KS:
            for row in each_weight(k, found, queries.labels, gallery.labels, homes):
                yield {"codes": name, "split": split, "queries": len(queries.labels), **row}


def each_weight(
    k: int, found: Neighbours, truth: Tensor, labels_g: Tensor, homes: np.ndarray | None
) -> Iterator[dict[str, Any]]:
    """Percent right, and what that gains over plain votes in points, with its interval."""
    plain = None
    for weight, labels in votes_by_weight(labels_g[found.indices[:, :k]], found.similarities[:, :k]):
        right = (labels == truth).double().numpy()
        row = {"k": k, "votes": weight, "right": 100 * right.mean()}
        if plain is None:
            plain = right
        else:
            gain = paired(right, plain, homes)
            row |= {"gain": 100 * gain.difference, "gain low": 100 * gain.low, "gain high": 100 * gain.high}
        yield row


if __name__ == "__main__":
    main()
