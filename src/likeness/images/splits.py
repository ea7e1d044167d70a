"""Who is in train, val and test, decided by names and a seed alone: no clock, no platform, no order of listing."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int64

SPLITS = ("train", "val", "test")


def quotas(count: int, shares: Sequence[float]) -> list[int]:
    """``count`` items in parts of the given relative size, whole numbers by largest remainder (ties: earlier part).

    >>> quotas(7, (0.6, 0.2, 0.2))
    [4, 2, 1]
    """
    exact = [Fraction(str(share)) for share in shares]
    wanted = [count * share / sum(exact) for share in exact]
    parts = [int(part) for part in wanted]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - wanted[i], i))
    for i in by_remainder[: count - sum(parts)]:
        parts[i] += 1
    return parts


def seeded_split(
    names: Sequence[str],
    labels: Int64[np.ndarray, " n"],
    homes: Int64[np.ndarray, " n"],
    home_names: Sequence[str],
    fractions: Sequence[float],
    seed: int,
) -> Int64[np.ndarray, " n"]:
    """The part, 0 to ``len(fractions) - 1``, of each image; every class in the stated fractions, homes kept whole.

    Homes are visited in the order of a hash of (seed, home) and each goes where its classes are missing most (ties:
    the smaller part). Images without a home (-1) then fill what is left of each class, in the order of a hash of
    (seed, name); where no image has a home, the parts of a class are exact up to rounding.

    Args:
        fractions: Relative to their sum.
        names: Distinct; the paths relative to the dataset's root, so that a moved dataset is split alike.
        labels: 0 or more.
    """
    parts = np.full(len(labels), -1)
    housed, alone = np.flatnonzero(homes >= 0), np.flatnonzero(homes < 0)
    parts[housed] = _home_parts(labels[housed], homes[housed], home_names, fractions, seed)[homes[housed]]
    for label in np.unique(labels[alone]).tolist():
        in_class = labels == label
        members = sorted(alone[in_class[alone]].tolist(), key=lambda i: hashed(seed, names[i]))
        placed = np.bincount(parts[in_class & (parts >= 0)], minlength=len(fractions))
        missing = np.maximum(quotas(int(in_class.sum()), fractions) - placed, 0.0)
        parts[members] = np.repeat(np.arange(len(fractions)), quotas(len(members), missing.tolist()))
    return parts


def hashed(seed: int, name: str) -> bytes:
    """What an order drawn by the seed sorts by: of the name alone, whatever else there is."""
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()


def _home_parts(
    labels: Int64[np.ndarray, " n"],
    homes: Int64[np.ndarray, " n"],
    home_names: Sequence[str],
    fractions: Sequence[float],
    seed: int,
) -> Int64[np.ndarray, " homes"]:
    sizes = np.bincount(labels)
    pairs, counts = np.unique(homes * len(sizes) + labels, return_counts=True)
    home_of, class_of = np.divmod(pairs, len(sizes))
    added = (counts / sizes[class_of])[:, None]
    spans = list(pairwise([*np.flatnonzero(np.diff(home_of, prepend=-1)).tolist(), len(pairs)]))
    spans.sort(key=lambda span: hashed(seed, home_names[home_of[span[0]]]))
    wanted = np.asarray(fractions, float) / sum(fractions)
    missing = np.tile(wanted, (len(sizes), 1))
    ties = np.argsort(wanted, kind="stable")
    parts = np.zeros(len(home_names), int)
    for start, stop in spans:
        classes, share = class_of[start:stop], added[start:stop]
        best = ties[np.argmax(_gains(share, missing[classes], wanted)[ties])]
        missing[classes, best] -= share[:, 0]
        parts[home_of[start]] = best
    return parts


def _gains(
    added: Float[np.ndarray, "classes 1"],
    missing: Float[np.ndarray, "classes parts"],
    wanted: Float[np.ndarray, " parts"],
) -> Float[np.ndarray, " parts"]:
    """How much nearer each part comes to its fractions when it gets a home.

    A part of size f that misses the share m of a class and is given a has its squared error, relative to f, lowered by
    a (2 m - a) / f. Rounded, so that a tie is a tie on every machine.
    """
    return np.round((added * (2 * missing - added)).sum(0) / wanted, 9)
