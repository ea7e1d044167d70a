"""Sets of pictures find sets of pictures: hand-drawn homes, and every rule beside its definition."""

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval import homes_by_the_book as book

from likeness.errors import LikenessError
from likeness.retrieval import homes as homes_module
from likeness.retrieval.homes import RULES, homes_of, kind_means, nearest_homes, rank_homes


@pytest.fixture
def unchecked_shapes():
    """As users run it: the shapes in the signatures are checked in tests only."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# Directions in the plane.
EAST, NORTH, NORTH_EAST = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]
KITCHEN, BATH, HALL = 0, 1, 2


def ranked(query, gallery, homes, k, rule, query_kinds=None, gallery_kinds=None, exclude=None):
    def column(values):
        return None if values is None else torch.tensor(values)

    kinds = {"query_kinds": column(query_kinds), "gallery_kinds": column(gallery_kinds), "exclude": column(exclude)}
    return rank_homes(torch.tensor(query), torch.tensor(gallery), torch.tensor(homes), k, rule=rule, **kinds)


HALF = 0.5**0.5
# Home 3 is twice east; home 5 is east and north; home 9 is north-east alone. A query of east and north.
GALLERY, HOMES = [EAST, [3.0, 0.0], EAST, NORTH, NORTH_EAST], [3, 3, 5, 5, 9]


@pytest.mark.parametrize(
    ("rule", "homes", "similarities"),
    [
        ("mean", [5, 9, 3], [1, 1, HALF]),  # the mean of east and north is north-east
        ("best_pair", [3, 5, 9], [1, 1, HALF]),  # equal ones by ascending home
        ("assignment", [5, 9, 3], [1, HALF, 0.5]),  # in home 3 north must take the other east: (1 + 0) / 2
    ],
)
def test_homes_are_ranked_as_reckoned_by_hand(rule, homes, similarities):
    found = ranked([EAST, NORTH], GALLERY, HOMES, 3, rule)
    assert found.homes.tolist() == homes
    assert found.similarities.tolist() == pytest.approx(similarities)


def test_by_kind_compares_rooms_of_one_kind_only():
    kinds = [KITCHEN, BATH, BATH, HALL, HALL]
    found = ranked([EAST, NORTH], GALLERY, HOMES, 2, "by_kind", [KITCHEN, BATH], kinds)
    assert found.homes.tolist() == [3, 5]  # home 9 has a hall alone, and cannot be compared
    assert found.similarities.tolist() == [0.5, 0.0]  # kitchens 1 and baths 0; baths 0
    assert found.rows.tolist() == [[0, 1], [-1, 2]]
    assert found.cosines[0].tolist() == [1.0, 0.0]
    assert found.cosines[1].isnan().tolist() == [True, False]


def test_what_is_common_to_a_kind_counts_for_nothing_when_it_is_taken_out():
    # Kitchens point east and baths north; the homes 0 and 1 lean to one side or the other in both.
    left, right = 0.2, -0.2
    gallery = [[1, 0, left], [1, 0, right], [0, 1, left], [0, 1, right]]
    query = [[1, 0, left], [1, 0, left]]
    found = ranked(query, gallery, [0, 1, 0, 1], 2, "centred_mean", [KITCHEN] * 2, [KITCHEN, KITCHEN, BATH, BATH])
    assert found.homes.tolist() == [0, 1]
    assert found.similarities.tolist() == pytest.approx([1.0, -1.0])


def test_each_picture_of_the_query_meets_its_nearest_in_the_order_that_it_was_given():
    found = ranked([NORTH, EAST], GALLERY, HOMES, 1, "mean", [KITCHEN, BATH], [BATH] * 5)
    assert (found.homes.tolist(), found.rows.tolist(), found.cosines.tolist()) == ([5], [[3, 2]], [[1.0, 1.0]])
    found = ranked([EAST, EAST, NORTH], [EAST, [1.0, 0.1]], [4, 4], 1, "assignment")
    assert found.rows.tolist() == [[0, 1, -1]]


def test_excluded_homes_and_pictures_of_unknown_home_are_not_found():
    found = ranked([EAST], [EAST, EAST, NORTH, NORTH_EAST], [-1, 6, 7, 8], 2, "mean", exclude=[6])
    assert found.homes.tolist() == [8, 7]


def test_a_home_whose_pictures_cancel_points_nowhere_and_is_no_candidate():
    gallery, homes = [[0.6, 0.8], [-0.6, -0.8], NORTH], [1, 1, 2]
    assert ranked([EAST], gallery, homes, 1, "mean").homes.tolist() == [2]
    assert ranked([EAST], gallery, homes, 2, "mean").homes.tolist() == [2]
    nothing = ranked([EAST], gallery[:2], homes[:2], 2, "mean")
    assert nothing.homes.tolist() == []
    assert nothing.rows.shape == nothing.cosines.shape == (0, 1)


@pytest.mark.parametrize("rule", RULES)
def test_a_home_of_the_same_pictures_in_another_order_is_itself(rule):
    rng = np.random.default_rng(3)
    home = rng.normal(size=(4, 5)).tolist()
    gallery = [*home[::-1], *rng.normal(size=(4, 5)).tolist()]
    kinds = [0, 0, 1, 2]
    found = ranked(home, gallery, [8] * 4 + [2] * 4, 1, rule, kinds, [*kinds[::-1], *kinds])
    assert found.homes.tolist() == [8]
    assert found.similarities.tolist() == pytest.approx([1.0])


@st.composite
def galleries(draw):
    """Few directions and homes, so that ties, duplicates and homes of one picture are common."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pictures, asked = draw(st.integers(1, 14)), draw(st.integers(1, 4))
    codes = rng.integers(-2, 3, (pictures + asked, 3)).astype(np.float32)
    codes[~codes.any(1)] = 1
    kinds = rng.integers(-1, 3, pictures + asked)
    homes = np.append(rng.integers(-1, 5, pictures - 1), 2)
    return codes[:asked], kinds[:asked], codes[asked:], homes, kinds[asked:]


@pytest.mark.parametrize("rule", ["mean", "best_pair", "by_kind", "assignment"])
@settings(max_examples=60)
@given(drawn=galleries())
def test_any_ranking_is_that_of_the_definition(rule, drawn):
    query, query_kinds, gallery, homes, kinds = drawn
    if rule == "mean" and any(np.abs(sum(map(book.unit, some))).max() < 1e-6 for some in _sets(query, gallery, homes)):
        return
    if rule == "by_kind" and not ((query_kinds >= 0).any() and (kinds[homes >= 0] >= 0).any()):
        return
    wanted = book.ranked(query.astype(float), query_kinds, gallery.astype(float), homes, kinds, rule)
    if not wanted:
        return
    columns = (query, gallery, homes, len(wanted), rule, query_kinds, kinds)
    found = ranked(*columns)
    assert [(value, home) for value, home in zip(*(column.tolist() for column in found[:2]), strict=True)] == wanted


def _sets(query, gallery, homes):
    return [query.astype(float), *(gallery[homes == home].astype(float) for home in set(homes) - {-1})]


@settings(max_examples=25)
@given(drawn=galleries())
def test_centring_is_that_of_the_definition(drawn):
    _, _, gallery, _, kinds = drawn
    if not (kinds >= 0).any():
        return
    means = kind_means(torch.tensor(gallery), torch.tensor(kinds))
    homes = homes_of(torch.tensor(gallery), torch.arange(len(gallery)), torch.tensor(kinds), means)
    wanted = book.centred(gallery.astype(float), kinds, gallery.astype(float), kinds)
    assert homes.rows.codes.numpy() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_neither_the_order_of_pictures_nor_that_of_kinds_changes_anything(rule):
    rng = np.random.default_rng(0)
    codes, homes, kinds = rng.normal(size=(60, 6)).astype(np.float32), rng.integers(0, 9, 60), rng.integers(0, 3, 60)
    first = ranked(codes[:5], codes[5:], homes[5:], 9, rule, kinds[:5], kinds[5:])
    asked, shuffled = rng.permutation(5), 5 + rng.permutation(55)
    again = ranked(codes[asked], codes[shuffled], homes[shuffled], 9, rule, kinds[asked], kinds[shuffled])
    assert torch.equal(first.similarities, again.similarities)
    assert torch.equal(first.homes, again.homes)
    back = torch.tensor(shuffled - 5)
    met = torch.where(again.rows < 0, -1, back[again.rows])
    assert torch.equal(first.rows[:, torch.tensor(asked)], met)


@pytest.mark.parametrize("rule", RULES)
def test_it_does_not_matter_which_home_asks(rule):
    rng = np.random.default_rng(1)
    codes, kinds = rng.normal(size=(7, 4)).astype(np.float32), rng.integers(0, 2, 7)
    means = kind_means(torch.tensor(codes), torch.tensor(kinds)) if rule == "centred_mean" else None
    some, others = (
        homes_of(
            torch.tensor(codes[at]), torch.zeros(len(codes[at]), dtype=torch.int64), torch.tensor(kinds[at]), means
        )
        for at in (slice(0, 3), slice(3, 7))
    )
    one, other = nearest_homes(some, others, 1, rule), nearest_homes(others, some, 1, rule)
    assert one.similarities.tolist() == other.similarities.tolist()


def test_parts_of_whole_homes_change_no_number(monkeypatch):
    rng = np.random.default_rng(2)
    codes, homes, kinds = (
        rng.normal(size=(90, 4)),
        np.repeat(np.arange(20), rng.multinomial(70, [0.05] * 20) + 1),
        rng.integers(0, 3, 90),
    )
    whole = [ranked(codes[:4], codes, homes, 15, rule, kinds[:4], kinds) for rule in RULES[:4]]
    monkeypatch.setattr(homes_module, "BLOCK", 3)
    parts = [ranked(codes[:4], codes, homes, 15, rule, kinds[:4], kinds) for rule in RULES[:4]]
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, other, strict=True))


def test_an_assignment_that_cannot_be_among_the_best_is_not_made(monkeypatch):
    rng = np.random.default_rng(4)
    codes, homes = rng.normal(size=(1200, 8)).astype(np.float32), np.repeat(np.arange(300), 4)
    codes[homes == 77] = codes[:4]  # one home is the query
    asked = []
    made = homes_module.assigned
    monkeypatch.setattr(homes_module, "assigned", lambda *given: asked.append(len(given[2])) or made(*given))
    found = ranked(codes[:4], codes, homes, 3, "assignment", exclude=[0])
    assert found.homes[0] == 77
    assert sum(asked) < 299
    wanted = book.ranked(codes[:4].astype(float), [0] * 4, codes.astype(float), homes, [0] * 1200, "assignment", [0])
    assert list(zip(*(column.tolist() for column in found[:2]), strict=True)) == wanted[:3]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rule": "nearest"}, "rule='nearest' is unknown"),
        ({"k": 0}, "k=0, and k must be 1 or more"),
        ({"rule": "by_kind"}, "by_kind needs the kinds"),
        ({"rule": "centred_mean"}, "centred_mean needs the kinds"),
        ({"query": [[0.0, 0.0]]}, "1 of 1 home rows are zero"),
        ({"query": [[float("nan"), 0.0]]}, "not finite"),
        ({"homes": [-1] * 5}, "no homes to compare"),
    ],
)
def test_what_cannot_be_ranked_is_refused(change, told):
    asked = {"query": [EAST], "gallery": GALLERY, "homes": HOMES, "k": 1, "rule": "mean"} | change
    with pytest.raises(LikenessError, match="RETRIEVAL") as refused:
        ranked(**asked)
    assert told in str(refused.value)


def test_homes_without_a_kind_in_common_are_not_found():
    found = ranked([EAST], GALLERY, HOMES, 9, "by_kind", query_kinds=[2], gallery_kinds=[1] * 5)
    assert found.homes.tolist() == []
    assert (
        ranked([EAST], GALLERY, HOMES, 9, "mean").homes.tolist()
        == ranked([EAST], GALLERY, HOMES, 3, "mean").homes.tolist()
    )


def test_widths_and_lengths_that_differ_are_refused(unchecked_shapes):
    with pytest.raises(LikenessError, match="codes are 2 and 3 wide"):
        rank_homes(torch.eye(2), torch.eye(3), torch.arange(3), 1)
    with pytest.raises(LikenessError, match="3 codes, 2 homes and 2 kinds are given"):
        rank_homes(torch.eye(3), torch.eye(3), torch.arange(2), 1)


def test_two_homes_cannot_ask_at_once():
    pair = homes_of(torch.eye(2), torch.arange(2))
    with pytest.raises(LikenessError, match="the query is 2 homes"):
        nearest_homes(pair, pair, 1)
