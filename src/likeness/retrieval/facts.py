"""What is known of rows beside their codes, and which of them are the same row twice."""

from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from likeness.errors import listed
from likeness.retrieval.rows import refusal


class Facts(NamedTuple):
    """Group -1 is unknown; roles are 0 or 1, and 1 only where there is a label."""

    ids: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"]
    groups: Int64[Tensor, "n"]
    is_query: Int64[Tensor, "n"]
    is_gallery: Int64[Tensor, "n"]

    def table(self) -> Int64[Tensor, "n 5"]:
        """A row each, to be kept and sent as one."""
        return torch.stack(self, dim=1)

    def take(self, which: Int64[Tensor, "m"]) -> "Facts":
        return Facts(*(column[which] for column in self))


def once(facts: Facts) -> Int64[Tensor, "m"]:
    """Where the rows stand in ascending order of id: of those with one id the first.

    Raises:
        LikenessError: RETRIEVAL when rows with one id differ in anything (names the ids).
    """
    order = torch.argsort(facts.ids, stable=True)
    fact_nf = facts.table()[order]
    again = torch.zeros_like(order, dtype=torch.bool)
    again[1:] = fact_nf[1:, 0] == fact_nf[:-1, 0]
    differs = (fact_nf != fact_nf.roll(1, dims=0)).any(dim=1) & again
    if differs.any():
        raise refusal(
            "rows with the same sample id differ in label, group or role.",
            "Number the samples so that an id stands for one picture.",
            where=f"sample ids\n{listed(fact_nf[differs, 0].unique().tolist())}",
        )
    return order[~again]
