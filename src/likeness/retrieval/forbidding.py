"""Which pairs may not meet: said once, for the product of matrices and for the kernel that writes none.

Axes: q queries, g gallery rows.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from likeness.retrieval.filtering import Prepared
from likeness.retrieval.rows import exclude, exclude_groups

_UNKNOWN_Q, _UNKNOWN_G = -1, -2  # two groups that are unknown are not the same


class Columns(NamedTuple):
    """Numbers of each query and of each row: who may meet differs in the first two pairs, and agrees in the last."""

    differ_q: Int[Tensor, "q"]
    differ_g: Int[Tensor, "g"]
    group_q: Int64[Tensor, "q"] | None = None
    group_g: Int64[Tensor, "g"] | None = None
    agree_q: Int64[Tensor, "q"] | None = None
    agree_g: Int64[Tensor, "g"] | None = None

    def contiguous(self) -> "Columns":
        return Columns(*(None if column is None else column.contiguous() for column in self))  # type: ignore[arg-type]


class Forbid(NamedTuple):
    """A query and itself, where groups are given its own group, and what is said here.

    Attributes:
        labels: Rows of the query's own label, or of other ones. Labels ascend then on both sides.
        barred: Rows of the gallery that no query may meet.
    """

    labels: Literal["own", "other"] | None = None
    barred: Bool[Tensor, "g"] | None = None

    def __call__(self, product_qg: Float[Tensor, "q g"], queries: Prepared, gallery: Prepared) -> None:
        """Sets the products of what may not meet to -inf."""
        if self.labels == "own":  # a query itself has its own label
            label_q, label_g = _labels(queries, gallery)
            alike = label_range(label_g, queries)
            product_qg[:, alike].masked_fill_(label_q[:, None] == label_g[alike], -torch.inf)
            exclude_groups(product_qg, queries.rows.groups, gallery.rows.groups)
            return
        if self.labels == "other":
            label_q, label_g = _labels(queries, gallery)
            product_qg.masked_fill_(label_q[:, None] != label_g, -torch.inf)
        exclude(product_qg, queries.place, gallery.place, queries.rows.groups, gallery.rows.groups)
        if self.barred is not None:
            product_qg.masked_fill_(self.barred, -torch.inf)

    def among(self, rows: slice) -> "Forbid":
        """The same for a part of the gallery."""
        return self if self.barred is None else self._replace(barred=self.barred[rows])

    def columns(self, queries: Prepared, gallery: Prepared) -> Columns:
        """The same, to be looked at pair by pair."""
        differ = queries.place.int(), gallery.place.int()  # half as wide to compare
        agree: tuple[Tensor | None, Tensor | None] = None, None
        if self.labels == "own":
            differ = _labels(queries, gallery)
        elif self.labels == "other":
            agree = _labels(queries, gallery)
        elif self.barred is not None:
            agree = torch.zeros_like(queries.place), self.barred.long()
        group_q, group_g = queries.rows.groups, gallery.rows.groups
        if group_q is None or group_g is None:
            return Columns(*differ, None, None, *agree)
        known_q, known_g = group_q.clamp(min=_UNKNOWN_Q), torch.where(group_g < 0, _UNKNOWN_G, group_g)
        return Columns(*differ, known_q, known_g, *agree)


def label_range(label_g: Int64[Tensor, "g"] | None, queries: Prepared) -> slice:
    """Where, among ascending labels, those between the queries' least and greatest stand."""
    assert label_g is not None
    assert queries.labels is not None
    least, greatest = queries.labels[0], queries.labels[-1]
    return slice(int(torch.searchsorted(label_g, least)), int(torch.searchsorted(label_g, greatest, right=True)))


def _labels(queries: Prepared, gallery: Prepared) -> tuple[Int64[Tensor, "q"], Int64[Tensor, "g"]]:
    assert queries.labels is not None
    assert gallery.labels is not None
    return queries.labels, gallery.labels
