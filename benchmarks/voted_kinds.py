"""Homes find homes by `centred_mean` where the kinds of the query's rooms are voted for, beside true ones and `mean`.

    python benchmarks/voted_kinds.py RUN [--split test]

RUN is a finished run of train.py whose pictures have homes and kinds. Halves are made as `likeness homes halves=kinds`
makes them; a picture's kind is voted by its five nearest of the train split. MRR in percent, with an interval from a
bootstrap over homes. Nothing is timed. Writes benchmarks/results/voted_kinds_NAME.{json,md}, NAME that of the run's
folder.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import votes
from measuring import environment, report
from torch import Tensor

from likeness.features.datamodule import FeatureData, Split
from likeness.heads.autoencoder import codes_of
from likeness.retrieval.halves import kinds_apart, own_ranks
from likeness.retrieval.homes import homes_of, kind_means
from likeness.retrieval.neighbours import neighbours
from likeness.retrieval.significance import mean_interval
from likeness.retrieval.vote import vote

VOTERS = 5


def voted(codes: Tensor, split: Split, gallery: Tensor, train: Split) -> Tensor:
    found = neighbours(codes, gallery, VOTERS, query_ids=split.sample_ids, gallery_ids=train.sample_ids)
    return vote(train.labels[found.indices]).labels


def distinct(data: FeatureData, split: str) -> np.ndarray:
    """Which pictures of the split have bytes that none before has, and a home."""
    table = data.features.table
    at = np.flatnonzero(table.splits == split)
    first = np.zeros(len(at), bool)
    first[np.unique(data.features.keys[at], axis=0, return_index=True)[1]] = True
    return first & (table.homes[at] >= 0)


def reciprocal_ranks(
    codes: Tensor, kinds: Tensor, asked_kinds: Tensor, homes: Tensor, names: list[str], rule: str
) -> tuple[np.ndarray, np.ndarray]:
    """Of every choice of kinds and every home that has pictures on both sides, and the homes."""
    means = kind_means(codes, kinds) if rule == "centred_mean" else None
    values, whose = [], []
    for halving in kinds_apart(kinds.numpy(), homes.numpy(), names):
        is_query, is_gallery = torch.from_numpy(halving.is_query), torch.from_numpy(halving.is_gallery)
        is_query &= torch.isin(homes, homes[is_gallery])
        queries = homes_of(codes, torch.where(is_query, homes, -1), asked_kinds, means)
        gallery = homes_of(codes, torch.where(is_gallery, homes, -1), kinds, means)
        ranks = own_ranks(queries, gallery, rule).double()
        values.append(torch.where(ranks > 0, 1 / ranks.clamp(min=1), 0.0).numpy())
        whose.append(queries.ids.numpy())
    return np.concatenate(values), np.concatenate(whose)


def measured(run: Path, split: str) -> Iterator[dict[str, Any]]:
    data, methods = votes.opened(run)
    asked, train, kept = data.split(split), data.split("train"), torch.from_numpy(distinct(data, split))
    for name in ("head", "frozen"):
        codes = codes_of(methods[name], asked)
        found = voted(codes, asked, codes_of(methods[name], train), train)
        right = 100 * float((found == asked.labels)[kept].double().mean())
        for rule, told, kinds in (
            ("mean", "none", asked.labels),
            ("centred_mean", "true", asked.labels),
            ("centred_mean", "voted", found),
        ):
            columns = (column[kept] for column in (codes, asked.labels, kinds, asked.homes))
            mrr = mean_interval(*reciprocal_ranks(*columns, list(data.classes), rule))
            row = {"codes": name, "rule": rule, "kinds": told, "votes right": right if told == "voted" else None}
            yield {**row, "MRR": 100 * mrr.value, "low": 100 * mrr.low, "high": 100 * mrr.high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument("--split", default="test", choices=("val", "test"))
    given = parser.parse_args()
    rows = list(measured(given.run, given.split))
    sys.stdout.write(report(f"voted_kinds_{given.run.name}", rows, environment()))


if __name__ == "__main__":
    main()
