"""Is a picture anything like the gallery at all? A score, a threshold for it, and how good both are.

The score is the mean cosine to the ``NEAREST`` nearest pictures of the gallery. Where one class of rooms was left out
of the gallery it tells known from outside better than the nearest picture alone does (docs/finding_votes.md).

*Known* is a picture of a kind that the gallery has, *outside* one of a kind that it has not. Axes: q pictures, k their
neighbours, nearest first; n known pictures, m outside ones.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from scipy import stats

from likeness.retrieval.rows import refusal
from likeness.retrieval.significance import Interval, Paired, plain, wilson

NEAREST = 10
RATE = 0.05
_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)


def knn_score(similarities: Float[np.ndarray, "q k"], nearest: int = NEAREST) -> Float[np.ndarray, "q"]:
    """The mean cosine of each picture to its ``nearest`` neighbours, or to all where there are fewer.

    -inf, of neighbours that are not there, is left out; a picture without any has -inf.

    >>> knn_score(np.array([[0.9, 0.5, 0.1], [0.4, -np.inf, -np.inf]]), nearest=2).tolist()
    [0.7, 0.4]
    """
    nearest_qk = np.asarray(similarities, np.float64)[:, :nearest]
    there_qk = nearest_qk > -np.inf
    total_q, count_q = np.where(there_qk, nearest_qk, 0.0).sum(1), there_qk.sum(1)
    return np.where(count_q > 0, total_q / np.maximum(count_q, 1), -np.inf)


class Threshold(NamedTuple):
    """The least score of a picture that passes as known; as JSON, ``_asdict()`` and ``Threshold(**kept)``.

    Attributes:
        value: Scores below it are outside.
        rate: The share of known pictures that may be rejected.
        n: Held-out known pictures that it was calibrated on.
    """

    value: float
    rate: float
    n: int

    def attained(self, level: float = 0.95) -> tuple[float, float]:
        """Bounds of the rate at which known pictures will in fact be rejected: it depends on the n that were drawn.

        Given those, and no ties, it follows Beta(r, n + 1 - r), r = ⌊rate (n + 1)⌋ (Vovk 2012, "Conditional validity
        of inductive conformal predictors"); where they come several a home, it varies more than that.
        """
        rank = _rank(self.rate, self.n)
        tail = (1 - level) / 2
        low, high = stats.beta.ppf([tail, 1 - tail], rank, self.n + 1 - rank)
        return float(low), float(high)


def calibrate(scores: Float[np.ndarray, "n"], rate: float = RATE) -> Threshold:
    """The threshold that a new known picture misses with probability ``rate`` at most.

    It is the r-th smallest of the n scores, r = ⌊rate (n + 1)⌋. A new picture that is drawn like these is as likely to
    have any rank among all n + 1; it is below the threshold only where it is among the r smallest: with probability
    r / (n + 1), so at most ``rate`` and above ``rate`` - 1 / (n + 1), ties aside (split conformal prediction: Vovk et
    al. 2005; Bates et al. 2023, "Testing for outliers with conformal p-values").

    Args:
        scores: Of known pictures that are neither in the gallery nor were trained on, each against the gallery.

    >>> calibrate(np.arange(1.0, 40.0), rate=0.05)
    Threshold(value=2.0, rate=0.05, n=39)

    Raises:
        LikenessError: RETRIEVAL when ``rate`` is not in (0, 1), there are too few scores for it, one is NaN, or the
            threshold would be infinite.
    """
    known_n = np.sort(_column(scores))
    if not 0 < rate < 1:
        raise refusal(f"rate={rate} is not between 0 and 1.", "For example rate=0.05.")
    if (rank := _rank(rate, len(known_n))) < 1:
        raise refusal(
            f"a false-rejection rate of {rate:g} needs {math.ceil(1 / Fraction(str(rate))) - 1} known pictures to "
            f"calibrate on, and there are {len(known_n)}.",
            "Hold more of them out, or allow a higher rate.",
        )
    if not np.isfinite(value := float(known_n[rank - 1])):
        raise refusal(
            f"{np.isneginf(known_n).sum()} of {len(known_n)} pictures to calibrate on are like nothing at all.",
            "Look for codes of zeros, or allow a higher rate.",
        )
    return Threshold(value, rate, len(known_n))


def is_known(scores: Float[np.ndarray, "q"], threshold: Threshold) -> Bool[np.ndarray, "q"]:
    """Whether each picture is like the gallery: its score, by the same function as in ``calibrate``, is no less.

    >>> is_known(np.array([1.9, 2.0, 7.0]), Threshold(value=2.0, rate=0.05, n=39)).tolist()
    [False, True, True]
    """
    return np.asarray(scores, np.float64) >= threshold.value


def auroc(
    known: Float[np.ndarray, "n"],
    outside: Float[np.ndarray, "m"],
    known_groups: Int[np.ndarray, "n"] | None = None,
    outside_groups: Int[np.ndarray, "m"] | None = None,
    level: float = 0.95,
) -> Interval:
    """The probability that a known picture has a greater score than one from outside, ties counted half.

    Exact (Mann and Whitney 1947). The variance is that of Obuchowski (1997, "Nonparametric analysis of clustered ROC
    curve data") with homes as clusters, which may have pictures of both kinds; without groups that is DeLong et al.
    (1988). The interval is symmetric in the logit, so that it stays within [0, 1]. Its bounds are NaN where there is no
    spread: the two kinds do not overlap, or one has a single group.

    Args:
        known_groups, outside_groups: For instance homes, by the same numbers; negative is unknown, a group of its own.

    Raises:
        LikenessError: RETRIEVAL when a side has no picture, or a score is NaN.
    """
    placements = _placements(known, outside)
    value, deviation = placements.mean, _deviation(placements, known_groups, outside_groups)
    if not 0 < value < 1 or not deviation > 0:
        return Interval(value, np.nan, np.nan)
    reach = stats.norm.ppf((1 + level) / 2) * deviation / (value * (1 - value))
    logit = np.log(value / (1 - value))
    low, high = (float(1 / (1 + np.exp(-(logit + side * reach)))) for side in (-1, 1))
    return Interval(value, low, high)


def auroc_difference(
    known: Sequence[Float[np.ndarray, "n"]],
    outside: Sequence[Float[np.ndarray, "m"]],
    known_groups: Int[np.ndarray, "n"] | None = None,
    outside_groups: Int[np.ndarray, "m"] | None = None,
    level: float = 0.95,
) -> Paired:
    """The AUROC of the first scores minus that of the second, of the same pictures, as DeLong et al. compare them.

    Variance as in ``auroc``; the p value is of a normal, two-sided. Equal scores give 0, [0, 0] and 1.
    """
    (known_a, known_b), (outside_a, outside_b) = known, outside
    a, b = _placements(known_a, outside_a), _placements(known_b, outside_b)
    both = _Placements(a.known - b.known, a.outside - b.outside)
    deviation = _deviation(both, known_groups, outside_groups)
    difference = a.mean - b.mean
    if not deviation > 0:
        same = not (both.known.any() or both.outside.any())
        return Paired(difference, *((0.0, 0.0, 1.0) if same else (np.nan, np.nan, np.nan)))
    reach = float(stats.norm.ppf((1 + level) / 2) * deviation)
    p = float(2 * stats.norm.sf(abs(difference) / deviation))
    return Paired(difference, difference - reach, difference + reach, p)


class _Placements(NamedTuple):
    """Of each known picture the share of outside ones below it, of each outside one that of known ones above it."""

    known: Float[np.ndarray, "n"]
    outside: Float[np.ndarray, "m"]

    @property
    def mean(self) -> float:
        return float(self.known.mean())


def _placements(known: Float[np.ndarray, "n"], outside: Float[np.ndarray, "m"]) -> _Placements:
    known_n, outside_m = _column(known), _column(outside)
    return _Placements(_share_below(known_n, outside_m), _share_below(-outside_m, -known_n))


def _share_below(values: Float[np.ndarray, "n"], others: Float[np.ndarray, "m"]) -> Float[np.ndarray, "n"]:
    """The share of the others that are less than each value, equal ones counted half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right")) / (2 * len(others))


def _deviation(
    placements: _Placements,
    known_groups: Int[np.ndarray, "n"] | None,
    outside_groups: Int[np.ndarray, "m"] | None,
) -> float:
    """Standard deviation of the mean placement; NaN where a side has a single group."""
    n, m = len(placements.known), len(placements.outside)
    groups = np.concatenate([_or_alone(known_groups, n), _or_alone(outside_groups, m)])
    members = np.unique(np.where(groups < 0, groups.max() + 1 + np.arange(n + m), groups), return_inverse=True)[1]
    sides = ((placements.known, members[:n]), (placements.outside, members[n:]))
    # Each group's sum, without what it would be if all its pictures had the mean.
    known_c, outside_c = (np.bincount(at, part - placements.mean, members.max() + 1) for part, at in sides)
    clusters = len(known_c)
    own = [len(np.unique(at)) for _, at in sides]
    if min(own) < 2:
        return np.nan
    variance = own[0] / (own[0] - 1) * (known_c**2).sum() / n**2
    variance += own[1] / (own[1] - 1) * (outside_c**2).sum() / m**2
    variance += 2 * clusters / (clusters - 1) * (known_c * outside_c).sum() / (n * m)
    return float(np.sqrt(max(variance, 0.0)))


def _or_alone(groups: Int[np.ndarray, "n"] | None, count: int) -> Int[np.ndarray, "n"]:
    return np.full(count, -1) if groups is None else np.asarray(groups, np.int64)


def accepted_outside(known: Float[np.ndarray, "n"], outside: Float[np.ndarray, "m"], passed: float = 0.95) -> float:
    """The share of outside pictures that pass where at least ``passed`` of the known ones do: FPR at 95 % TPR.

    The threshold is the greatest that lets so many known pictures pass, so that the two are of the same pictures.

    >>> accepted_outside(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.5, 2.0, 0.5]), passed=0.75)
    0.25
    """
    known_n, outside_m = np.sort(_column(known)), _column(outside)
    least = math.ceil(Fraction(str(passed)) * len(known_n))
    return float((outside_m >= known_n[len(known_n) - least]).mean())


class Coverage(NamedTuple):
    """What is answered, and how well, as the threshold falls: from the surest picture to all of them.

    Attributes:
        threshold: Each score that there is, descending.
        coverage: The share of pictures with that score or a greater one.
        hit: The mean hit of these pictures.
    """

    threshold: Float[np.ndarray, "t"]
    coverage: Float[np.ndarray, "t"]
    hit: Float[np.ndarray, "t"]


def coverage_curve(scores: Float[np.ndarray, "q"], hits: Float[np.ndarray, "q"]) -> Coverage:
    """The hits of the pictures that a threshold lets pass, for every threshold (El-Yaniv and Wiener 2010).

    >>> curve = coverage_curve(np.array([0.9, 0.8, 0.8, 0.1]), np.array([1.0, 1.0, 0.0, 0.0]))
    >>> curve.coverage.tolist(), curve.hit.round(3).tolist()
    ([0.25, 0.75, 1.0], [1.0, 0.667, 0.5])

    Raises:
        LikenessError: RETRIEVAL when there is no picture, or a score is NaN.
    """
    order = np.argsort(-_column(scores), kind="stable")
    ordered = np.asarray(scores, np.float64)[order]
    last_t = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # equal scores pass together
    hit = np.cumsum(np.asarray(hits, np.float64)[order])[last_t] / (last_t + 1)
    return Coverage(ordered[last_t], (last_t + 1) / len(order), hit)


@dataclass(frozen=True)
class Scored:
    """One method's score of each picture, by what it is; homes, -1 where unknown; and the known ones' hits by k."""

    held_out: Float[np.ndarray, "h"]
    known: Float[np.ndarray, "n"]
    outside: Float[np.ndarray, "m"]
    known_homes: Int64[np.ndarray, "n"]
    outside_homes: Int64[np.ndarray, "m"]
    hits: Mapping[int, Float[np.ndarray, "n"]]


def compare_scored(scored: Mapping[str, Scored], rate: float) -> dict[str, Any]:
    """Every method, and the head against each baseline, as plain values.

    Args:
        scored: By method, ``head`` among them; all of the same pictures.
        rate: As of ``calibrate``, which gets ``held_out``; all else is of ``known`` and ``outside``.
    """
    head = scored["head"]
    return {
        "rate": rate,
        "n": {"held_out": len(head.held_out), "known": len(head.known), "outside": len(head.outside)},
        **{name: _of_method(own, rate) for name, own in scored.items()},
        "paired": {f"head-{name}": {"auroc": _paired(head, own)} for name, own in scored.items() if name != "head"},
    }


def _of_method(own: Scored, rate: float) -> dict[str, Any]:
    threshold = calibrate(own.held_out, rate)
    passes, strangers_pass = is_known(own.known, threshold), is_known(own.outside, threshold)
    return {
        "auroc": plain(auroc(own.known, own.outside, own.known_homes, own.outside_homes)),
        "accepted_at_95": accepted_outside(own.known, own.outside),
        "threshold": {**threshold._asdict(), "attained": list(threshold.attained())},
        "known_rejected": plain(wilson(int((~passes).sum()), len(passes))),
        "outside_accepted": plain(wilson(int(strangers_pass.sum()), len(strangers_pass))),
        **{f"hit@{k}": {"all": _mean(hits), "accepted": _mean(hits[passes])} for k, hits in own.hits.items()},
        "coverage": list(_coverages(own)),
    }


def _mean(hits: Float[np.ndarray, "n"]) -> dict[str, float | None] | None:
    return plain(wilson(round(hits.sum()), len(hits))) if len(hits) else None


def _coverages(own: Scored) -> Iterator[dict[str, float]]:
    """Of the surest known pictures, so large a share of them at least, the hits."""
    curves = {k: coverage_curve(own.known, hits) for k, hits in own.hits.items()}
    for share in _COVERAGES:
        row = {"coverage": share}
        for k, curve in curves.items():
            row[f"hit@{k}"] = float(curve.hit[np.searchsorted(curve.coverage, share - 1e-12)])
        yield row


def _paired(head: Scored, other: Scored) -> dict[str, float | None]:
    homes = head.known_homes, head.outside_homes
    return plain(auroc_difference((head.known, other.known), (head.outside, other.outside), *homes))


def _rank(rate: float, n: int) -> int:
    """⌊rate (n + 1)⌋ of the rate as it is written: 0.29 times 100 is 29."""
    return math.floor(Fraction(str(rate)) * (n + 1))


def _column(scores: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    column = np.asarray(scores, np.float64)
    if not len(column) or np.isnan(column).any():
        raise refusal(
            f"{np.isnan(column).sum()} of {len(column)} scores are NaN; at least one is needed, and none may be.",
            "Give known pictures and pictures from outside, each with its similarities to the gallery.",
        )
    return column
