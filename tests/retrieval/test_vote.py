"""Votes by hand, by the definition in fractions, and by scikit-learn's classifier of nearest neighbours."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from likeness.errors import LikenessError
from likeness.retrieval.neighbours import neighbours
from likeness.retrieval.vote import vote


def test_the_majority_wins_and_of_tied_labels_the_nearest():
    labels = torch.tensor([[7, 2, 2, 7, 2], [7, 2, 2, 7, 5], [2, 7, 7, 2, 5], [1, 2, 3, 4, 5], [5, 4, 4, 5, 5]])
    votes = vote(labels)
    assert votes.labels.tolist() == [2, 7, 2, 1, 5]
    assert votes.confidence.tolist() == [3 / 5, 2 / 5, 2 / 5, 1 / 5, 3 / 5]
    assert votes.runners_up.tolist() == [7, 2, 7, 2, 4]


def test_a_neighbour_without_label_has_no_vote():
    votes = vote(torch.tensor([[-1, -1, 3], [-1, -1, -1], [-5, -5, -5], [4, -1, 3]]))
    assert votes.labels.tolist() == [3, -1, -1, 4]
    assert votes.confidence.tolist() == [1, 0, 0, 1 / 2]
    assert votes.runners_up.tolist() == [-1, -1, -1, 3]


def test_nobody_votes_for_nothing():
    assert vote(torch.empty(2, 0, dtype=torch.int32)).labels.tolist() == [-1, -1]
    assert vote(torch.empty(2, 0, dtype=torch.int32)).confidence.tolist() == [0, 0]
    assert vote(torch.empty(0, 5, dtype=torch.int64)).labels.tolist() == []


def test_a_single_voter_decides():
    assert vote(torch.tensor([[0], [9]])).labels.tolist() == [0, 9]


def test_a_near_neighbour_may_outweigh_two_far_ones():
    labels, similarities = torch.tensor([[1, 2, 2]]), torch.tensor([[0.75, 0.25, 0.25]])
    assert vote(labels).labels.tolist() == [2]
    votes = vote(labels, similarities, "similarity")
    assert (votes.labels.tolist(), votes.confidence.tolist(), votes.runners_up.tolist()) == ([1], [0.6], [2])


def test_a_neighbour_at_a_negative_cosine_has_no_weight():
    labels = torch.tensor([[1, 2, 2], [1, 2, 2]])
    votes = vote(labels, torch.tensor([[0.5, -0.5, -1.0], [-0.1, -0.2, -0.3]]), "similarity")
    assert votes.labels.tolist() == [1, 1]  # of nothing but equals, all of no weight, the nearest
    assert votes.confidence.tolist() == [1, 0]
    assert votes.runners_up.tolist() == [2, 2]


def test_sums_of_cosines_tie_whatever_their_order():
    similarities = torch.tensor([[0.9, 0.7, 0.6, 0.4]])
    halves = torch.tensor([[0.75, 0.5, 0.5, 0.25]])
    assert vote(torch.tensor([[1, 2, 2, 1]]), halves, "similarity").confidence.tolist() == [0.5]
    for labels, winner in (([[1, 2, 2, 1]], 1), ([[2, 1, 1, 2]], 2)):
        assert vote(torch.tensor(labels), halves, "similarity").labels.tolist() == [winner]
    assert vote(torch.tensor([[1, 2, 2, 2]]), similarities, "similarity").labels.tolist() == [2]


def test_weights_by_similarity_need_similarities():
    with pytest.raises(LikenessError, match="no similarities are given"):
        vote(torch.tensor([[1]]), weights="similarity")


def by_definition(labels, weights):
    """Label, share and runner-up of one row, in fractions."""
    ballots: dict[int, Fraction] = {}
    for label, weight in zip(labels, weights, strict=True):
        if label >= 0:
            ballots[label] = ballots.get(label, Fraction(0)) + Fraction(max(weight, 0.0))
    ranked = sorted(ballots, key=lambda label: -ballots[label])  # stable: the nearer of equals stays first
    total = sum(ballots.values())
    first, second, *_ = [*ranked, -1, -1]
    return first, float(ballots[first] / total) if total else 0.0, second


rows = st.lists(
    st.tuples(st.integers(-1, 3), st.sampled_from([-1.0, -0.25, 0.0, 0.125, 0.5, 0.75, 1.0])), min_size=1, max_size=9
)


@given(rows, st.sampled_from(["uniform", "similarity"]))
def test_equals_the_definition(row, weights):
    labels, similarities = (list(column) for column in zip(*row, strict=True))
    votes = vote(torch.tensor([labels]), torch.tensor([similarities]), weights)
    wanted = by_definition(labels, [1.0] * len(labels) if weights == "uniform" else similarities)
    assert [column.item() for column in votes] == pytest.approx(wanted, abs=1e-12)


@given(rows, st.integers(0, 4))
def test_one_more_voter_for_the_winner_changes_no_winner(row, more):
    labels = torch.tensor([[label for label, _ in row]])
    winner, before, _ = vote(labels)
    again, after, _ = vote(torch.cat([labels, winner.expand(1, more)], dim=1))
    assert again.tolist() == winner.tolist()
    assert after.item() >= before.item() - 1e-12


@pytest.mark.parametrize("weights", ["uniform", "similarity"])
def test_equals_the_classifier_of_scikit_learn(weights):
    rng = np.random.default_rng(0)
    gallery, queries, labels = rng.normal(size=(60, 3)), rng.normal(size=(40, 3)), rng.integers(4, size=60)
    by_cosine = {"uniform": "uniform", "similarity": lambda distance: np.clip(1 - distance, 0, None)}[weights]
    wanted = KNeighborsClassifier(7, weights=by_cosine, metric="cosine").fit(gallery, labels).predict_proba(queries)
    ids = {"query_ids": torch.arange(60, 100), "gallery_ids": torch.arange(60)}
    found = neighbours(torch.from_numpy(queries), torch.from_numpy(gallery), 7, **ids)
    votes = vote(torch.from_numpy(labels)[found.indices], found.similarities, weights)
    assert votes.confidence.numpy() == pytest.approx(wanted.max(1), abs=1e-6)
    assert wanted[np.arange(40), votes.labels.numpy()] == pytest.approx(wanted.max(1), abs=1e-6)
