"""What a run answered to each query, read from its ``queries.csv``."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from likeness.reports import words
from likeness.reports.scoreboard import at

NEAREST = 5
BASELINES = tuple(name for name in words.METHODS if name != "head")

Labels = dict[str, str]


class Lines(NamedTuple):
    """Lines of a ``queries.csv``, and the place of each column by its name."""

    rows: Sequence[Sequence[str]]
    column: Mapping[str, int]

    def of(self, name: str) -> list[str]:
        return [row[self.column[name]] for row in self.rows]


class Answers(NamedTuple):
    """What a run's ``queries.csv`` says of one split, counted queries only.

    ``ranks`` are those of the first right neighbour, by method; ``nearest`` are the head's, as places in ``Labels``,
    the label of every picture by its path; -1 where there are fewer.
    """

    queries: Int[np.ndarray, " q"]
    ranks: Mapping[str, Int[np.ndarray, " q"]]
    nearest: Int[np.ndarray, "q 5"]
    share_homes: bool


def read_answers(path: Path, split: str, places: dict[str, int], labels: Labels) -> Answers | None:
    """None where there is no such file, or none with a counted query; new pictures get the next places."""
    try:
        lines = read_lines(path, split)
        return answers(lines, places, labels) if lines.rows else None
    except (OSError, ValueError, LookupError, csv.Error):
        return None


def read_lines(path: Path, split: str) -> Lines:
    """The split's queries that have a picture of their class to find.

    Raises:
        OSError, ValueError, LookupError, csv.Error: Where it cannot be read.
    """
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = csv.reader(file)
        column = {name: place for place, name in enumerate(next(lines, []))}
        rows = [row for row in lines if row[column["split"]] == split and row[column["skipped"]] == "0"]
    return Lines(rows, column)


def answers(lines: Lines, places: dict[str, int], labels: Labels) -> Answers:
    """The answers of counted lines; new pictures get the next places.

    Raises:
        ValueError, LookupError: Where a cell is not what its column holds, or is missing.
    """
    rows, column = lines
    named = [("path", "label"), *((f"path_{i}", f"label_{i}") for i in range(1, NEAREST + 1))]
    pictures = np.full((len(rows), 1 + NEAREST), -1, np.int32)
    for index, (path, label) in enumerate((column[path], column[label]) for path, label in named):
        for line, row in enumerate(rows):
            if row[path]:
                pictures[line, index] = places.setdefault(row[path], len(places))
                labels.setdefault(row[path], row[label])
    ranks = {"head": "rank"} | {name: f"{name}_rank" for name in BASELINES if f"{name}_rank" in column}
    homes = [home for home in lines.of("home") if home]
    return Answers(
        pictures[:, 0],
        {method: np.array([int(cell) for cell in lines.of(name)]) for method, name in ranks.items()},
        pictures[:, 1:],
        len(set(homes)) < len(homes),
    )


def similarities(lines: Lines) -> Float32[np.ndarray, "q 5"]:
    """Of the head's nearest; NaN where there are fewer."""
    columns = [[float(cell or "nan") for cell in lines.of(f"similarity_{i}")] for i in range(1, NEAREST + 1)]
    return np.array(columns, np.float32).T


def pictures_root(metrics: Mapping[str, Any]) -> Path:
    """What the paths in a run's ``queries.csv`` are relative to."""
    return Path(str(at(metrics, "pictures") or at(metrics, "data", "root") or "."))
