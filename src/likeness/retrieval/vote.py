"""A label for a picture, from the labels of its nearest neighbours.

Axes: q queries, k neighbours, nearest first.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor
from torch.nn import functional

from likeness.retrieval.rows import refusal

Weights = Literal["uniform", "similarity"]
WEIGHTS = ("uniform", "similarity")


class Votes(NamedTuple):
    """What the neighbours of each query say it is.

    Attributes:
        labels: That with the greatest weight; -1 where nobody votes.
        confidence: The share of the weight that this label has, in [0, 1]; 0 where there is no weight. It says how far
            the neighbours agree. It is no probability of being right, and says nothing of a picture that is like none
            of the gallery: its neighbours, however far away, may well agree (``retrieval.rejection`` is for that).
        runners_up: The label with the next greatest weight; -1 where all voters agree.
    """

    labels: Int64[Tensor, "q"]
    confidence: Float64[Tensor, "q"]
    runners_up: Int64[Tensor, "q"]


def vote(
    neighbour_labels: Int[Tensor, "q k"],
    similarities: Float[Tensor, "q k"] | None = None,
    weights: Weights = "uniform",
) -> Votes:
    """The label that each row's neighbours, nearest first, give most weight to; k is the number of columns.

    With ``uniform`` weights a neighbour counts 1; with ``similarity`` it counts its cosine, and 0 where that is
    negative. Of labels with the same weight the one that comes first, of the nearer neighbour, wins. Negative labels
    have no vote.

    >>> labels, confidence, runners_up = vote(torch.tensor([[1, 2, 2], [3, 1, 2], [-1, -1, 4]]))
    >>> labels, runners_up
    (tensor([2, 3, 4]), tensor([ 1,  1, -1]))
    >>> vote(torch.tensor([[1, 2, 2]]), torch.tensor([[0.75, 0.25, 0.25]]), "similarity")[:2]
    (tensor([1]), tensor([0.6000], dtype=torch.float64))

    Raises:
        LikenessError: RETRIEVAL for other weights, and when ``similarity`` has no similarities.
    """
    # The column that is added is what is left to choose when nobody votes.
    labels_qk = functional.pad(neighbour_labels.long(), (0, 1), value=-1)
    # In float64 sums of float32 cosines are exact, so that a tie is a tie in any order.
    weight_qk = _weights(neighbour_labels, similarities, weights).double()
    weight_qk = functional.pad(weight_qk, (0, 1)).masked_fill_(labels_qk < 0, 0)
    ballots_qk = torch.stack([(weight_qk * (labels_qk == column_q[:, None])).sum(1) for column_q in labels_qk.T], 1)
    ballots_qk.masked_fill_(labels_qk < 0, -1)
    label_q1, most_q1 = _first_of_greatest(labels_qk, ballots_qk)
    runner_up_q1, _ = _first_of_greatest(labels_qk, ballots_qk.masked_fill(labels_qk == label_q1, -1))
    total_q1 = weight_qk.sum(1, keepdim=True)
    confidence_q1 = torch.where(total_q1 > 0, most_q1 / total_q1, 0.0)
    return Votes(*(column_q1.squeeze(1) for column_q1 in (label_q1, confidence_q1, runner_up_q1)))


def _weights(neighbour_labels: Tensor, similarities: Tensor | None, weights: str) -> Tensor:
    if weights not in WEIGHTS:
        raise refusal(f"weights={weights!r} are unknown.", f"Choose {' or '.join(WEIGHTS)}.")
    if weights == "uniform":
        return torch.ones_like(neighbour_labels)
    if similarities is None:
        raise refusal("weights='similarity', but no similarities are given.", "Pass them, or take uniform weights.")
    return similarities.clamp(min=0)


def _first_of_greatest(
    labels_qk: Int64[Tensor, "q k"], ballots_qk: Float64[Tensor, "q k"]
) -> tuple[Int64[Tensor, "q 1"], Float64[Tensor, "q 1"]]:
    """The label with the most weight, of the nearest among equals, and its weight; -1 and -1 where none has any."""
    at_q1 = ballots_qk.argmax(dim=1, keepdim=True)
    most_q1 = ballots_qk.gather(1, at_q1)
    return torch.where(most_q1 < 0, -1, labels_qk.gather(1, at_q1)), most_q1
