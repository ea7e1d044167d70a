"""``likeness homes``: how well homes find homes, by every rule and every method of a finished run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL.Image import Image
from torch import Tensor

from likeness.assembly import baselines, building, extracting, restoring, splitting
from likeness.config import schema
from likeness.console import progress, terminal
from likeness.errors import LikenessError
from likeness.features.extraction import Extractor
from likeness.files import write_json
from likeness.heads.autoencoder import codes_of
from likeness.images.options import readable
from likeness.images.splits import SPLITS
from likeness.images.table import ImageTable
from likeness.reports.gallery import HomePictures, HomeRow, draw_homes
from likeness.reports.homes import HALVINGS, RULES, homes_board
from likeness.retrieval.halves import (
    Halving,
    Ranks,
    kinds_apart,
    own_ranks,
    random_halves,
    rank_halves,
    sides,
    summarize,
)
from likeness.retrieval.homes import NEEDS_KINDS, Homes, nearest_homes

_EXAMPLES, _NEAREST = 5, 3


@dataclass(frozen=True)
class Asked:
    """What ``likeness homes`` is asked.

    Args:
        run: The finished run's folder.
        data: Another folder of pictures than that of the run.
        home_pattern: As of ``ImageFolder``; None as in training.
        split: None is test, or all of another folder.
        halves: Of ``HALVINGS``.
        seeds: Of the random halves.
        ks: Of the hits.
        keep_copies: Whether of pictures with the same bytes all are kept, not the first alone.
        folder: Where ``homes.json`` and the figures go.
    """

    run: Path
    data: Path | None
    home_pattern: str | None
    split: str | None
    halves: Sequence[str]
    seeds: Sequence[int]
    ks: Sequence[int]
    keep_copies: bool
    folder: Path


@dataclass(frozen=True)
class _Stock:
    """The pictures that are compared, their codes by method, and how many were left out, or are copies."""

    table: ImageTable
    codes: Mapping[str, Tensor]
    homeless: int
    copies: int


def score_homes(asked: Asked) -> None:
    """``homes.json``, a figure for each way of halving, and the table in the terminal.

    Raises:
        LikenessError: DATA-HOMES when no home is known or none has two pictures, CONFIG when a k is not below the
            homes, both before a picture is looked at; RUN-MISSING and CKPT-* from the run; RETRIEVAL.
    """
    split = asked.split or ("all" if asked.data else "test")
    stock, extractor, card = _read(asked, split)
    halvings = _halvings(stock.table, asked)
    metrics = {
        "schema": 1,
        "head": card["options"]["architecture"],
        "backbone": card["options"]["backbone"],
        "root": str(stock.table.root),
        "split": split,
        "seeds": list(asked.seeds),
        "pictures": len(stock.table),
        "homes": len(np.unique(stock.table.homes)),
        "homeless": stock.homeless,
        "copies": {"found": stock.copies, "kept": asked.keep_copies},
        "halvings": _summaries(stock, halvings, asked.ks),
    }
    write_json(asked.folder / "homes.json", metrics)
    for name, (first, *_) in halvings.items():
        rule = metrics["halvings"][name]["winner"]["head"]["rule"]
        title = f"{split}, {HALVINGS[name]} ({first.told}): the head's codes, {RULES[rule]}"
        examples = _examples(stock, first, rule)
        draw_homes(examples, title, asked.folder / f"{name}.png", lambda path: _open(extractor, path))
    terminal().print(homes_board(metrics))
    terminal().print(f"\nhomes.json and figures: {asked.folder}", soft_wrap=True)


def _read(asked: Asked, split: str) -> tuple[_Stock, Extractor, Mapping[str, Any]]:
    """The run's methods on the pictures, and its extractor and card."""
    given = {"root": str(asked.data) if asked.data else None, "home_pattern": asked.home_pattern}
    paths = schema.Paths(store=os.environ.get("LIKENESS_STORE"))
    config = asdict(schema.Evaluate(data=given, backbone={}, run=str(asked.run), paths=paths))
    path = restoring.checkpoint_path(config)
    module, extractor, card = restoring.restore(path, config)
    config = restoring.as_trained(config, card)
    _refuse_few(building.build(config["data"]).table(), split, max(asked.ks))
    data = splitting.build_data(config, extracting.find_features(config, extractor))
    table, keys = data.features.table, data.features.keys
    at = np.flatnonzero(_of_split(table, split))
    known = at[table.homes[at] >= 0]
    first = known[np.sort(np.unique(keys[known], axis=0, return_index=True)[1])]
    kept = known if asked.keep_copies else first
    methods = baselines.read_methods(module, data, [split], card, path.parent)
    rows, place = data.split(*_names(split)), np.searchsorted(at, kept)
    codes = {name: codes_of(encode, rows)[place] for name, encode in methods.items()}
    return _Stock(table.take(kept), codes, len(at) - len(known), len(known) - len(first)), extractor, card


def _names(split: str) -> tuple[str, ...]:
    return SPLITS if split == "all" else (split,)


def _of_split(table: ImageTable, split: str) -> Bool[np.ndarray, " n"]:
    return np.isin(table.splits, _names(split))


def _refuse_few(table: ImageTable, split: str, k: int) -> None:
    """What cannot be scored whatever the pictures show."""
    homes = table.homes[_of_split(table, split)]
    sizes = np.unique(homes[homes >= 0], return_counts=True)[1]
    if not len(sizes) or sizes.max() < 2:
        raise LikenessError(
            "DATA-HOMES",
            f"none of {len(sizes):,} homes in {split} has two pictures."
            if len(sizes)
            else f"no home of {len(homes):,} pictures in {split} is known.",
            where=readable(table.root),
            fix="Give home_pattern= so that it finds the home in each file name, for instance home_pattern='home\\d+'.",
        )
    if k >= len(sizes):
        raise LikenessError(
            "CONFIG",
            f"k={k}, and {split} has {len(sizes)} homes.",
            where="k",
            kept="All features; no picture was looked at.",
            fix=f"Ask for k below {len(sizes)}, or for another split=.",
        )


def _halvings(table: ImageTable, asked: Asked) -> dict[str, list[Halving]]:
    """Of each way that was asked for, every halving; the ways are those of ``HALVINGS``."""
    names = table.paths.tolist()
    found = {
        "random": [random_halves(names, table.homes, seed) for seed in asked.seeds],
        "kinds": kinds_apart(table.labels, table.homes, table.classes),
    }
    if "kinds" in asked.halves and not found["kinds"]:
        raise LikenessError(
            "CONFIG",
            "halves=kinds needs pictures of two kinds.",
            where="halves",
            kept="All features.",
            fix="Give halves=random, or lay each kind of picture in a folder of its own.",
        )
    return {name: found[name] for name in asked.halves}


def _summaries(stock: _Stock, halvings: Mapping[str, Sequence[Halving]], ks: Sequence[int]) -> dict[str, Any]:
    table = stock.table
    rules = [rule for rule in RULES if rule not in NEEDS_KINDS or (table.labels >= 0).any()]
    summaries = {}
    with progress("comparing homes", len(halvings) * len(stock.codes) * len(rules), "rules") as advance:
        for name, each in halvings.items():
            found: dict[str, dict[str, Ranks]] = {method: {} for method in stock.codes}
            for method, codes in stock.codes.items():
                for rule in rules:
                    found[method][rule] = rank_halves(codes, table.homes, table.labels, each, rule)
                    advance()
            summaries[name] = {"each": [halving.told for halving in each], **summarize(found, ks)}
    return summaries


def _examples(stock: _Stock, halving: Halving, rule: str) -> list[HomeRow]:
    """Homes from the best found to the worst, evenly over the ranks."""
    queries, gallery = sides(stock.codes["head"], stock.table.homes, stock.table.labels, halving, rule)
    ranks = own_ranks(queries, gallery, rule).numpy()
    order = np.lexsort((queries.ids.numpy(), np.where(ranks > 0, ranks, len(gallery) + 1)))
    chosen = order[np.linspace(0, len(order) - 1, min(_EXAMPLES, len(order))).round().astype(int)]
    return [_example(stock.table, queries, gallery, int(query), int(ranks[query]), rule) for query in chosen]


def _example(table: ImageTable, queries: Homes, gallery: Homes, query: int, rank: int, rule: str) -> HomeRow:
    own = int(queries.ids[query])
    found = nearest_homes(queries.take(slice(query, query + 1)), gallery, min(_NEAREST, len(gallery)), rule)

    def pictures(side: Homes, home: int, **found: Any) -> HomePictures:
        at = side.rows.ids[side.pictures_of(int((side.ids == home).nonzero()))]
        return HomePictures(table.home_names[home], [table.path(row) for row in at.tolist()], **found)

    nearest = [
        pictures(gallery, home, similarity=similarity, right=home == own)
        for home, similarity in zip(found.homes.tolist(), found.similarities.tolist(), strict=True)
    ]
    note = f"its other half at rank {rank:,} of {len(gallery):,}" if rank else "cannot be compared with its other half"
    return HomeRow(pictures(queries, own), pictures(gallery, own), nearest, note)


def _open(extractor: Extractor, path: Path) -> Image:
    return extractor.decoder.decode(path.read_bytes()).image
