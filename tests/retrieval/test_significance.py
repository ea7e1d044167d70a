import itertools
import math
import time

import jaxtyping
import numpy as np
import pytest
from scipy import stats

from likeness.errors import LikenessError
from likeness.retrieval.significance import holm, mean_interval, paired, seeds_interval, wilson


@pytest.fixture
def unchecked_shapes():
    """What users run: shapes are checked under pytest alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def column(*values):
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    interval = wilson(successes, n)
    assert interval == pytest.approx((successes / n, low, high), abs=5e-5)


def test_wilson_is_symmetric_and_holds_its_ends():
    assert wilson(0, 10).low == 0
    assert wilson(10, 10).high == 1
    assert wilson(3, 10).low == pytest.approx(1 - wilson(7, 10).high)
    assert wilson(3, 10, level=0.5).high < wilson(3, 10).high


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(LikenessError, match=f"{successes} of {n}"):
        wilson(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_outside_of_0_to_1_is_refused(level):
    for call in (lambda: wilson(1, 2, level), lambda: seeds_interval([1.0, 2.0], level)):
        with pytest.raises(LikenessError, match=f"level={level}"):
            call()
    with pytest.raises(LikenessError, match=f"level={level}"):
        mean_interval(column(1, 2), level=level)


def test_the_bootstrap_equals_its_exact_distribution():
    # Three values have 27 resamples, so that the quantiles are known.
    values = column(0, 1, 5)
    exact = sorted(np.mean(draw) for draw in itertools.product(values, repeat=3))
    interval = mean_interval(values, level=0.8)
    low, high = np.quantile(exact, (0.1, 0.9), method="inverted_cdf")
    assert interval == pytest.approx((2.0, low, high))


def test_the_bootstrap_draws_groups_whole():
    values, groups = column(1, 1, 1, 0), np.array([4, 4, 4, 9])
    exact = [1.0, 0.75, 0.75, 0.0]
    interval = mean_interval(values, groups)
    assert interval == (0.75, min(exact), max(exact))


def test_unknown_groups_are_queries_on_their_own():
    values = np.random.default_rng(0).random(30)
    alone = mean_interval(values)
    assert mean_interval(values, np.full(30, -1)) == alone
    assert mean_interval(values, np.arange(30)) == alone


def test_the_bootstrap_is_the_same_again_and_another_with_another_seed():
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = [low <= 0.7 <= high for _, low, high in (mean_interval((rng.random(80) < 0.7) * 1.0) for _ in range(150))]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_groups_widen_the_interval_when_their_queries_agree():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 10)
    values = np.repeat(rng.random(40), 10)
    assert np.ptp(mean_interval(values, groups)[1:]) > 2 * np.ptp(mean_interval(values)[1:])


def test_one_group_says_nothing_of_the_spread():
    interval = mean_interval(column(0.2, 0.4), np.array([3, 3]))
    assert interval.value == pytest.approx(0.3)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


@pytest.mark.parametrize("values", [column(), column(1, np.nan)])
def test_values_that_are_missing_or_not_finite_are_refused(values):
    for call in (mean_interval, seeds_interval):
        with pytest.raises(LikenessError, match="not finite"):
            call(values)


def test_groups_of_another_length_are_refused(unchecked_shapes):
    with pytest.raises(LikenessError, match="2 groups for 3 values"):
        mean_interval(column(1, 2, 3), np.array([1, 2]))


def test_equal_inputs_do_not_differ():
    values = column(0, 1, 1, 0.5)
    for groups in (None, np.array([1, 1, 2, -1])):
        assert paired(values, values, groups) == (0, 0, 0, 1)
    assert paired(column(0, 1), column(0, 1)) == (0, 0, 0, 1)


def test_hits_without_groups_take_the_exact_mcnemar_test():
    # Six queries won, one lost: 2 * (C(7, 0) + C(7, 1)) / 2^7.
    a, b = column(*[1] * 6, 0, *[1] * 5, *[0] * 3), column(*[0] * 6, 1, *[1] * 5, *[0] * 3)
    result = paired(a, b)
    assert result.p == pytest.approx(2 * 8 / 128)
    assert result.difference == pytest.approx(5 / 15)
    assert result.low < 5 / 15 < result.high
    assert paired(b, a).difference == -result.difference
    assert paired(b, a).p == pytest.approx(result.p)


def test_other_values_take_the_sign_flip_test():
    difference = column(1, 2, 3, 4, -0.5)
    exact = np.mean([abs(np.dot(signs, difference)) >= 9.5 for signs in itertools.product((-1, 1), repeat=5)])
    assert exact == 4 / 32
    assert paired(difference, np.zeros(5)).p == pytest.approx(exact, abs=0.012)


def test_signs_flip_by_group():
    # Two homes that agree within themselves are two observations, not twenty.
    a, b, homes = np.ones(20), np.zeros(20), np.repeat([1, 2], 10)
    assert paired(a, b).p == pytest.approx(2 / 2**20)
    assert paired(a, b, homes).p == pytest.approx(0.5, abs=0.02)


def test_no_p_value_is_zero():
    assert paired(np.full(60, 0.5), np.zeros(60)).p == 1 / 10_001


def test_a_difference_that_is_none_is_seldom_found():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(30), 3)
    found = [paired(rng.random(90), rng.random(90), groups).p < 0.05 for _ in range(100)]
    assert np.mean(found) <= 0.12


def test_lengths_that_differ_are_refused(unchecked_shapes):
    with pytest.raises(LikenessError, match="2 values against 1"):
        paired(column(1, 2), column(1))


def test_a_comparison_of_a_thousand_queries_is_quick():
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 1100)).round()
    started = time.perf_counter()
    paired(a, b)
    assert time.perf_counter() - started < 3


def test_holm_adjusts_in_the_order_given():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([0.02]).tolist() == [0.02]
    assert holm([]).tolist() == []


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p_value(p):
    with pytest.raises(LikenessError, match="not in"):
        holm([0.5, p])


def test_seeds_take_students_t():
    values = [0.761, 0.773, 0.768, 0.759]
    interval = seeds_interval(values)
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval == pytest.approx((np.mean(values), *expected))
    # Gosset's table: 4.303 for two degrees of freedom.
    assert seeds_interval([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.303 / 3**0.5, abs=5e-4)


def test_one_seed_has_no_interval():
    interval = seeds_interval([0.7])
    assert interval.value == 0.7
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
