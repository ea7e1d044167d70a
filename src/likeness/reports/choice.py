"""Which queries are worth showing where not all fit."""

from collections import Counter

import numpy as np
from jaxtyping import Bool, Float, Int

_MISSES_TO_A_HIT = 4


def worst_first(ranks: Int[np.ndarray, " q"], similarities: Float[np.ndarray, " q"]) -> Int[np.ndarray, " q"]:
    """Queries by the rank of the first right neighbour, the last first; 0, none at all, is the worst.

    Args:
        similarities: Of the nearest. Among equals the surest mistake and the least sure hit come first.

    >>> worst_first(np.array([1, 3, 0, 3]), np.array([0.9, 0.5, 0.1, 0.8])).tolist()
    [2, 3, 1, 0]
    """
    late = np.where(ranks > 0, ranks, np.iinfo(np.int64).max)
    sure = np.where(ranks == 1, similarities, -similarities)
    return np.lexsort((sure, -late))


def evenly(ordered: Int[np.ndarray, " m"], labels: Int[np.ndarray, " q"]) -> Int[np.ndarray, " m"]:
    """The same queries, the first of each class first, then the second of each, and so on."""
    so_far: Counter[int] = Counter()
    turn = []
    for label in labels[ordered].tolist():
        turn.append(so_far[label])
        so_far[label] += 1
    return ordered[np.argsort(turn, kind="stable")]


def most_telling(
    worst: Int[np.ndarray, " q"], is_hit: Bool[np.ndarray, " q"], labels: Int[np.ndarray, " q"]
) -> Int[np.ndarray, " q"]:
    """Four mistakes and a hit in turn, as long as there are both; the classes in turn within each.

    Args:
        worst: As ``worst_first`` has them: mistakes come in this order, hits in one by chance (the same each time).
    """
    misses = evenly(worst[~is_hit[worst]], labels)
    hits = evenly(np.random.default_rng(0).permutation(np.flatnonzero(is_hit)), labels)
    turns = [np.arange(len(misses)), _MISSES_TO_A_HIT * np.arange(1, len(hits) + 1) - 0.5]
    return np.concatenate([misses, hits])[np.argsort(np.concatenate(turns), kind="stable")]
