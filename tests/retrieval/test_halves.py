"""The halves of homes find each other: halvings by hand, ranks beside their definition, and what is made of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval import homes_by_the_book as book

from likeness.errors import LikenessError
from likeness.retrieval import halves
from likeness.retrieval.halves import Halving, Ranks, kinds_apart, random_halves, rank_halves, summarize
from likeness.retrieval.homes import RULES
from likeness.retrieval.significance import wilson


def of(told, homes, asking):
    """A halving in which these rows ask and the others are found."""
    is_query = np.isin(np.arange(len(homes)), asking)
    return Halving(told, is_query, ~is_query & (homes >= 0))


def test_half_of_each_home_asks_rounded_down_and_a_picture_without_home_is_in_neither_half():
    homes = np.array([4, 4, 4, 4, 4, 1, 1, 0, -1, -1])
    halving = random_halves([f"{i}.jpg" for i in range(10)], homes, 7)
    asked = {home: int(halving.is_query[homes == home].sum()) for home in (4, 1, 0, -1)}
    assert asked == {4: 2, 1: 1, 0: 0, -1: 0}
    assert (halving.is_query ^ halving.is_gallery).tolist() == (homes >= 0).tolist()


def test_random_halves_follow_the_names_and_the_seed_alone():
    names, homes = np.array([f"{i}.jpg" for i in range(40)]), np.repeat(np.arange(10), 4)
    first = random_halves(names.tolist(), homes, 0)
    order = np.random.default_rng(0).permutation(40)
    assert (
        random_halves(names[order].tolist(), 90 - homes[order], 0).is_query.tolist() == first.is_query[order].tolist()
    )
    assert random_halves(names.tolist(), homes, 1).is_query.tolist() != first.is_query.tolist()


def test_every_choice_of_half_of_the_kinds_comes_once():
    kinds, homes = np.array([0, 1, 3, -1, 3, 0]), np.array([0, 0, 0, 0, 1, -1])
    found = kinds_apart(kinds, homes, ["bath", "bed", "hall", "kitchen"])
    assert [halving.told for halving in found] == ["bath", "bed", "kitchen"]  # no hall: 1 of 3 kinds asks
    assert found[2].is_query.tolist() == [False, False, True, False, True, False]
    assert found[2].is_gallery.tolist() == [True, True, False, False, False, False]
    four = kinds_apart(np.arange(4), np.zeros(4, int), list("abcd"))
    assert [halving.told for halving in four] == ["a + b", "a + c", "a + d", "b + c", "b + d", "c + d"]


def test_of_many_choices_of_kinds_a_seeded_sample_is_drawn_and_of_one_kind_there_is_none():
    many = kinds_apart(np.arange(8), np.zeros(8, int), list("abcdefgh"), seed=3)
    assert len({halving.told for halving in many}) == halves.MOST_HALVINGS
    assert [halving.told for halving in many] == [
        halving.told for halving in kinds_apart(np.arange(8), np.zeros(8, int), list("abcdefgh"), seed=3)
    ]
    assert kinds_apart(np.zeros(4, int), np.zeros(4, int), ["a"]) == []


# Three homes of two pictures. Home 0 is east twice; of home 1 east asks and north is found; home 2 is north twice.
CODES = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 1.0]])
HOMES, KINDS = np.array([0, 0, 1, 1, 2, 2]), np.full(6, -1)


def test_ranks_are_as_reckoned_by_hand():
    found = rank_halves(CODES, HOMES, KINDS, [of("", HOMES, [0, 2, 4])], "mean")
    assert found.homes.tolist() == [0, 1, 2]
    # Home 1 is asked with east: home 0 is nearer, and home 1 ties with home 2 and comes first. North ties as well.
    assert found.ranks.tolist() == [1, 2, 2]
    assert found.candidates.tolist() == [3, 3, 3]
    assert found.values("hit@1").tolist() == [1, 0, 0]
    assert found.values("mrr").tolist() == [1, 0.5, 0.5]


def test_a_home_of_one_half_asks_nothing_and_may_be_taken_for_another():
    homes = np.array([0, 0, 1, 2, 2, 2])
    found = rank_halves(CODES, homes, KINDS, [of("", homes, [1, 5])], "best_pair")
    assert (found.homes.tolist(), found.candidates.tolist()) == ([0, 2], [3, 3])


def test_halves_of_different_kinds_are_never_found_by_kind():
    kinds = np.array([0, 1, 0, 1, 0, 1])
    apart = kinds_apart(kinds, HOMES, ["bath", "hall"])
    found = rank_halves(CODES, HOMES, kinds, apart, "by_kind")
    assert (found.ranks.tolist(), found.values("mrr").tolist()) == ([0] * 6, [0] * 6)
    both = {"mean": rank_halves(CODES, HOMES, kinds, apart, "mean"), "by_kind": found}
    assert list(summarize({"head": both}, [1])["head"]) == ["mean"]


def test_chance_is_that_of_ranks_drawn_blindly():
    found = Ranks(np.arange(3), np.ones(3, int), np.array([2, 4, 4]))
    assert found.chance("hit@1") == pytest.approx((1 / 2 + 1 / 4 + 1 / 4) / 3)
    assert found.chance("mrr") == pytest.approx((3 / 4 + 2 * (25 / 12 / 4)) / 3)  # 1 + 1/2; 1 + 1/2 + 1/3 + 1/4


@st.composite
def populations(draw):
    """Homes of two to four pictures in few directions, some equal, with kinds, and a seed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    homes = np.repeat(rng.permutation(12)[:5], rng.integers(2, 5, 5))
    codes = rng.integers(-2, 3, (len(homes), 3)).astype(np.float32) + np.float32([0, 0, 2.5])
    return codes, homes, rng.integers(0, 2, len(homes)), draw(st.integers(0, 99))


def rank_by_the_book(codes, homes, kinds, halving, rule, home):
    if rule == "centred_mean":
        codes, rule = book.centred(codes, kinds, codes, kinds), "mean"
    asks, found = halving.is_query & (homes == home), halving.is_gallery
    order = book.ranked(codes[asks], kinds[asks], codes[found], homes[found], kinds[found], rule)
    return [other for _, other in order].index(home) + 1 if home in dict(map(reversed, order)) else 0


@pytest.mark.parametrize("rule", ["mean", "best_pair", "by_kind", "assignment"])
@settings(max_examples=30)
@given(population=populations())
def test_any_rank_is_that_of_the_definition(rule, population):
    codes, homes, kinds, seed = population
    halving = random_halves([f"{i}.jpg" for i in range(len(homes))], homes, seed)
    found = rank_halves(torch.tensor(codes), homes, kinds, [halving], rule)
    wanted = [rank_by_the_book(codes.astype(float), homes, kinds, halving, rule, home) for home in found.homes]
    assert found.ranks.tolist() == wanted


def drawn_homes(style, homes=30, seed=0):
    """Homes of a picture of each of four kinds; what a home's pictures share is ``style`` strong."""
    rng = np.random.default_rng(seed)
    of_kind, of_home = rng.normal(size=(4, 16)) * 3, rng.normal(size=(homes, 16)) * style
    codes = of_kind[None] + of_home[:, None] + rng.normal(size=(homes, 4, 16))
    kinds = np.tile(np.arange(4), homes)
    return torch.tensor(codes.reshape(-1, 16), dtype=torch.float32), np.repeat(np.arange(homes), 4), kinds


def test_a_rule_that_takes_the_kinds_out_has_the_ranks_of_its_definition():
    codes, homes, kinds = drawn_homes(style=1.0, homes=12)
    halving = kinds_apart(kinds, homes, list("abcd"))[1]
    found = rank_halves(codes, homes, kinds, [halving], "centred_mean")
    wanted = [
        rank_by_the_book(codes.double().numpy(), homes, kinds, halving, "centred_mean", home) for home in found.homes
    ]
    assert found.ranks.tolist() == wanted


@pytest.mark.parametrize("rule", RULES)
def test_neither_the_order_of_the_rows_nor_the_queries_at_once_change_a_rank(rule, monkeypatch):
    codes, homes, kinds = drawn_homes(style=1.0)
    halving = random_halves([f"{i}" for i in range(120)], homes, 0)
    first = rank_halves(codes, homes, kinds, [halving], rule)
    order = np.random.default_rng(1).permutation(120)
    shuffled = Halving("", halving.is_query[order], halving.is_gallery[order])
    monkeypatch.setattr(halves, "_QUERIES_AT_ONCE", 7)
    again = rank_halves(codes[torch.tensor(order)], homes[order], kinds[order], [shuffled], rule)
    assert (first.ranks.tolist(), first.homes.tolist()) == (again.ranks.tolist(), again.homes.tolist())


def test_homes_without_anything_in_common_are_found_as_often_as_chance_says():
    codes, homes, kinds = drawn_homes(style=0.0, homes=300)
    found = rank_halves(codes, homes, kinds, kinds_apart(kinds, homes, list("abcd")), "centred_mean")
    summary = summarize({"head": {"centred_mean": found}}, [10])
    told = summary["head"]["centred_mean"]["hit@10"]
    assert told["low"] <= summary["chance"]["hit@10"] <= told["high"]


def test_the_rule_that_finds_more_wins_with_p_values_for_all_pairs_of_rules():
    codes, homes, kinds = drawn_homes(style=1.0)
    apart = kinds_apart(kinds, homes, list("abcd"))
    found = {rule: rank_halves(codes, homes, kinds, apart, rule) for rule in ("mean", "best_pair", "centred_mean")}
    summary = summarize({"head": found, "frozen": found}, [1, 5])
    winner = summary["winner"]["head"]
    assert (winner["rule"], sorted(winner["over"])) == ("centred_mean", ["best_pair", "mean"])
    assert all(told["low"] > 0 and told["p"] < told["p_holm"] < 0.05 for told in winner["over"].values())
    assert summary["paired"]["head-frozen"]["mean"] == {"difference": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}
    assert (summary["homes"], summary["queries"], summary["candidates"]) == (30, 180, [30, 30])


def test_where_each_home_asks_once_hits_have_wilsons_interval():
    found = Ranks(np.arange(8), np.array([1, 1, 2, 9, 9, 9, 9, 0]), np.full(8, 10))
    told = summarize({"head": {"mean": found}}, [1, 5])["head"]["mean"]
    assert tuple(told["hit@1"].values()) == wilson(2, 8)
    assert tuple(told["hit@5"].values()) == wilson(3, 8)
    assert told["mrr"]["value"] == pytest.approx((1 + 1 + 1 / 2 + 4 / 9) / 8)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(LikenessError, match="no home has pictures on both sides"):
        rank_halves(CODES, np.arange(6), KINDS, [random_halves(list("abcdef"), np.arange(6), 0)], "mean")
    found = {"head": {"mean": Ranks(np.arange(3), np.ones(3, int), np.full(3, 5))}}
    for ks in ([1, 5], [0], [9]):
        with pytest.raises(LikenessError, match=r"k=.*, and there are 5 homes to be found"):
            summarize(found, ks)
