"""A label for a picture, from the labels of its nearest neighbours."""

import torch
from jaxtyping import Int, Int64
from torch import Tensor
from torch.nn import functional


def vote(neighbour_labels: Int[Tensor, "q k"]) -> Int64[Tensor, "q"]:
    """The most frequent label of each row, nearest neighbour first; of tied labels the one that comes first.

    Negative labels have no vote; where no neighbour has one the answer is -1.

    >>> vote(torch.tensor([[1, 2, 2], [3, 1, 2], [-1, -1, 4]]))
    tensor([2, 3, 4])
    """
    # The column that is added is what is left to choose when nobody votes.
    labels_qk = functional.pad(neighbour_labels.long(), (0, 1), value=-1)
    ballots_qk = torch.stack([(labels_qk == column_q[:, None]).sum(dim=1) for column_q in labels_qk.T], dim=1)
    winner_q1 = ballots_qk.masked_fill_(labels_qk < 0, 0).argmax(dim=1, keepdim=True)
    return labels_qk.gather(1, winner_q1).squeeze(1).clamp(min=-1)
