"""On which queries two heads differ, and the pictures that show it."""

import base64
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from likeness.reports import words
from likeness.reports.answers import BASELINES, Labels, pictures_root, read_answers
from likeness.reports.jobs import Job
from likeness.reports.thumbnails import thumbnails

_MOST_ANSWERS = 4_000_000  # queries × heads
_MOST_NAMED = 5_000  # queries
_MOST_PAIRS = 500
_FEW = 24  # heads of which all pairs are prepared
_SHOWN = 5  # queries of a pair, each way
_PICTURE_BYTES = 8_000_000

Pair = tuple[int, int]


class Method(NamedTuple):
    """A head, or a baseline of the winner, that can be compared; ``nearest`` is None where it was not recorded."""

    name: str
    job: int | None
    ranks: Int[np.ndarray, " q"]
    nearest: Int[np.ndarray, "q 5"] | None

    @property
    def hits(self) -> Bool[np.ndarray, " q"]:
        return self.ranks == 1


def disagreement(jobs: Sequence[Job], winner: Job, split: str = "test") -> dict[str, Any] | None:
    """What a page needs to compare any two heads query by query; None where the winner recorded no query.

    Args:
        jobs: Best first. Only those that answered the same queries as the winner can be compared.
        winner: One of them.
        split: Whose queries.

    Every method's hits come as bits. Neighbours and thumbnails come for the pairs that are likely asked for, those that
    differ most first: the winner against each other and, of few heads, all others too.
    """
    places: dict[str, int] = {}
    labels: Labels = {}
    first = read_answers(winner.queries, split, places, labels)
    if first is None:
        return None
    methods = [Method(winner.name, jobs.index(winner), first.ranks["head"], first.nearest)]
    baselines = [name for name in BASELINES if name in first.ranks]
    methods += [Method(words.METHODS[name], None, first.ranks[name], None) for name in baselines]
    for place, job in list(enumerate(jobs))[: _MOST_ANSWERS // len(first.queries)]:
        found = None if job is winner else read_answers(job.queries, split, places, labels)
        if found and np.array_equal(found.queries, first.queries):
            methods.append(Method(job.name, place, found.ranks["head"], found.nearest))
    return {
        "split": split,
        "share_homes": first.share_homes,
        "compared": sum(method.job is not None for method in methods),
        "methods": [{"name": method.name, "job": method.job, "bits": _bits(method.hits)} for method in methods],
        **_shown(methods, first.queries.tolist(), labels, pictures_root(winner.metrics)),
    }


def _bits(hits: Bool[np.ndarray, " q"]) -> str:
    return base64.b64encode(np.packbits(hits).tobytes()).decode()


def _shown(methods: Sequence[Method], queries: Sequence[int], labels: Labels, root: Path) -> dict[str, Any]:
    """Names, labels, neighbours and thumbnails of what is shown; ``pictures`` lacks what the budget left out."""
    shown = _shown_queries(methods)
    rows = [_cells(methods[place], query) for place, query in shown]
    both = zip(shown, rows, strict=True)
    pictured = list(dict.fromkeys(number for (_, query), row in both for number in (queries[query], *row[1:])))
    named = list(dict.fromkeys([*queries[:_MOST_NAMED], *pictured]))
    place_of = {number: place for place, number in enumerate(named)}
    paths = list(labels)
    classes = sorted({labels[paths[number]] for number in named})
    near: dict[int, dict[int, list[int]]] = {}
    for (place, query), (rank, *nearest) in zip(shown, rows, strict=True):
        near.setdefault(place, {})[query] = [rank, *(place_of[number] for number in nearest)]
    found = thumbnails([root / paths[number] for number in pictured], _PICTURE_BYTES)
    pictures = {place_of[number]: picture for number, picture in zip(pictured, found, strict=False)}
    return {
        "names": [paths[number] for number in named],
        "labels": [classes.index(labels[paths[number]]) for number in named],
        "classes": classes,
        "queries": [place_of.get(number, -1) for number in queries],
        "near": near,
        "pictures": pictures,
        "left_out": len(pictured) - len(pictures),
        "unreadable": sum(picture is None for picture in pictures.values()),
    }


def _cells(method: Method, query: int) -> list[int]:
    """The rank of the first right neighbour, then the nearest pictures."""
    nearest = [] if method.nearest is None else method.nearest[query].tolist()
    return [int(method.ranks[query]), *(number for number in nearest if number >= 0)]


def _shown_queries(methods: Sequence[Method]) -> list[Pair]:
    """A method's place and a query's, in the order in which pictures are worth their bytes."""
    contested = np.sum([method.hits != methods[0].hits for method in methods], axis=0)
    pairs = ((pair, query) for pair in _pairs(methods) for query in _differing(methods, pair, contested))
    return list(dict.fromkeys((place, query) for pair, query in pairs for place in pair))


def _pairs(methods: Sequence[Method]) -> list[Pair]:
    def alike(pair: Pair) -> int:
        return int((methods[pair[0]].hits == methods[pair[1]].hits).sum())

    winners = [(0, other) for other in range(1, len(methods))]
    others = list(combinations(range(1, len(methods)), 2)) if len(methods) <= _FEW else []
    return [*sorted(winners, key=alike), *sorted(others, key=alike)][:_MOST_PAIRS]


def _differing(methods: Sequence[Method], pair: Pair, contested: Int[np.ndarray, " q"]) -> Iterator[int]:
    """Queries that one finds and the other does not; those on which many heads differ come first, and are shared."""
    one, other = (methods[place].hits for place in pair)
    for only in (one & ~other, other & ~one):
        found = np.flatnonzero(only)
        yield from found[np.argsort(-contested[found], kind="stable")][:_SHOWN].tolist()
