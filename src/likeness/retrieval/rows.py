"""Codes ready to be compared, and who may meet whom.

Axes: q queries, g gallery rows, d width of a code, n rows of either kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64
from torch import Tensor

from likeness.errors import LikenessError, listed

BLOCK = 1024
"""Rows that are worked on at once, so that what is made of them stays in the caches."""

_ENTRIES_ON_GPU = 2**24  # of rows that are worked on at once: enough to fill it

_ROUNDS_BELOW = 1.5 * 2.0**20  # float64 has 52 bits behind the leading one: a sum of about this has 32 behind the point


@dataclass(frozen=True, eq=False)
class Rows:
    """Codes, how long they are, and what decides who may meet whom.

    Attributes:
        length: Euclidean; 1 for a zero row.
        is_zero: Whether a row points nowhere.
        ids: Sample ids.
        groups: -1 where unknown; None when groups exclude nothing.
    """

    codes: Float[Tensor, "n d"]
    length: Float64[Tensor, "n"]
    is_zero: Bool[Tensor, "n"]
    ids: Int64[Tensor, "n"]
    groups: Int64[Tensor, "n"] | None

    def __len__(self) -> int:
        return len(self.ids)

    def unit(self, which: slice | Int64[Tensor, "m"] = slice(None)) -> Float64[Tensor, "m d"]:
        """Rows of length one; a zero row as it is."""
        return self.codes[which].to(torch.float64, copy=True).div_(self.length[which, None])

    def take(self, which: slice | Int64[Tensor, "m"]) -> "Rows":
        groups = None if self.groups is None else self.groups[which]
        return Rows(self.codes[which], self.length[which], self.is_zero[which], self.ids[which], groups)

    def where(self, mask_n: Bool[Tensor, "n"]) -> "Rows":
        """Itself where that is all: everything against everything, the usual case, needs no second copy."""
        return self if mask_n.all() else self.take(mask_n.nonzero().squeeze(1))


def comparable(codes: Float[Tensor, "n d"], ids: Int[Tensor, "n"], groups: Int[Tensor, "n"] | None = None) -> Rows:
    """Codes of any precision as rows that can be compared, however great or small their entries are.

    Raises:
        LikenessError: RETRIEVAL when lengths differ, rows have no columns, or a row is not finite (names the ids).
    """
    lengths = {len(column) for column in (codes, ids, groups) if column is not None}
    if codes.ndim != 2 or not codes.shape[1] or len(lengths) > 1:
        raise refusal(
            f"codes are {tuple(codes.shape)}, ids {tuple(ids.shape)}; needed are [n, d] with d > 0, and one id a row.",
            "Flatten the codes, and pass as many ids (and groups) as rows.",
        )
    codes = codes.detach()
    if codes.dtype == torch.float64:
        # Divided by the greatest entry, so that no square overflows or vanishes; in float64 none of a float32 does.
        greatest = torch.linalg.vector_norm(codes, torch.inf, dim=1, keepdim=True)
        codes = codes / greatest.masked_fill_(greatest == 0, 1)
    # In blocks: the norm is taken of a copy in float64.
    size = rows_together(codes)
    norms = [torch.linalg.vector_norm(codes[block], dim=1, dtype=torch.float64) for block in blocks(len(codes), size)]
    length = torch.cat(norms)
    if not length.isfinite().all():
        bad = ids[~length.isfinite().to(ids.device)].tolist()
        raise refusal(
            f"{len(bad)} of {len(codes)} rows are not finite (NaN or infinite).",
            "Look for diverged training, damaged weights, or an overflow in half precision.",
            where=f"sample ids\n{listed(bad)}",
        )
    is_zero = length == 0
    groups = None if groups is None else groups.to(codes.device, torch.int64)
    return Rows(codes, length.masked_fill(is_zero, 1), is_zero, ids.to(codes.device, torch.int64), groups)


def blocks(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` rows; one, be it empty, at least."""
    for start in range(0, max(1, rows), size):
        yield slice(start, min(start + size, rows))


def rows_together(codes: Float[Tensor, "n d"]) -> int:
    """How many rows are best worked on at once."""
    return max(BLOCK, _ENTRIES_ON_GPU // codes.shape[1]) if codes.is_cuda else BLOCK


def similarity(unit_qd: Float64[Tensor, "q d"], unit_gd: Float64[Tensor, "g d"]) -> Float32[Tensor, "q g"]:
    """The cosine by the rule: multiplied in float64, and rounded."""
    with torch.autocast(unit_qd.device.type, enabled=False):
        return settled(unit_qd @ unit_gd.T)


def settled(cosine: Float64[Tensor, "..."]) -> Float32[Tensor, "..."]:
    """Rounded, in place, to whole multiples of 2⁻³², then to float32: without what the order of summing left of it."""
    return cosine.add_(_ROUNDS_BELOW).sub_(_ROUNDS_BELOW).float()


def places(ids: Int64[Tensor, "n"], ids_g: Int64[Tensor, "g"]) -> Int64[Tensor, "n"]:
    """The position of each id among the ascending ids of the gallery, -1 where it is not among them."""
    if not len(ids_g):
        return torch.full_like(ids, -1)
    place = torch.searchsorted(ids_g, ids).clamp_(max=len(ids_g) - 1)
    return torch.where(ids_g[place] == ids, place, -1)


def exclude(
    similarity_qg: Float[Tensor, "q g"],
    id_q: Int64[Tensor, "q"],
    id_g: Int64[Tensor, "g"],
    group_q: Int64[Tensor, "q"] | None,
    group_g: Int64[Tensor, "g"] | None,
) -> None:
    """-inf where a row is no candidate: itself, by what tells the rows apart, and where groups are given its own."""
    ids_g, order_g = id_g.sort()
    place_q = places(id_q, ids_g)
    itself = (place_q >= 0).nonzero().squeeze(1)
    similarity_qg[itself, order_g[place_q[itself]]] = -torch.inf
    exclude_groups(similarity_qg, group_q, group_g)


def exclude_groups(
    similarity_qg: Float[Tensor, "q g"], group_q: Int64[Tensor, "q"] | None, group_g: Int64[Tensor, "g"] | None
) -> None:
    """-inf where a row of the gallery is of the query's group. Small groups are looked up rather than compared."""
    if group_q is None or group_g is None:
        return
    sorted_g, order_g = group_g.sort()
    first_q, last_q = _span(group_q, sorted_g)
    count_q = (last_q - first_q) * (group_q >= 0)
    if int(count_q.sum()) * 16 > similarity_qg.numel():
        similarity_qg.masked_fill_((group_q[:, None] == group_g) & (group_q[:, None] >= 0), -torch.inf)
        return
    query_p = torch.repeat_interleave(count_q)
    similarity_qg[query_p, order_g[first_q[query_p] + place_among_equals(query_p, count_q)]] = -torch.inf


def place_among_equals(row_p: Int64[Tensor, "p"], count_q: Int64[Tensor, "q"]) -> Int64[Tensor, "p"]:
    """Of pairs in order of their rows, the how manieth of its row each is, from 0."""
    return torch.arange(len(row_p), device=row_p.device) - (count_q.cumsum(0) - count_q)[row_p]


def count_candidates(
    queries: Rows,
    gallery: Rows,
    label_q: Int64[Tensor, "q"] | None = None,
    label_g: Int64[Tensor, "g"] | None = None,
) -> Int64[Tensor, "q"]:
    """How many rows of the gallery each query may meet; with labels, how many of its own label."""
    if not len(gallery):
        return torch.zeros_like(queries.ids)
    ids_g, order_g = gallery.ids.sort()
    place_q = places(queries.ids, ids_g)
    itself_q = place_q >= 0
    if label_q is None or label_g is None:
        label_q, label_g = torch.zeros_like(queries.ids), torch.zeros_like(gallery.ids)
    count_q = _equals(label_q, label_g)
    if queries.groups is not None and gallery.groups is not None:
        known_q = queries.groups >= 0
        names, number = torch.cat([queries.groups, gallery.groups]).unique(return_inverse=True)
        number_q, number_g = number[: len(queries)], number[len(queries) :]
        count_q -= _equals(label_q * len(names) + number_q, label_g * len(names) + number_g) * known_q
        itself_q &= ~(known_q & (number_g[order_g[place_q]] == number_q))  # counted with its group
    return count_q - itself_q.long()


def _equals(value_q: Int64[Tensor, "q"], value_g: Int64[Tensor, "g"]) -> Int64[Tensor, "q"]:
    first_q, last_q = _span(value_q, value_g.sort().values)
    return last_q - first_q


def _span(value_q: Int64[Tensor, "q"], sorted_g: Int64[Tensor, "g"]) -> tuple[Int64[Tensor, "q"], Int64[Tensor, "q"]]:
    """Where each value's equals begin among sorted ones, and where they end."""
    return torch.searchsorted(sorted_g, value_q), torch.searchsorted(sorted_g, value_q, right=True)


def refuse_too_few(k: int, candidates_q: Int64[Tensor, "q"], ids_q: Int64[Tensor, "q"]) -> None:
    """Raises RETRIEVAL when ``k`` is below one, or more than some query's candidates (names the first such query)."""
    if k < 1:
        raise refusal(f"k={k}, and k must be 1 or more.", "Ask for at least one neighbour.")
    short_q = candidates_q < k
    if short_q.any():
        first = int(short_q.int().argmax())
        raise refusal(
            f"k={k}, but query {int(ids_q[first])} has only {int(candidates_q[first])} candidates.",
            "Ask for fewer neighbours, or search a larger gallery.",
        )


def refuse_other_width(queries: Float[Tensor, "q w"], gallery: Rows) -> None:
    """Raises RETRIEVAL when queries are not as wide as the gallery."""
    width = gallery.codes.shape[1]
    if queries.shape[1:] != (width,):
        raise refusal(
            f"queries are {queries.shape[1]} wide and the gallery is {width} wide.",
            "Make both with the same head from the same features.",
        )


def refuse_zero(rows: Rows, side: str) -> None:
    """Raises RETRIEVAL when a row points nowhere (names the ids)."""
    ids = rows.ids[rows.is_zero].tolist()
    if ids:
        raise refusal(
            f"{len(ids)} of {len(rows)} {side} rows are zero: they point nowhere, so nothing is near them.",
            "Drop these rows, or look for dead units in the head.",
            where=f"sample ids\n{listed(ids)}",
        )


def refuse_twice(ids_g: Int64[Tensor, "g"]) -> None:
    """Raises RETRIEVAL when an ascending id comes twice (names them)."""
    twice = ids_g[1:][ids_g[1:] == ids_g[:-1]].unique().tolist()
    if twice:
        raise refusal(
            f"{len(twice)} gallery ids come more than once.",
            "Give each gallery row an id of its own.",
            where=f"sample ids\n{listed(twice)}",
        )


def refusal(what: str, fix: str, where: str = "") -> LikenessError:
    return LikenessError("RETRIEVAL", what, where=where, fix=fix)
