"""A run's queries beside their neighbours, as one page that opens from disk without a network: the worst come first."""

import csv
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from likeness.errors import LikenessError
from likeness.files import write_atomic
from likeness.images.options import readable
from likeness.images.table import home_of, numbered
from likeness.reports.answers import Answers, Labels, Lines, answers, pictures_root, read_lines, similarities
from likeness.reports.choice import most_telling, worst_first
from likeness.reports.jobs import BASELINES
from likeness.reports.page import verdict
from likeness.reports.scoreboard import at, number, read_object
from likeness.reports.template import filled
from likeness.reports.thumbnails import common_shape, thumbnails
from likeness.reports.words import METHODS

PICTURE_BYTES = 8_000_000
_SCRIPTS = ("gallery_view", "gallery_head", "gallery_classes", "gallery_queries", "gallery")  # one, in this order
_MOST_LISTED = 20_000  # queries
_SHAPED = 99  # pictures that the shape of all frames is taken from

Metrics = Mapping[str, Any]


class _Asked(NamedTuple):
    """The queries of a split, and every picture among them and their neighbours: path, class and, if known, home."""

    answers: Answers
    similarities: Float32[np.ndarray, "q 5"]
    paths: Sequence[str]
    classes: Sequence[str]
    labels: Int[np.ndarray, " p"]
    homes: Mapping[str, str]

    @property
    def pictures(self) -> Int[np.ndarray, "q 6"]:
        """Of each query itself and its neighbours, the nearest first: places in ``paths``, -1 where there are fewer."""
        return np.column_stack([self.answers.queries, self.answers.nearest])


def write_gallery(run: Path, path: Path, split: str | None = None, most_bytes: int = PICTURE_BYTES) -> Path:
    """Write the page of one split of a run to ``path``, made of ``metrics.json``, ``queries.csv`` and the pictures.

    Args:
        split: Whose queries; None is test, or the run's last split where it has no test.
        most_bytes: Of all pictures in the page. Where they do not fit, those of the most telling queries come first.

    Raises:
        LikenessError: RUN-MISSING when the run has no results that can be read, DATA-SPLIT when none of the split's
            queries has a picture of its class to find; otherwise as ``write_atomic``.
    """
    metrics = read_object(run / "metrics.json") or {}
    names = {name.partition(" against ")[0]: name for name in at(metrics, "splits") or {}}
    if not names:
        raise _no_results(run, "It has no metrics.json that can be read.")
    split = split or ("test" if "test" in names else list(names)[-1])
    try:
        lines = read_lines(run / "queries.csv", split)
        asked = _asked(lines) if lines.rows else None
    except (OSError, ValueError, LookupError, csv.Error) as error:
        raise _no_results(run, f"queries.csv cannot be read: {error!r}") from error
    if asked is None:
        raise _no_queries(run, split, list(names))
    content = _content(metrics, names.get(split, split), asked, most_bytes)
    content |= {"title": readable(run.absolute().name), "folder": readable(run.absolute())}
    write_atomic(path, filled("gallery", "queries", _SCRIPTS, content))
    return path


def _no_results(run: Path, cause: str) -> LikenessError:
    return LikenessError(
        "RUN-MISSING",
        "this run has no results to show.",
        where=readable(run),
        cause=cause,
        fix="Give the folder of a run that has ended; of a sweep, that of one of its jobs.",
    )


def _no_queries(run: Path, split: str, splits: Sequence[str]) -> LikenessError:
    return LikenessError(
        "DATA-SPLIT",
        f"no query of {split} has a picture of its class to find.",
        where=readable(run / "queries.csv"),
        cause=f"the run was scored on {' and '.join(splits)}",
        fix="Choose another split=, or score this one first with evaluate.py run= split=, and show that run.",
    )


def _content(metrics: Metrics, split: str, asked: _Asked, most_bytes: int) -> dict[str, Any]:
    """Everything that the page shows, as plain values; fractions as fractions.

    Args:
        split: As ``metrics`` names it: with the gallery's, where that is another one.
    """
    summary = at(metrics, "splits", split) or {}
    gains = {name: _gain(summary, name, "hit@1") for name in BASELINES}
    return {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "split": readable(split),
        **{name: readable(metrics.get(name)) for name in ("backbone", "head", "seed")},
        "seeds": len(metrics.get("seeds") or [None]),
        **{name: at(summary, name) for name in ("n", "skipped")},
        "measures": _measures(summary),
        "gains": gains,
        "verdict": verdict(gains),
        "classes": [readable(name) for name in asked.classes],
        "per_class": [_class_row(at(summary, "per_class", "head", name)) for name in asked.classes],
        "confusion": _confusion(asked),
        **_shown(metrics, asked, most_bytes),
    }


def _asked(lines: Lines) -> _Asked:
    places: dict[str, int] = {}
    labels: Labels = {}
    found = answers(lines, places, labels)
    homes = dict(zip(lines.of("path"), lines.of("home"), strict=True))
    classes, numbers = numbered(list(labels.values()))
    return _Asked(found, similarities(lines), list(places), classes, numbers, homes)


def _measures(summary: Metrics) -> list[dict[str, Any]]:
    """Every hit@k, and map@r: value and interval of the head and of the frozen features, the gain, and chance."""
    names = [name for name in at(summary, "head") or {} if name.startswith("hit@") or name == "map@r"]
    return [
        {
            "name": name,
            "head": _interval(at(summary, "head", name)),
            "frozen": _interval(at(summary, "frozen", name)),
            "gain": _gain(summary, "frozen", name),
            "chance": number(at(summary, "chance", name)),
        }
        for name in names
    ]


def _interval(found: Any) -> list[float | int | None]:
    return [number(at(found, name)) for name in ("value", "low", "high")]


def _gain(summary: Metrics, baseline: str, measure: str) -> list[float | int | None]:
    """Difference to a baseline, low, high and p."""
    found = at(summary, "paired", f"head-{baseline}", measure)
    return [number(at(found, name)) for name in ("difference", "low", "high", "p")]


def _class_row(found: Any) -> list[float | int | None]:
    """Number of queries, hit@1, low and high."""
    return [number(at(found, "n")), *_interval(at(found, "hit@1"))]


def _confusion(asked: _Asked) -> list[list[int]]:
    """Class, class of the nearest neighbour (-1: it finds nothing, or nothing with a class), and number of queries."""
    of = np.append(asked.labels, -1)  # the last one is for the place -1
    pairs = Counter(zip(*of[asked.pictures[:, :2]].T.tolist(), strict=True))
    return [[actual, taken, count] for (actual, taken), count in sorted(pairs.items())]


def _shown(metrics: Metrics, asked: _Asked, most_bytes: int) -> dict[str, Any]:
    """Queries, the worst first, and their pictures; thumbnails of the most telling ones as far as they fit."""
    ranks = asked.answers.ranks["head"]
    worst = worst_first(ranks, asked.similarities[:, 0])
    telling = most_telling(worst, ranks == 1, asked.labels[asked.answers.queries])[:_MOST_LISTED]
    listed = worst[np.isin(worst, telling)]
    kept = _distinct(asked.pictures[listed])
    place_of = {number: place for place, number in enumerate(kept)}
    root, pictured = pictures_root(metrics), _distinct(asked.pictures[telling])
    found = list(thumbnails([root / asked.paths[number] for number in pictured], most_bytes))
    return {
        **_queries(asked, listed, place_of),
        **_named(asked, kept, at(metrics, "data", "home_pattern")),
        "root": readable(root),
        "pictures": {place_of[number]: picture for number, picture in zip(pictured, found, strict=False)},
        "shape": _shape([picture for picture in found if picture]),
        "unreadable": found.count(None),
        "left_out": {"queries": len(worst) - len(listed), "pictures": len(pictured) - len(found)},
    }


def _distinct(pictures: Int[np.ndarray, "q 6"]) -> list[int]:
    return [number for number in dict.fromkeys(pictures.ravel().tolist()) if number >= 0]


def _queries(asked: _Asked, listed: Int[np.ndarray, " l"], place_of: Mapping[int, int]) -> dict[str, Any]:
    pictures, similar = asked.pictures[listed].tolist(), asked.similarities[listed].tolist()
    return {
        "ranks": {METHODS[name]: ranks[listed].tolist() for name, ranks in asked.answers.ranks.items()},
        "queries": [place_of[row[0]] for row in pictures],
        "near": [[place_of[number] for number in row[1:] if number >= 0] for row in pictures],
        "similarities": [[round(value, 3) for value in row if not math.isnan(value)] for row in similar],
    }


def _named(asked: _Asked, kept: Sequence[int], pattern: str | None) -> dict[str, Any]:
    """Name, class and home of each picture; -1 is none."""
    paths = [asked.paths[number] for number in kept]
    found = [asked.homes.get(path) or (home_of(path, pattern) if pattern else "") for path in paths]
    home_names, homes = numbered(found)
    return {
        "names": [readable(path) for path in paths],
        "labels": asked.labels[list(kept)].tolist(),
        "homes": homes.tolist(),
        "home_names": [readable(name) for name in home_names],
    }


def _shape(pictures: Sequence[str]) -> float:
    return round(common_shape(pictures[:: 1 + len(pictures) // _SHAPED]), 3)
