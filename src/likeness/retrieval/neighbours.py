"""The nearest rows of a gallery by cosine similarity: exact, in bounded memory, in one order on every machine.

The rule. Rows are brought to unit length in float64 and multiplied in float64; the product is rounded to
whole multiples of 2^-32 (near zero float32 alone is so fine that it would keep what should cancel) and to float32;
equal values are ties, and ties go by ascending sample id. Two orders of summing differ by about 1e-16, which the
rounding takes away, so duplicates tie, and neither the tile, nor the order of the rows, nor the number of processes
decides a rank. (A pair can still round both ways when its similarity lies within 1e-16 of the middle of two values:
one pair in millions at most, and a rank feels it only where the next neighbour is one step away.)

Most pairs are never multiplied in float64: a product in lower precision proves that they are not among the nearest
(``retrieval.filtering``). Where it cannot, for instance because all codes point the same way, a query is multiplied
again in the next precision, in the end in float64 with every row.

Axes: q queries, g gallery rows sorted by id, k neighbours kept, d width of a code, p pairs.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

from likeness.retrieval.filtering import (
    Maxima,
    Prepared,
    Products,
    block_size,
    cosines,
    greatest,
    in_blocks,
    kernel_for,
    prepared,
    products,
    reached_by,
    slack,
    through_precisions,
)
from likeness.retrieval.forbidding import Forbid
from likeness.retrieval.rows import (
    BLOCK,
    Rows,
    blocks,
    comparable,
    count_candidates,
    place_among_equals,
    places,
    refusal,
    refuse_other_width,
    refuse_too_few,
    refuse_twice,
    refuse_zero,
    similarity,
)

TILE_BYTES = 256 * 2**20
"""Of a CPU."""

_MOST_ON_GPU = 32 * 2**30
# What a pair of rows takes at the peak of a tile, measured: product, similarity, key, masks, and what is sorted out.
_BYTES_PER_PAIR = 32
_BYTES_PER_FILTERED_PAIR = 4
_BYTES_PER_ENTRY = 10  # of a row that is prepared: float64 and bfloat16
_QUERIES_IN_CACHE = 512  # whose products are looked at while they are near
_PAIRS_IN_CACHE, _ROWS_IN_CACHE = 2**21, 2**15  # of an exact tile on a processor: a larger one is memory's to wait for
_ALL_BUT_SIGN = 0x7FFFFFFF
_NO_ID = torch.iinfo(torch.int64).min
_FEW = 16  # an allowed part of the rows that is quicker gathered than searched around
_MOST_PAIRS, _MOST_BLOCKS = 32, 4  # of a query: this part of the rows, or of the blocks, is as dear as all in float64


class Neighbours(NamedTuple):
    """The nearest gallery rows of each query, nearest first.

    Attributes:
        similarities: Cosine in [-1, 1].
        indices: Positions in the gallery as it was passed in.
    """

    similarities: Float32[Tensor, "q k"]
    indices: Int64[Tensor, "q k"]


apart = Forbid()


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
    tile_bytes: int | None = None,
) -> Neighbours:
    """The ``k`` gallery rows of greatest cosine similarity to each query, ties by ascending gallery id.

    A gallery row with the query's id is no candidate, and where groups are given neither is a row of the query's group;
    a negative group is unknown and excludes nothing. Memory: about ``tile_bytes`` beside the codes, whatever their
    number, and the answer; when left out 256 MiB, and on a GPU a half of what is free there (``tile_budget``).

    >>> pictures = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    >>> neighbours(pictures, pictures, 1, query_ids=torch.arange(3), gallery_ids=torch.arange(3)).indices
    tensor([[2],
            [2],
            [0]])

    Raises:
        LikenessError: RETRIEVAL when ``k`` is below one or more than a query's candidates, when widths or lengths
            differ, when a gallery id comes twice, and when a row is zero or not finite (names the ids).
    """
    gallery_rows = Gallery(gallery, gallery_ids, gallery_groups, tile_bytes=tile_bytes, keep=False)
    return gallery_rows.neighbours(queries, k, query_ids=query_ids, query_groups=query_groups)


class Gallery:
    """A gallery made ready once, for queries that come later: ``neighbours`` without the work on the gallery.

    Args:
        keep: Whether the rows stay rounded in memory (a half of float32 codes beside them). Else they are made ready
            when they are searched, in parts, and then for exact products as well: for many queries at once.

    Raises:
        LikenessError: RETRIEVAL as ``neighbours`` does.
    """

    def __init__(
        self,
        codes: Float[Tensor, "g d"],
        ids: Int[Tensor, "g"],
        groups: Int[Tensor, "g"] | None = None,
        *,
        tile_bytes: int | None = None,
        keep: bool = True,
    ) -> None:
        self.rows = comparable(codes, ids, groups)
        refuse_zero(self.rows, "gallery")
        self.ids, self.order = self.rows.ids.sort()
        refuse_twice(self.ids)
        self.place, self.tile_bytes, self.keep = places(self.rows.ids, self.ids), tile_bytes, keep
        self._kept = list(self._made(self.order)) if keep else None

    @torch.no_grad()
    def neighbours(
        self,
        queries: Float[Tensor, "q d"],
        k: int,
        *,
        query_ids: Int[Tensor, "q"] | None = None,
        query_groups: Int[Tensor, "q"] | None = None,
        allowed: Bool[Tensor, "g"] | None = None,
    ) -> Neighbours:
        """The ``k`` nearest rows of each query, of those ``allowed`` as the rows were passed in.

        Without ``query_ids`` no query is a row of the gallery.
        """
        if (query_groups is None) != (self.rows.groups is None):
            raise refusal("groups are given on one side only.", "Give groups to queries and gallery, or to neither.")
        refuse_other_width(queries, self.rows)
        if query_ids is None:
            place_q = torch.full((len(queries),), -1, device=queries.device)
            asked = comparable(queries, torch.full_like(place_q, _NO_ID), query_groups)
        else:
            asked = comparable(queries, query_ids, query_groups)
            place_q = places(asked.ids, self.ids)
        refuse_zero(asked, "query")
        refuse_too_few(k, self._candidates(asked, query_ids is not None, allowed), asked.ids)
        key_qk, tile_bytes = no_keys(len(asked), k, queries.device), tile_budget(queries.device, self.tile_bytes)
        for part, forbid in self._searched(allowed):
            for block in blocks(len(asked), queries_at_once(len(part), tile_bytes)):
                search(prepared(asked, place_q, block), part, key_qk[block], forbid, tile_bytes)
        similarities, place_qk = read_keys(key_qk)
        return Neighbours(similarities, self.order[place_qk])

    def _candidates(self, queries: Rows, among: bool, allowed: Bool[Tensor, "g"] | None) -> Int64[Tensor, "q"]:
        if among or queries.groups is not None:
            return count_candidates(queries, self.rows if allowed is None else self.rows.take(allowed.nonzero()[:, 0]))
        return torch.full_like(queries.ids, len(self.rows) if allowed is None else int(allowed.sum()))

    def _searched(self, allowed: Bool[Tensor, "g"] | None) -> Iterator[tuple[Prepared, Forbid]]:
        """The rows in parts that are not empty, each with what may not meet."""
        if allowed is None:
            yield from ((part, apart) for part in (self._made(self.order) if self._kept is None else self._kept))
        elif self._kept is None:
            yield from ((part, apart) for part in self._made(self.order[allowed[self.order]]))
        else:
            allowed_g = allowed.index_select(0, self.order)  # several times as fast as indexing
            yield from filter(lambda found: len(found[0]), (_narrowed(part, allowed_g) for part in self._kept))

    def _made(self, order: Int64[Tensor, "m"]) -> Iterator[Prepared]:
        tile_bytes = tile_budget(order.device, self.tile_bytes)
        for part in blocks(len(order), rows_at_once(self.rows.codes, tile_bytes)):
            yield prepared(self.rows, self.place, order[part], keep_unit=not self.keep)


def _narrowed(part: Prepared, allowed_g: Bool[Tensor, "g"]) -> tuple[Prepared, Forbid]:
    """The allowed rows of a part (whose places follow one another), or where they are many all of them with a ban."""
    first = int(part.place[0]) if len(part) else 0
    own = allowed_g[first : first + len(part)]
    count = int(own.sum())
    if count == len(part):
        return part, apart
    if count * _FEW <= len(part):
        # What is found out about these few in lower precision holds for them alone.
        return replace(part.take(own.nonzero()[:, 0]), useless=set()), apart
    return part, Forbid(barred=~own)


def tile_budget(device: torch.device, tile_bytes: int | None = None) -> int:
    """Bytes that may be taken beside the codes: those given, else what suits the device.

    That is ``TILE_BYTES`` on a CPU, whose caches are small. A GPU is only filled by large tiles: a half of what is free
    there and what torch holds in reserve, at most 32 GiB.
    """
    if tile_bytes is not None:
        return tile_bytes
    if device.type != "cuda":
        return TILE_BYTES
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free, _ = torch.cuda.mem_get_info(device)
    return max(TILE_BYTES, min((free + reserve) // 2, _MOST_ON_GPU))


def rows_at_once(codes: Float[Tensor, "n d"], tile_bytes: int) -> int:
    """How many rows may be prepared at a time."""
    return max(BLOCK, tile_bytes // 2 // (_BYTES_PER_ENTRY * codes.shape[1]))


def queries_at_once(gallery: int, tile_bytes: int) -> int:
    """How many queries may be filtered at a time: as many more than suit a CPU as the tile is larger than a CPU's."""
    most = _QUERIES_IN_CACHE * max(1, tile_bytes // TILE_BYTES)
    return max(1, min(most, tile_bytes // 2 // (_BYTES_PER_FILTERED_PAIR * max(1, gallery))))


def _exact_tile(gallery: int, tile_bytes: int, device: torch.device) -> tuple[int, int]:
    """How many queries may meet how many gallery rows in float64 at a time."""
    pairs, rows = tile_bytes // _BYTES_PER_PAIR, max(1, gallery)
    if device.type == "cpu":
        pairs, rows = min(pairs, _PAIRS_IN_CACHE), min(rows, _ROWS_IN_CACHE)
    return max(1, pairs // rows), rows


def search(
    queries: Prepared,
    gallery: Prepared,
    key_qk: Int64[Tensor, "q k"],
    forbid: Forbid,
    tile_bytes: int,
    own_label_last: bool = False,
) -> None:
    """Take the nearest of these gallery rows into ``key_qk``, the greatest keys that were found before.

    With ``own_label_last`` a row of the query's label comes after all that tie with it.
    """
    left, size = torch.arange(len(queries), device=key_qk.device), block_size(len(gallery), key_qk.shape[1])
    if size is not None:

        def attempt(left: Tensor, dtype: torch.dtype) -> Tensor:
            key_lk = key_qk[left]
            hard_l = _filtered(queries.some(left), gallery, key_lk, forbid, dtype, size, own_label_last)
            key_qk[left] = key_lk
            return hard_l

        left = through_precisions(left, gallery, attempt)
    for at, asked, part, cosine_qg in exact_tiles(queries, left, gallery, forbid, tile_bytes):
        last_qg = asked.labels[:, None].eq(part.labels) if own_label_last else None  # type: ignore[index, arg-type]
        key_qk[at] = _greatest(key_qk[at], pair_keys(cosine_qg, part.place, last_qg))


def exact_tiles(
    queries: Prepared, left: Int64[Tensor, "l"], gallery: Prepared, forbid: Forbid, tile_bytes: int
) -> Iterator[tuple[Int64[Tensor, "block"], Prepared, Prepared, Float32[Tensor, "block part"]]]:
    """Blocks of the queries that are left with blocks of these rows: positions, queries, rows, cosines."""
    if not len(left):
        return
    unit_gd = gallery.exact()
    at_once, rows = _exact_tile(len(gallery), tile_bytes, unit_gd.device)
    for block in blocks(len(left), at_once):
        asked = queries.some(left[block])
        unit_qd = asked.exact()
        for rest in blocks(len(gallery), rows):
            part = gallery.take(rest)
            cosine_qg = similarity(unit_qd, unit_gd[rest])
            forbid.among(rest)(cosine_qg, asked, part)
            yield left[block], asked, part, cosine_qg


def _filtered(
    queries: Prepared,
    gallery: Prepared,
    key_qk: Int64[Tensor, "q k"],
    forbid: Forbid,
    dtype: torch.dtype,
    size: int,
    own_label_last: bool,
) -> Bool[Tensor, "q"]:
    """``search`` among what a product in lower precision leaves; true for queries of which it leaves too much.

    At least k rows reach the k-th greatest maximum of a block: so the k-th cosine is no less than what that proves.
    """
    product, maxima = _blocks_of(queries, gallery, forbid, dtype, size)
    k = key_qk.shape[1]
    known_q = read_keys(key_qk[:, -1])[0]
    least_q = product.reaching(torch.maximum(known_q, product.at_least(reached_by(maxima.values_qb, k))))
    query_h, block_h = (maxima.values_qb >= least_q[:, None]).nonzero().unbind(1)
    hard_q = _more_than(query_h, len(queries), max(maxima.values_qb.shape[1] // _MOST_BLOCKS, 4 * k))
    query_h, block_h = query_h[~hard_q[query_h]], block_h[~hard_q[query_h]]
    row_hs, product_hs = maxima.inside(query_h, block_h)
    near_h, near_s = ((product_hs >= least_q[query_h, None]) & (product_hs > -torch.inf)).nonzero().unbind(1)
    query_p, row_p = query_h[near_h], row_hs[near_h, near_s]
    hard_q |= _more_than(query_p, len(queries), max(len(gallery) // _MOST_PAIRS, 4 * k))
    query_p, row_p = query_p[~hard_q[query_p]], row_p[~hard_q[query_p]]
    last_p = queries.labels[query_p].eq(gallery.labels[row_p]) if own_label_last else None  # type: ignore[index]
    key_p = pair_keys(cosines(queries, gallery, query_p, row_p), gallery.place[row_p], last_p)
    key_qk[:] = _greatest(key_qk, _in_rows(key_p, query_p, len(queries)))
    return hard_q


def _blocks_of(
    queries: Prepared, gallery: Prepared, forbid: Forbid, dtype: torch.dtype, size: int
) -> tuple[Products, Maxima]:
    """The greatest products of each block, and what they prove."""
    low_q, low_g = queries.in_precision(dtype), gallery.in_precision(dtype)
    if (kernel := kernel_for(low_g.rows, size)) is not None:
        maxima = kernel.in_blocks(low_q, low_g, forbid.columns(queries, gallery), size)
        return Products(maxima.values_qb, slack(low_q, low_g), u=0.0), maxima
    product = products(low_q, low_g, size)
    forbid(product.values[:, : len(gallery)], queries, gallery)
    return product, in_blocks(product.values, size)


def _more_than(query_p: Int64[Tensor, "p"], queries: int, limit: int) -> Bool[Tensor, "q"]:
    return torch.bincount(query_p, minlength=queries) > limit


def _in_rows(key_p: Int64[Tensor, "p"], query_p: Int64[Tensor, "p"], queries: int) -> Int64[Tensor, "q most"]:
    """The keys of each query in a row of its own, filled up with the key of nothing."""
    count_q = torch.bincount(query_p, minlength=queries)
    table = no_keys(queries, int(count_q.max()) if queries else 0, key_p.device)
    table[query_p, place_among_equals(query_p, count_q)] = key_p
    return table


def _greatest(key_qk: Int64[Tensor, "q k"], more_qm: Int64[Tensor, "q m"]) -> Int64[Tensor, "q k"]:
    return greatest(torch.cat([key_qk, more_qm], dim=1), key_qk.shape[1])


def pair_keys(
    similarity_p: Float32[Tensor, "*pairs"],
    place_p: Int64[Tensor, "*any"],
    last_p: Bool[Tensor, "*pairs"] | None = None,
) -> Int64[Tensor, "*pairs"]:
    """One integer for each pair, all different within a query; the greater, the nearer.

    The similarity's bits lead; among ties those marked ``last_p`` come last; then the smaller ``place_p`` wins. So the
    order has no ties left, and ``topk``, which is not stable, is exact on it even where whole rows are equal.
    """
    # Adding 0.0 turns -0.0 into 0.0: they are equal, but their bits are not.
    bits = (similarity_p + 0.0).view(torch.int32)
    # As integers, the bits of negative floats ascend the wrong way round.
    bits ^= (bits >> 31) & _ALL_BUT_SIGN
    key = bits.long()
    key <<= 32
    if last_p is not None:
        key.add_(last_p, alpha=-(2**31))
    return key.sub_(place_p)


def read_keys(key: Int64[Tensor, "*pairs"]) -> tuple[Float32[Tensor, "*pairs"], Int64[Tensor, "*pairs"]]:
    """Similarity and place."""
    low = -key & 0xFFFFFFFF
    bits = ((key + low) >> 32).int()
    return (bits ^ ((bits >> 31) & _ALL_BUT_SIGN)).view(torch.float32), low & _ALL_BUT_SIGN


def no_keys(queries: int, k: int, device: torch.device) -> Int64[Tensor, "q k"]:
    """The key of a row that is nowhere, which every real one beats."""
    nothing = pair_keys(torch.tensor([-torch.inf]), torch.tensor([2**31 - 1]))
    return nothing.to(device).expand(queries, k).clone()


def rank_keys(
    similarity_qg: Float32[Tensor, "q g"], last_of_ties_qg: Bool[Tensor, "q g"] | None = None
) -> Int64[Tensor, "q g"]:
    """``pair_keys`` of a gallery in order of its ids."""
    place_g = torch.arange(similarity_qg.shape[1], device=similarity_qg.device)
    return pair_keys(similarity_qg, place_g, last_of_ties_qg)
