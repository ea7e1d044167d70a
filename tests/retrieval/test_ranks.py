"""Scores from the first places and from counted rivals are those of whole rows, on data made to mislead them."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retrieval.whole_rows import whole_rows

from likeness.errors import LikenessError
from likeness.retrieval import filtering, neighbours
from likeness.retrieval.metric import score
from likeness.retrieval.ranks import Labelled, first_places, later_ranks
from likeness.retrieval.rows import comparable

WIDTH = 8
CODES = {
    "drawn": lambda drawn: drawn,
    "in classes": lambda drawn: drawn + 3 * drawn[:7].repeat(len(drawn) // 7 + 1, 1)[: len(drawn)],
    "all the same way": torch.ones_like,
    "nearly the same way": lambda drawn: 1 + 1e-3 * drawn,
    "within rounding": lambda drawn: 1 + 1e-8 * drawn,
    "each five times": lambda drawn: drawn[torch.arange(len(drawn)) // 5],
    "few values": lambda drawn: drawn.sign() * (drawn.abs() > 0.7),
    "opposite": lambda drawn: drawn[0] * drawn[:, :1].sign() + 0.01 * drawn,
}


def drawn(rows, seed):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equal(scores, expected):
    for name, value in expected.items():
        mine = getattr(scores, name).numpy()
        if name == "average_precision_at_r":
            np.testing.assert_allclose(mine, value, rtol=0, atol=1e-14)
        else:
            assert np.array_equal(mine, value), name


@st.composite
def cases(draw):
    rows, seed = draw(st.integers(2, 500)), draw(st.integers(0, 9))
    rng = np.random.default_rng(seed)
    classes = draw(st.sampled_from([1, 2, rows // 100 + 1, rows // 6 + 1, rows]))
    codes = CODES[draw(st.sampled_from(sorted(CODES)))](drawn(rows, seed)).numpy().copy()
    codes[rng.random(rows) < draw(st.sampled_from([0, 0.1]))] = 0
    labels = rng.integers(-1 if draw(st.booleans()) else 0, classes, rows)
    groups = rng.integers(-1, max(1, rows // draw(st.sampled_from([2, 50]))), rows)
    roles = rng.random((2, rows)) < draw(st.sampled_from([1, 0.7]))
    options = {
        "ks": draw(st.sampled_from([(1,), (3, 1), (1, 9)])),
        "ties": draw(st.sampled_from(["by_id", "pessimistic"])),
        "exclude_group": draw(st.booleans()),
        "vote_k": draw(st.sampled_from([1, 4])),
    }
    return (codes, labels, rng.permutation(3 * rows)[:rows], groups, *roles), options


@pytest.mark.filterwarnings("ignore:.*codes are zero", "ignore:.*means are NaN")
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cases(),
    st.sampled_from([(torch.bfloat16,), (torch.float32,), (torch.bfloat16, torch.float32)]),
    st.sampled_from([2**17, 2**20, 2**28]),
)
def test_scores_are_those_of_whole_rows(case, precisions, tile_bytes):
    columns, options = case
    codes, labels, ids, groups, is_query, is_gallery = (torch.from_numpy(column) for column in columns)
    expected = whole_rows(*columns, options)
    roles = {"is_query": is_query, "is_gallery": is_gallery}
    with patch.object(filtering, "precisions", lambda device: precisions):

        def made():
            return score(codes, labels, ids, group_ids=groups, **roles, **options, tile_bytes=tile_bytes)

        if (expected["candidates"][expected["positives"] > 0] < max(options["ks"])).any():
            with pytest.raises(LikenessError, match="candidates"):
                made()
        else:
            equal(made(), expected)


@pytest.mark.parametrize(
    ("kind", "ties", "of_a_class"),
    [("in classes", "by_id", 5), ("each five times", "pessimistic", 5), ("within rounding", "by_id", 200)],
)
def test_scores_of_a_gallery_in_parts_are_those_of_whole_rows(monkeypatch, kind, ties, of_a_class):
    monkeypatch.setattr(neighbours, "_ROWS_IN_CACHE", 300)
    rows = 1500
    codes, ids = CODES[kind](drawn(rows, 3)), torch.arange(rows).flip(0)
    labels, groups = torch.arange(rows) % (rows // of_a_class), torch.full((rows,), -1)
    options = {"ks": (1, 5), "ties": ties, "exclude_group": False, "vote_k": 5}
    everything = torch.ones(rows, dtype=torch.bool)
    scores = score(codes, labels, ids, ks=(1, 5), ties=ties, tile_bytes=2**19)
    columns = (column.numpy() for column in (codes, labels, ids, groups, everything, everything))
    equal(scores, whole_rows(*columns, options))


ANGLES = torch.tensor([0.0, 10.0, 25.0, 45.0, 70.0, 100.0, 135.0]).deg2rad()
FAN = Labelled(
    comparable(torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1), torch.arange(7)), torch.tensor([0, 1, 0, 1, 1, 0, 2])
)


def test_the_first_places_and_where_the_first_positive_is():
    ((block, first),) = first_places(FAN, FAN, 3)
    assert block == slice(0, 7)
    assert first.rows.tolist() == [[1, 2, 3], [0, 2, 3], [1, 3, 0], [2, 4, 1], [3, 5, 2], [4, 6, 3], [5, 4, 3]]
    torch.testing.assert_close(first.similarities[0], ANGLES[1:4].cos())
    assert later_ranks(FAN, FAN).tolist() == [2, 3, 3, 2, 1, 4, 0]


def test_places_beyond_the_candidates_do_not_exist():
    two = FAN.take(torch.tensor([0, 3]))
    ((_, first),) = first_places(two, two, 3)
    assert first.exist.tolist() == [[True, False, False], [True, False, False]]
    assert first.rows.tolist() == [[1, 0, 0], [0, 0, 0]]
    assert list(first_places(two, two.take(torch.arange(0)), 3)) == []
