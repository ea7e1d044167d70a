"""The nearest rows of a gallery by cosine similarity: exact, in bounded memory, in one order on every machine.

The rule. Rows are brought to unit length in float64 and multiplied in float64; the product is rounded to float32;
equal float32 values are ties, and ties go by ascending sample id. Two orders of summing differ by about 1e-16, which
the rounding takes away, so duplicates tie, and neither the tile, nor the order of the rows, nor the number of processes
decides a rank. (A pair can still round both ways when its similarity lies within 1e-16 of the middle of two float32
values: about one pair in 10^8, and a rank feels it only where the next neighbour is one float32 step away.)

Axes: q queries, g gallery rows sorted by id, k neighbours kept, d width of a code, n rows of either kind.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64
from torch import Tensor

from likeness.errors import LikenessError, listed

TILE_BYTES = 256 * 2**20
# What a pair of rows takes at the peak of a tile, measured: product, similarity, key, masks, and what is sorted out.
_BYTES_PER_PAIR = 32


class Neighbours(NamedTuple):
    """The nearest gallery rows of each query, nearest first.

    Attributes:
        similarities: Cosine in [-1, 1].
        indices: Positions in the gallery as it was passed in.
    """

    similarities: Float32[Tensor, "q k"]
    indices: Int64[Tensor, "q k"]


class Rows(NamedTuple):
    """Codes ready to be compared, and what decides who may meet whom.

    Attributes:
        unit: Rows of length one; a zero row stays zero.
        ids: Sample ids.
        groups: -1 where unknown; None when groups exclude nothing.
    """

    unit: Float64[Tensor, "n d"]
    ids: Int64[Tensor, "n"]
    groups: Int64[Tensor, "n"] | None

    def zero(self) -> Bool[Tensor, "n"]:
        return ~self.unit.any(dim=1)

    def take(self, which: Int64[Tensor, "m"] | slice) -> "Rows":
        return Rows(self.unit[which], self.ids[which], None if self.groups is None else self.groups[which])


@torch.no_grad()
def neighbours(
    queries: Float[Tensor, "q d"],
    gallery: Float[Tensor, "g d"],
    k: int,
    *,
    query_ids: Int[Tensor, "q"],
    gallery_ids: Int[Tensor, "g"],
    query_groups: Int[Tensor, "q"] | None = None,
    gallery_groups: Int[Tensor, "g"] | None = None,
    tile_bytes: int = TILE_BYTES,
) -> Neighbours:
    """The ``k`` gallery rows of greatest cosine similarity to each query, ties by ascending gallery id.

    A gallery row with the query's id is no candidate, and where groups are given neither is a row of the query's group;
    a negative group is unknown and excludes nothing. Memory: a float64 copy of both sides, and one tile of about
    ``tile_bytes``; where a single query's row takes more than that, one query at a time.

    >>> pictures = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    >>> neighbours(pictures, pictures, 1, query_ids=torch.arange(3), gallery_ids=torch.arange(3)).indices
    tensor([[2],
            [2],
            [0]])

    Raises:
        LikenessError: RETRIEVAL when ``k`` is below one or more than a query's candidates, when widths or lengths
            differ, when a gallery id comes twice, and when a row is zero or not finite (names the ids).
    """
    if (query_groups is None) != (gallery_groups is None):
        raise refusal("groups are given on one side only.", "Pass query_groups and gallery_groups, or neither.")
    if queries.shape[1:] != gallery.shape[1:]:
        raise refusal(
            f"queries are {queries.shape[1]} wide and the gallery is {gallery.shape[1]} wide.",
            "Make both with the same head from the same features.",
        )
    query_rows = comparable(queries, query_ids, query_groups)
    gallery_rows = comparable(gallery, gallery_ids, gallery_groups)
    order_g = torch.argsort(gallery_rows.ids)
    gallery_rows = gallery_rows.take(order_g)
    _refuse_zero(query_rows, "query")
    _refuse_zero(gallery_rows, "gallery")
    _refuse_twice(gallery_rows.ids)
    found = [
        _nearest(similarity_qg, k, query_rows.ids[block])
        for block, similarity_qg in similarity_tiles(query_rows, gallery_rows, tile_bytes)
    ]
    similarities, positions = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Neighbours(similarities, order_g[positions])


def comparable(codes: Float[Tensor, "n d"], ids: Int[Tensor, "n"], groups: Int[Tensor, "n"] | None = None) -> Rows:
    """Codes of any precision as rows of unit length, however great or small their entries are.

    Raises:
        LikenessError: RETRIEVAL when lengths differ, rows have no columns, or a row is not finite (names the ids).
    """
    lengths = {len(column) for column in (codes, ids, groups) if column is not None}
    if codes.ndim != 2 or not codes.shape[1] or len(lengths) > 1:
        raise refusal(
            f"codes are {tuple(codes.shape)}, ids {tuple(ids.shape)}; needed are [n, d] with d > 0, and one id a row.",
            "Flatten the codes, and pass as many ids (and groups) as rows.",
        )
    finite_n = codes.isfinite().all(dim=1)
    if not finite_n.all():
        bad = ids[~finite_n.to(ids.device)].tolist()
        raise refusal(
            f"{len(bad)} of {len(codes)} rows are not finite (NaN or infinite).",
            "Look for diverged training, damaged weights, or an overflow in half precision.",
            where=f"sample ids\n{listed(bad)}",
        )
    unit = codes.detach().to(torch.float64, copy=True)
    # First by the greatest entry, so that no square overflows or vanishes.
    for order in (torch.inf, 2):
        length = torch.linalg.vector_norm(unit, order, dim=1, keepdim=True)
        unit /= length.masked_fill_(length == 0, 1)
    groups = None if groups is None else groups.to(unit.device, torch.int64)
    return Rows(unit, ids.to(unit.device, torch.int64), groups)


def similarity_tiles(
    queries: Rows, gallery: Rows, tile_bytes: int = TILE_BYTES
) -> Iterator[tuple[slice, Float32[Tensor, "block g"]]]:
    """Blocks of queries, each with its similarities to the whole gallery: -inf where a row is no candidate.

    The one place where similarities are computed. The gallery's ids ascend. There is always a block, be it empty.
    """
    size = max(1, tile_bytes // (_BYTES_PER_PAIR * max(1, len(gallery.ids))))
    for start in range(0, max(1, len(queries.ids)), size):
        block = slice(start, start + size)
        part = queries.take(block)
        similarity_qg = _similarity(part.unit, gallery.unit)
        _exclude(similarity_qg, part, gallery)
        yield block, similarity_qg


def _similarity(unit_qd: Float64[Tensor, "q d"], unit_gd: Float64[Tensor, "g d"]) -> Float32[Tensor, "q g"]:
    with torch.autocast(unit_qd.device.type, enabled=False):
        return (unit_qd @ unit_gd.T).float()


def _exclude(similarity_qg: Float32[Tensor, "q g"], queries: Rows, gallery: Rows) -> None:
    if not similarity_qg.numel():
        return
    position_q = torch.searchsorted(gallery.ids, queries.ids).clamp_(max=len(gallery.ids) - 1)
    itself = (gallery.ids[position_q] == queries.ids).nonzero().squeeze(1)
    similarity_qg[itself, position_q[itself]] = -torch.inf
    if queries.groups is not None and gallery.groups is not None:
        group_q1 = queries.groups[:, None]
        similarity_qg.masked_fill_((group_q1 == gallery.groups) & (group_q1 >= 0), -torch.inf)


def rank_keys(
    similarity_qg: Float32[Tensor, "q g"], last_of_ties_qg: Bool[Tensor, "q g"] | None = None
) -> Int64[Tensor, "q g"]:
    """One integer for each pair, all different within a query; the greater, the nearer.

    The similarity's bits lead; among ties those marked ``last_of_ties_qg`` come last; then the position decides. So the
    order has no ties left, and ``topk``, which is not stable, is exact on it even where whole rows are equal.
    """
    # Adding 0.0 turns -0.0 into 0.0: they are equal, but their bits are not.
    bits_qg = (similarity_qg + 0.0).view(torch.int32)
    # As integers, the bits of negative floats ascend the wrong way round.
    bits_qg ^= (bits_qg >> 31) & 0x7FFFFFFF
    key_qg = bits_qg.long()
    key_qg <<= 32
    if last_of_ties_qg is not None:
        key_qg.add_(last_of_ties_qg, alpha=-(2**31))
    return key_qg.sub_(torch.arange(key_qg.shape[1], device=key_qg.device))


def _nearest(
    similarity_qg: Float32[Tensor, "q g"], k: int, ids_q: Int64[Tensor, "q"]
) -> tuple[Float32[Tensor, "q k"], Int64[Tensor, "q k"]]:
    refuse_too_few(k, (similarity_qg > -torch.inf).sum(dim=1), ids_q)
    positions_qk = rank_keys(similarity_qg).topk(min(k, similarity_qg.shape[1])).indices
    return similarity_qg.gather(1, positions_qk), positions_qk


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


def _refuse_zero(rows: Rows, side: str) -> None:
    ids = rows.ids[rows.zero()].tolist()
    if ids:
        raise refusal(
            f"{len(ids)} of {len(rows.ids)} {side} rows are zero: they point nowhere, so nothing is near them.",
            "Drop these rows, or look for dead units in the head.",
            where=f"sample ids\n{listed(ids)}",
        )


def _refuse_twice(ids_g: Int64[Tensor, "g"]) -> None:
    twice = ids_g[1:][ids_g[1:] == ids_g[:-1]].unique().tolist()
    if twice:
        raise refusal(
            f"{len(twice)} gallery ids come more than once.",
            "Give each gallery row an id of its own.",
            where=f"sample ids\n{listed(twice)}",
        )


def refusal(what: str, fix: str, where: str = "") -> LikenessError:
    return LikenessError("RETRIEVAL", what, where=where, fix=fix)
