import torch

from likeness.retrieval.vote import vote


def test_the_majority_wins_and_of_tied_labels_the_nearest():
    labels = torch.tensor([[7, 2, 2, 7, 2], [7, 2, 2, 7, 5], [2, 7, 7, 2, 5], [1, 2, 3, 4, 5], [5, 4, 4, 5, 5]])
    assert vote(labels).tolist() == [2, 7, 2, 1, 5]


def test_a_neighbour_without_label_has_no_vote():
    assert vote(torch.tensor([[-1, -1, 3], [-1, -1, -1], [-5, -5, -5], [4, -1, 3]])).tolist() == [3, -1, -1, 4]


def test_nobody_votes_for_nothing():
    assert vote(torch.empty(2, 0, dtype=torch.int32)).tolist() == [-1, -1]
    assert vote(torch.empty(0, 5, dtype=torch.int64)).tolist() == []


def test_a_single_voter_decides():
    assert vote(torch.tensor([[0], [9]])).tolist() == [0, 9]
