"""Scores, thresholds and AUROC: by hand, by scikit-learn, and by loops over all pairs."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from likeness.errors import LikenessError
from likeness.retrieval.rejection import (
    Threshold,
    accepted_outside,
    auroc,
    auroc_difference,
    calibrate,
    coverage_curve,
    is_known,
    knn_score,
)


def column(*values):
    return np.array(values, dtype=np.float64)


def test_a_score_is_the_mean_of_the_nearest_that_there_are():
    similarities = np.array([[0.9, 0.7, 0.2], [0.5, -0.5, -np.inf], [-np.inf, -np.inf, -np.inf]])
    assert knn_score(similarities, nearest=1).tolist() == [0.9, 0.5, -np.inf]
    assert knn_score(similarities, nearest=2).tolist() == pytest.approx([0.8, 0.0, -np.inf])
    assert knn_score(similarities).tolist() == pytest.approx([0.6, 0.0, -np.inf])


def test_the_threshold_is_the_quantile_of_one_more_picture():
    """Of 19 scores a rate of 0.05 is one of 20, and one of 0.1 is two: the smallest, and the second smallest."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))
    assert calibrate(scores, 0.05) == (1.0, 0.05, 19)
    assert calibrate(scores, 0.1) == (2.0, 0.1, 19)
    assert calibrate(scores, 0.149).value == 2.0
    assert calibrate(np.arange(1.0, 100.0), 0.29).value == 29.0  # in floating point 0.29 * 100 is less than 29


def test_too_few_pictures_for_a_rate_are_refused_with_the_number_that_it_takes():
    with pytest.raises(LikenessError, match=r"rate of 0.05 needs 19 known pictures to calibrate on, and there are 18"):
        calibrate(np.arange(18.0), 0.05)
    with pytest.raises(LikenessError, match="needs 33 known pictures"):
        calibrate(np.arange(3.0), 0.03)
    with pytest.raises(LikenessError, match="1 of 2 scores are NaN"):
        calibrate(column(1.0, np.nan))
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(LikenessError, match=f"rate={rate} is not between 0 and 1"):
            calibrate(np.arange(99.0), rate)


@pytest.mark.parametrize(("n", "rate", "rank"), [(4, 0.2, 1), (4, 0.4, 2), (4, 0.5, 2), (5, 0.5, 3)])
def test_a_new_picture_is_rejected_as_often_as_was_said_over_every_order(n, rate, rank):
    """Each of n + 1 scores in turn is the new one, calibrated on the others: the guarantee, counted."""
    scores = np.arange(1.0, n + 2)
    rejected = [not is_known(scores[i : i + 1], calibrate(np.delete(scores, i), rate))[0] for i in range(n + 1)]
    assert sum(rejected) == rank
    assert sum(rejected) / (n + 1) <= rate


@given(st.lists(st.integers(-3, 3), min_size=5, max_size=30), st.sampled_from([0.2, 0.25, 0.5, 0.9]))
def test_ties_reject_no_more_and_a_p_value_says_the_same(values, rate):
    """The conformal p value of a score: the share of the calibration's, and of itself, that are no greater."""
    scores = column(*values)
    threshold = calibrate(scores, rate)
    for new in range(-4, 5):
        p = (1 + (scores <= new).sum()) / (len(scores) + 1)
        assert is_known(column(new), threshold)[0] == (p > rate + 1e-12)
    assert (~is_known(scores, threshold)).mean() <= rate + 1 / len(scores)


def test_a_threshold_is_kept_as_json():
    threshold = calibrate(np.linspace(0.1, 0.9, 40), 0.1)
    kept = json.loads(json.dumps(threshold._asdict(), allow_nan=False))
    assert kept.keys() == {"value", "rate", "n"}
    assert Threshold(**kept) == threshold


def test_the_attained_rate_is_that_of_many_calibrations():
    """On 99 uniform scores a rate of 0.05 is Beta(5, 95): below the threshold u lies the share u of all pictures."""
    low, high = Threshold(0.0, 0.05, 99).attained()
    assert (low, high) == pytest.approx(stats.beta(5, 95).ppf([0.025, 0.975]))
    drawn = np.random.default_rng(0).random((4000, 99))
    rates = np.array([calibrate(scores).value for scores in drawn])
    assert rates.mean() == pytest.approx(5 / 100, abs=0.002)
    assert ((rates >= low) & (rates <= high)).mean() == pytest.approx(0.95, abs=0.015)


def test_auroc_by_hand():
    """Of 3 × 2 pairs four are in order and one is a tie."""
    assert auroc(column(3, 2, 1), column(2, 0)).value == (2 + 1.5 + 1) / 6
    assert auroc(column(1, 2), column(-1, 0)).value == 1
    assert auroc(column(1, 1), column(1, 1)).value == 0.5


def by_pairs(known, outside):
    """How far each known picture is above each outside one: 1, 0, or one half for a tie."""
    return (known[:, None] > outside) + (known[:, None] == outside) / 2


def variance_by_loops(known, outside, known_groups, outside_groups):
    """Obuchowski 1997, equations 6 to 8, cluster by cluster."""
    psi = by_pairs(known, outside)
    n, m = psi.shape
    clusters = sorted({*known_groups, *outside_groups})
    above = {c: sum(psi[i].mean() for i in range(n) if known_groups[i] == c) for c in clusters}
    below = {c: sum(psi[:, j].mean() for j in range(m) if outside_groups[j] == c) for c in clusters}
    of_known = {c: known_groups.tolist().count(c) for c in clusters}
    of_outside = {c: outside_groups.tolist().count(c) for c in clusters}
    theta, i10, i01, i = psi.mean(), len(set(known_groups)), len(set(outside_groups)), len(clusters)
    s10 = i10 / ((i10 - 1) * n) * sum((above[c] - of_known[c] * theta) ** 2 for c in clusters)
    s01 = i01 / ((i01 - 1) * m) * sum((below[c] - of_outside[c] * theta) ** 2 for c in clusters)
    both = [(above[c] - of_known[c] * theta) * (below[c] - of_outside[c] * theta) for c in clusters]
    return s10 / n + s01 / m + 2 * i / (i - 1) * sum(both) / (n * m)


def logit(value):
    return np.log(value / (1 - value))


def deviation_of(interval):
    """Back from the bounds, which are symmetric in the logit."""
    reach = (logit(interval.high) - logit(interval.low)) / 2
    return reach * interval.value * (1 - interval.value) / stats.norm.ppf(0.975)


small = st.lists(st.integers(0, 6), min_size=2, max_size=12)


@given(small, small)
def test_auroc_is_that_of_scikit_learn_and_its_interval_delongs(first, second):
    known, outside = column(*first), column(*second)
    found = auroc(known, outside)
    truth = np.repeat([1, 0], [len(known), len(outside)])
    assert found.value == pytest.approx(roc_auc_score(truth, np.concatenate([known, outside])))
    psi = by_pairs(known, outside)
    delong = psi.mean(1).var(ddof=1) / len(known) + psi.mean(0).var(ddof=1) / len(outside)
    if 0 < found.value < 1 and delong > 1e-12:
        assert deviation_of(found) ** 2 == pytest.approx(delong)
        assert 0 < found.low < found.value < found.high < 1
    else:
        assert np.isnan(found.low)
        assert np.isnan(found.high)


@given(small, small, st.integers(0, 1000))
def test_homes_with_pictures_of_both_kinds_are_obuchowskis_clusters(first, second, seed):
    known, outside = column(*first), column(*second)
    rng = np.random.default_rng(seed)
    homes = rng.integers(6, size=len(known)), rng.integers(6, size=len(outside))
    found = auroc(known, outside, *homes)
    if min(len(set(side.tolist())) for side in homes) < 2:
        assert np.isnan(found.low)
        return
    variance = variance_by_loops(known, outside, *homes)
    if 0 < found.value < 1 and variance > 1e-9:
        assert deviation_of(found) ** 2 == pytest.approx(variance)


@given(small, small)
def test_auroc_goes_by_order_alone_and_is_one_less_that_of_the_other_side(first, second):
    known, outside = column(*first), column(*second)
    assert auroc(np.exp(known), np.exp(outside)) == pytest.approx(auroc(known, outside), nan_ok=True)
    assert auroc(outside, known).value == pytest.approx(1 - auroc(known, outside).value)


def test_an_unknown_home_is_a_home_of_its_own():
    rng = np.random.default_rng(0)
    known, outside = rng.normal(1, 1, 30), rng.normal(0, 1, 20)
    alone = auroc(known, outside, np.full(30, -1), np.arange(20))
    assert alone == pytest.approx(auroc(known, outside))
    together = auroc(known, outside, np.arange(30) // 3, np.full(20, -1))
    assert together.value == alone.value
    assert together.low != pytest.approx(alone.low)


def test_the_interval_is_that_of_homes_drawn_again_and_again():
    """60 homes with two known pictures and one from outside; the pictures of a home are bright or dark together."""
    rng = np.random.default_rng(3)
    home = rng.normal(0, 1, 60)
    known = np.repeat(home, 2) + rng.normal(1.2, 0.5, 120)
    outside = home + rng.normal(0, 0.5, 60)
    found = auroc(known, outside, np.repeat(np.arange(60), 2), np.arange(60))
    pairs = by_pairs(known, outside).reshape(60, 2, 60).sum(1)
    counts = np.array([np.bincount(rng.integers(60, size=60), minlength=60) for _ in range(4000)])
    resampled = np.einsum("ra,ab,rb->r", counts, pairs, counts) / (120 * 60)
    assert deviation_of(found) == pytest.approx(resampled.std(), rel=0.1)


def test_a_difference_is_of_the_same_pictures():
    """DeLong's paired comparison, by the covariances of the placements."""
    rng = np.random.default_rng(1)
    known, outside = rng.normal(1, 1, 40), rng.normal(0, 1, 30)
    other = known + rng.normal(0, 0.5, 40), outside + rng.normal(0, 0.5, 30)
    found = auroc_difference((known, other[0]), (outside, other[1]))
    one, two = by_pairs(known, outside), by_pairs(*other)
    variance = sum(np.cov(one.mean(axis), two.mean(axis)) @ [1, -1] @ [1, -1] / len(one.mean(axis)) for axis in (1, 0))
    assert found.difference == pytest.approx(one.mean() - two.mean())
    assert found.high - found.difference == pytest.approx(1.959964 * variance**0.5)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.difference) / variance**0.5))
    assert auroc_difference((known, known), (outside, outside)) == (0, 0, 0, 1)


def test_a_difference_without_spread_has_no_bounds():
    found = auroc_difference((column(1, 1), column(0, 0)), (column(0, 0), column(1, 1)))
    assert found.difference == 1
    assert np.isnan([found.low, found.high, found.p]).all()


def test_a_side_without_pictures_is_refused():
    with pytest.raises(LikenessError, match="0 of 0 scores are NaN; at least one is needed"):
        auroc(column(), column(1))


@given(small, small, st.sampled_from([0.5, 0.75, 0.95, 1.0]))
def test_what_is_accepted_from_outside_is_the_roc_curve_at_that_height(first, second, passed):
    known, outside = column(*first), column(*second)
    truth = np.repeat([1, 0], [len(known), len(outside)])
    fpr, tpr, _ = roc_curve(truth, np.concatenate([known, outside]), drop_intermediate=False)
    assert accepted_outside(known, outside, passed) == pytest.approx(fpr[np.argmax(tpr >= passed - 1e-12)])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=20))
def test_coverage_is_that_of_every_threshold_by_itself(rows):
    scores, hits = (column(*values) for values in zip(*rows, strict=True))
    curve = coverage_curve(scores, hits)
    wanted = sorted(set(scores.tolist()), reverse=True)
    assert curve.threshold.tolist() == wanted
    for threshold, coverage, hit in zip(*curve, strict=True):
        passed = scores >= threshold
        assert (coverage, hit) == pytest.approx((passed.mean(), hits[passed].mean()))
    assert curve.coverage[-1] == 1
    assert all(a < b for a, b in itertools.pairwise(curve.coverage))
