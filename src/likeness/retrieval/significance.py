"""How sure a score is, and whether a difference is one.

What is resampled is groups of queries (the pictures of a home are not independent of each other), never rows of codes:
a copy of a query in its own gallery would find itself.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from likeness.errors import LikenessError

_MOST_RESAMPLES, _FEWEST_RESAMPLES = 10_000, 1_000
# Up to 20 000 groups get all the resamples, 200 000 groups the fewest.
_DRAWS = _MOST_RESAMPLES * 20_000
_DRAWS_AT_ONCE = 2**20
_MOST_KEPT = 2_000  # groups


class Interval(NamedTuple):
    """A value and the bounds of its confidence interval; they are NaN where a single observation shows no spread."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """Mean of ``a - b`` over the same queries, the bounds of its confidence interval, and a two-sided p value."""

    difference: float
    low: float
    high: float
    p: float


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Interval of a proportion (Wilson 1927); honest for few queries and for 0 and ``n`` successes.

    >>> "{:.3f} {:.3f} {:.3f}".format(*wilson(8, 10))
    '0.800 0.490 0.943'

    Raises:
        LikenessError: RETRIEVAL when ``n`` is not positive, ``successes`` not in 0..n or ``level`` not in (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise _refusal(f"{successes} of {n} is no proportion.", "Count at least one query (not all may be skipped).")
    z = float(stats.norm.ppf(_upper(level)))
    share = successes / n
    centre = share + z**2 / (2 * n)
    reach = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = ((centre + side * reach) / (1 + z**2 / n) for side in (-1, 1))
    return Interval(share, low if successes else 0.0, high if successes < n else 1.0)


def mean_interval(
    values: Float[np.ndarray, "n"], groups: Int[np.ndarray, "n"] | None = None, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of a measure, with a percentile bootstrap over groups: for what is no proportion.

    10 000 resamples; beyond 20 000 groups fewer, down to 1 000. A negative group is unknown: such a query is a group of
    its own, as all are without ``groups``. With a single group the bounds are NaN.

    Raises:
        LikenessError: RETRIEVAL when there is no value, one is not finite, or ``level`` is not in (0, 1).
    """
    totals, sizes = _by_group(values, groups)
    return Interval(float(totals.sum() / sizes.sum()), *_bootstrap(totals, sizes, level, seed))


def paired(
    a: Float[np.ndarray, "n"],
    b: Float[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Paired:
    """Whether ``a`` and ``b``, measured on the same queries in the same order, differ in the mean.

    The interval is that of ``mean_interval`` on ``a - b``. The p value is that of the exact McNemar test (1947) where
    all values are 0 or 1 and no group has two queries; else of a test that flips the sign of whole groups, with as many
    draws as the bootstrap, so that it is never below 1 / (draws + 1). Equal inputs give 0, [0, 0] and 1.

    Raises:
        LikenessError: RETRIEVAL when lengths differ, and as ``mean_interval``.
    """
    if len(a) != len(b):
        raise _refusal(f"{len(a)} values against {len(b)}.", "Compare both on the same queries, in the same order.")
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    totals, sizes = _by_group(differences, groups)
    binary = np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()
    p = _mcnemar(differences) if binary and sizes.max() == 1 else _sign_flip(totals, seed)
    return Paired(float(differences.mean()), *_bootstrap(totals, sizes, level, seed), p)


def holm(p_values: Sequence[float] | Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
    """P values adjusted for their number (Holm 1979), in the order given; compare them with the level as they are.

    >>> [float(p) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]

    Raises:
        LikenessError: RETRIEVAL when one is not in [0, 1].
    """
    given = np.asarray(p_values, np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        raise _refusal(f"p values {given[~((given >= 0) & (given <= 1))]} are not in [0, 1].", "Leave them out.")
    order = np.argsort(given, kind="stable")
    adjusted = np.empty_like(given)
    adjusted[order] = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)).clip(max=1)
    return adjusted


def seeds_interval(values: Sequence[float] | Float[np.ndarray, "m"], level: float = 0.95) -> Interval:
    """Mean over runs that differ in their seed alone, with Student's t interval; one run has NaN for bounds.

    Raises:
        LikenessError: RETRIEVAL when there is no value, one is not finite, or ``level`` is not in (0, 1).
    """
    runs = _column(values)
    quantile = stats.t.ppf(_upper(level), len(runs) - 1)
    spread = runs.std(ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else np.nan
    mean, reach = float(runs.mean()), float(quantile * spread)
    return Interval(mean, mean - reach, mean + reach)


def plain(found: Interval | Paired) -> dict[str, float | None]:
    """By name; None where there is no bound, as with a single home: JSON has no NaN."""
    return {name: None if np.isnan(value) else float(value) for name, value in found._asdict().items()}


def _column(values: Sequence[float] | Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    column = np.asarray(values, np.float64)
    if not len(column) or not np.isfinite(column).all():
        raise _refusal(
            f"{(~np.isfinite(column)).sum()} of {len(column)} values are not finite; finite ones are needed.",
            "Pass counted queries only, and do not skip them all.",
        )
    return column


def _upper(level: float) -> float:
    if not 0 < level < 1:
        raise _refusal(f"level={level} is not between 0 and 1.", "For example level=0.95.")
    return (1 + level) / 2


def _by_group(
    values: Float[np.ndarray, "n"], groups: Int[np.ndarray, "n"] | None
) -> tuple[Float[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """Sum and number of the values of each group."""
    column = _column(values)
    if groups is None:
        return column, np.ones(len(column), np.int64)
    if len(groups) != len(column):
        raise _refusal(f"{len(groups)} groups for {len(column)} values.", "Pass one group a query.")
    alone = groups.max() + 1 + np.arange(len(groups))
    members = np.unique(np.where(groups < 0, alone, groups), return_inverse=True)[1]
    return np.bincount(members, column), np.bincount(members)


def _bootstrap(
    totals: Float[np.ndarray, "m"], sizes: Int[np.ndarray, "m"], level: float, seed: int
) -> tuple[float, float]:
    tail, alone = 1 - _upper(level), sizes.max() == 1
    if len(totals) == 1:
        return np.nan, np.nan

    parts = _kept_resamples(len(totals), seed) if len(totals) <= _MOST_KEPT else _resamples(len(totals), seed)
    means = [part @ totals / (len(totals) if alone else part @ sizes) for part in parts]
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return float(low), float(high)


def _resamples(groups: int, seed: int) -> Iterator[Float[np.ndarray, "draws groups"]]:
    """How often each group is in each resample, some resamples at a time."""
    rng = np.random.default_rng(seed)
    for draws in _chunks(groups):
        drawn = rng.integers(groups, size=(draws, groups)) + groups * np.arange(draws)[:, None]
        yield np.bincount(drawn.ravel(), minlength=draws * groups).reshape(draws, groups).astype(np.float64)


@lru_cache(maxsize=2)
def _kept_resamples(groups: int, seed: int) -> list[Float[np.ndarray, "draws groups"]]:
    """The same resamples serve every measure of the same queries, of val and test in job after job; at most 320 MB."""
    return list(_resamples(groups, seed))


def _mcnemar(differences: Float[np.ndarray, "n"]) -> float:
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def _sign_flip(totals: Float[np.ndarray, "m"], seed: int) -> float:
    # Sums of the same numbers in another order differ in the last digits and are the same sum.
    reached = abs(totals.sum()) - 1e-12 * np.abs(totals).sum()

    def flipped(rng: np.random.Generator, draws: int) -> Float[np.ndarray, "draws"]:
        noise = rng.integers(256, size=(draws, -(-len(totals) // 8)), dtype=np.uint8)
        return totals.sum() - 2 * (np.unpackbits(noise, axis=1, count=len(totals)) @ totals)

    sums = np.abs(_resampled(flipped, len(totals), seed))
    return float((1 + (sums >= reached).sum()) / (1 + len(sums)))


def _resampled(
    statistic: Callable[[np.random.Generator, int], Float[np.ndarray, "draws"]], groups: int, seed: int
) -> Float[np.ndarray, "resamples"]:
    """The statistic of all resamples, some at a time."""
    rng = np.random.default_rng(seed)
    return np.concatenate([statistic(rng, draws) for draws in _chunks(groups)])


def _chunks(groups: int) -> Iterator[int]:
    left = min(_MOST_RESAMPLES, max(_FEWEST_RESAMPLES, _DRAWS // groups))
    size = max(1, _DRAWS_AT_ONCE // groups)
    while left > 0:
        yield min(left, size)
        left -= size


def _refusal(what: str, fix: str) -> LikenessError:
    return LikenessError("RETRIEVAL", what, fix=fix)
