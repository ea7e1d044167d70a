"""Which queries are shown where not all fit: hand-made ranks, the expected order written out."""

import numpy as np
import pytest

from likeness.reports.choice import evenly, most_telling, worst_first


def test_the_worst_is_what_finds_nothing_then_the_last_to_find_then_the_surest_mistake():
    ranks = np.array([1, 9, 0, 2, 9, 1])
    similarities = np.array([0.9, 0.1, 0.5, 0.7, 0.8, 0.3])
    assert worst_first(ranks, similarities).tolist() == [2, 4, 1, 3, 5, 0]


def test_equals_keep_their_order_and_what_has_no_neighbour_comes_last_among_them():
    nan = float("nan")
    assert worst_first(np.array([3, 3, 3]), np.array([0.5, 0.5, 0.5])).tolist() == [0, 1, 2]
    assert worst_first(np.array([0, 0]), np.array([nan, -0.2])).tolist() == [1, 0]


def test_classes_take_turns():
    labels = np.array([0, 0, 0, 1, 2, 2])
    assert evenly(np.array([2, 1, 0, 5, 4, 3]), labels).tolist() == [2, 5, 3, 1, 4, 0]


def test_four_mistakes_and_a_hit_in_turn_until_one_kind_ends():
    ranks = np.array([2, 3, 4, 5, 6, 7, 1, 1, 1])
    worst = worst_first(ranks, np.full(9, 0.5))
    found = most_telling(worst, ranks == 1, np.zeros(9, int)).tolist()
    # Worst first are 5, 4, 3, 2; then a hit, the last mistakes 1, 0, and the other hits in an order by chance.
    assert (found[:4], found[5:7]) == ([5, 4, 3, 2], [1, 0])
    assert sorted([found[4], *found[7:]]) == [6, 7, 8]
    assert found == most_telling(worst, ranks == 1, np.zeros(9, int)).tolist()


@pytest.mark.parametrize(("ranks", "told"), [([1, 1], {0, 1}), ([5, 0], {0, 1})])
def test_hits_alone_and_mistakes_alone_are_all_told(ranks, told):
    ranks = np.array(ranks)
    worst = worst_first(ranks, np.array([0.5, 0.5]))
    assert set(most_telling(worst, ranks == 1, np.array([0, 1])).tolist()) == told


def test_of_a_large_class_and_a_small_one_the_small_one_is_there_from_the_start():
    ranks, labels = np.full(100, 9), np.array([0] * 98 + [1] * 2)
    worst = worst_first(ranks, np.linspace(1, 0, 100))
    assert most_telling(worst, ranks == 1, labels)[:4].tolist() == [0, 98, 1, 99]
