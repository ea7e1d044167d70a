"""Pictures for a dashboard, made of what lies in a run's folder: its queries beside their neighbours, its figures."""

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL.Image import Image

from likeness.images.decoding import BadImage, Decoder
from likeness.runs.dashboard import Media, facts
from likeness.runs.journal import read

log = logging.getLogger(__name__)

_WORST, _SAMPLED = 50, 50  # queries
_NEAREST = 5
_SIDE = 96  # pixels, the longer one: some 3 KB a picture, at most 2 MB a run
_NEIGHBOUR = [("nearest", "path"), ("label", "label"), ("similarity", "similarity")]
COLUMNS = ("query", "label", "rank", *(f"{shown} {i}" for i in range(1, _NEAREST + 1) for shown, _ in _NEIGHBOUR))


def media_of(folder: Path) -> Media:
    """The worst queries of the last split, worst first, then a sample of the others; and the run's figures.

    A picture is looked for where the run found it; one that is not there, or cannot be read, leaves a blank.
    """
    thumbnails = _Thumbnails(Path(str(facts(read(folder / "journal.jsonl"), "config").get("data_root", ""))))
    rows = [_cells(row, thumbnails) for row in _chosen(_queries(folder / "queries.csv"))]
    if thumbnails.missing:
        log.warning("[TRACKER] %d pictures cannot be read and are left out of the table", thumbnails.missing)
    return Media(COLUMNS, rows, sorted((folder / "figures").glob("*.png")))


def _queries(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["split"] == rows[-1]["split"] and row["skipped"] == "0"]


def _chosen(queries: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    worst_first = sorted(queries, key=lambda query: -_rank(query))
    rest = worst_first[_WORST:]
    return worst_first[:_WORST] + Random(0).sample(rest, min(_SAMPLED, len(rest)))


def _rank(query: Mapping[str, str]) -> float:
    """Of the first right neighbour; 0 stands for a code that finds nothing."""
    return float(query["rank"]) or math.inf


def _cells(query: Mapping[str, str], thumbnails: "_Thumbnails") -> list[Any]:
    cells: list[Any] = [thumbnails(query["path"]), query["label"], int(query["rank"])]
    for i in range(1, _NEAREST + 1):
        similarity = query[f"similarity_{i}"]
        cells += [thumbnails(query[f"path_{i}"]), query[f"label_{i}"], float(similarity) if similarity else None]
    return cells


class _Thumbnails:
    """From a path to a small picture, each made once; ``missing`` counts those that could not be."""

    def __init__(self, root: Path) -> None:
        self._root, self._made = root, dict[str, Image | None]()

    def __call__(self, path: str) -> Image | None:
        if path and path not in self._made:
            self._made[path] = _thumbnail(self._root / path)
        return self._made.get(path)

    @property
    def missing(self) -> int:
        return sum(image is None for image in self._made.values())


def _thumbnail(path: Path) -> Image | None:
    try:
        image = Decoder(min_side=1).decode(path.read_bytes(), at_least=2 * _SIDE).image
    except (OSError, BadImage):
        return None
    image.thumbnail((_SIDE, _SIDE))
    return image
