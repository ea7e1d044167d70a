"""Whether one of the k nearest shares the query's label, without finding the k nearest.

A hit needs fewer than k rows of other labels, *rivals*, above the best row of the query's own label. So the best row of
the own label is searched among that label's alone, and the rivals above it are counted, up to k. Similarities and ties
are those of ``retrieval.neighbours``. Within one set each product serves both of its rows as queries: half of the
matrix is enough.

Axes: q queries, g gallery rows, w those and padding, h blocks that are looked into, s rows of a block, p pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from likeness.retrieval.filtering import (
    Prepared,
    Products,
    cosines,
    in_blocks,
    prepared,
    products,
    slack,
    through_precisions,
)
from likeness.retrieval.forbidding import Forbid, label_range
from likeness.retrieval.neighbours import (
    exact_tiles,
    no_keys,
    queries_at_once,
    read_keys,
    rows_at_once,
    search,
    tile_budget,
)
from likeness.retrieval.rows import Rows, blocks, places

_own_label, _other_label = Forbid(labels="other"), Forbid(labels="own")  # who may meet is of the other one
_SIZE = 32
_MOST_PAIRS = 64  # of a query: this part of a tile's rows is as dear as all of them in a higher precision
_MANY_RIVALS = 64  # with more to count, most blocks would be looked into
_PRODUCTS_IN_CACHE = 2**20
_MOST_HARD = 8  # of all queries: with this part of them, half of the matrix is no help


@dataclass(frozen=True, eq=False)
class Side:
    """Rows in the order of their labels, prepared in parts of ``size``; the last two parts are kept.

    ``place`` is of each row, in their own order, among all rows that can ever meet, by ascending id.
    """

    rows: Rows
    order: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"]
    place: Int64[Tensor, "n"]
    size: int
    _kept: dict[int, Prepared] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def parts(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, Prepared]]:
        """The first position of each part that has some of these positions, and the part."""
        for part in blocks(len(self), self.size):
            if part.stop > first and (last is None or part.start < last):
                yield part.start, self._part(part)

    def alike(self, queries: Prepared) -> Iterator[tuple[int, Prepared]]:
        """The parts that have labels of these queries."""
        if len(queries):
            span = label_range(self.labels[self.order], queries)
            yield from self.parts(span.start, span.stop)

    def _part(self, part: slice) -> Prepared:
        if part.start not in self._kept:
            if len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            self._kept[part.start] = prepared(self.rows, self.place, self.order[part], self.labels)
        return self._kept[part.start]


class Party(NamedTuple):
    """Rows that ask, and rows that are searched: one and the same where all do both."""

    queries: Side
    gallery: Side


@dataclass(frozen=True, eq=False)
class Count:
    """Rivals above each row's best row of its label, counted up to ``k``; of all rows, by their places."""

    cosine: Float32[Tensor, "n"]
    place: Int64[Tensor, "n"]
    above: Int64[Tensor, "n"]
    k: int
    ties_are_above: bool

    def is_open(self, at: Int64[Tensor, "q"]) -> Bool[Tensor, "q"]:
        return self.above[at] < self.k

    def add(self, at: Int64[Tensor, "q"], rivals: Int64[Tensor, "q"]) -> None:
        self.above[at] = (self.above[at] + rivals).clamp_(max=self.k)

    def beaten(self, at: Int64[Tensor, "..."], cosine: Float32[Tensor, "..."], place: Int64[Tensor, "..."]) -> Tensor:
        """Whether these rivals come before the best rows of these queries."""
        best = self.cosine[at]
        if self.ties_are_above:
            return cosine >= best
        return (cosine > best) | ((cosine == best) & (place < self.place[at]))


@torch.no_grad()
def rivals_above(
    queries: Rows,
    label_q: Int64[Tensor, "q"],
    gallery: Rows,
    label_g: Int64[Tensor, "g"],
    k: int,
    *,
    ties_are_above: bool = False,
    tile_bytes: int | None = None,
) -> Int64[Tensor, "q"]:
    """How many rows of other labels come before the first of the query's own, counted up to ``k``.

    ``hit@i`` holds where that is below i, for every i up to ``k``. A query without a row of its label has ``k``. No row
    is zero, and no id comes twice on a side. Where ``queries`` is ``gallery`` half of the products are computed.
    """
    tile_bytes = tile_budget(gallery.codes.device, tile_bytes)
    ids_n = torch.cat([queries.ids, gallery.ids]).unique()
    of_queries = of_gallery = side(gallery, label_g, places(gallery.ids, ids_n), tile_bytes)
    if queries is not gallery:
        of_queries = side(queries, label_q, places(queries.ids, ids_n), tile_bytes)
    party, best_n = Party(of_queries, of_gallery), no_keys(len(ids_n), 1, ids_n.device).squeeze(1)
    take_best(best_n, party, party, tile_bytes)
    count = counting(best_n, k, ties_are_above)
    count_rivals(count, party, party, tile_bytes)
    return count.above[of_queries.place]


def side(rows: Rows, labels: Int64[Tensor, "n"], place: Int64[Tensor, "n"], tile_bytes: int) -> Side:
    """Rows to meet others with; they are prepared when they do."""
    return Side(rows, labels.argsort(stable=True), labels, place, rows_at_once(rows.codes, tile_bytes))


def take_best(best_n: Int64[Tensor, "n"], one: Party, other: Party, tile_bytes: int) -> None:
    """Take the best row of each query's own label, as these two parties find it in each other, into the keys so far."""
    _best_of_label(best_n, one.queries, other.gallery, tile_bytes)
    if one is not other:
        _best_of_label(best_n, other.queries, one.gallery, tile_bytes)


def counting(best_n: Int64[Tensor, "n"], k: int, ties_are_above: bool) -> Count:
    """Nothing counted yet above these best rows; ``k`` where there is none."""
    cosine, place = read_keys(best_n)
    return Count(cosine, place, torch.where(cosine > -torch.inf, 0, k), k, ties_are_above)


def count_rivals(count: Count, one: Party, other: Party, tile_bytes: int) -> None:
    """Count, for the queries of both parties, the rivals that the other one has; of a party with itself, once."""
    left = torch.ones_like(count.above, dtype=torch.bool)
    if one is other and one.queries is one.gallery:
        left = _count_both_ways(count, _upper_tiles(one.queries, tile_bytes), len(one.queries))
    elif one.queries is one.gallery and other.queries is other.gallery:
        tiles = _tiles_across(one.queries, other.queries, tile_bytes)
        left = _count_both_ways(count, tiles, len(one.queries) + len(other.queries))
    _count_each(count, left, one.queries, other.gallery, tile_bytes)
    if one is not other:
        _count_each(count, left, other.queries, one.gallery, tile_bytes)


def _best_of_label(best_n: Int64[Tensor, "n"], queries: Side, gallery: Side, tile_bytes: int) -> None:
    for _, some in queries.parts():
        for _, part in gallery.alike(some):
            for block in blocks(len(some), queries_at_once(len(part), tile_bytes)):
                asked = some.take(block)
                alike = part.take(label_range(part.labels, asked))
                if len(alike):
                    found_q1 = best_n[asked.place, None]
                    search(asked, alike, found_q1, _own_label, tile_bytes)
                    best_n[asked.place] = found_q1.squeeze(1)


class _Tile(NamedTuple):
    """Queries, and rows to meet them both ways, but for the first ``overlap`` rows, which are among the queries."""

    queries: Prepared
    gallery: Prepared
    overlap: int = 0

    def both_ways(self) -> Iterator[tuple[Prepared, Prepared, Products]]:
        """Queries, their gallery, and the products: of the queries, then turned, of the rows as queries."""
        queries, gallery, after = self.queries, self.gallery, self.gallery.take(slice(self.overlap, None))
        low_q, low_g = queries.cheapest(), gallery.cheapest()
        product = products(low_q, low_g, _SIZE)
        _other_label(product.values[:, : len(gallery)], queries, gallery)
        yield queries, gallery, product
        if len(after):
            turned = product.values[:, self.overlap : len(gallery)].T
            yield after, queries, Products(turned, slack(low_g, low_q)[self.overlap :], product.u)


def _upper_tiles(side: Side, tile_bytes: int) -> Iterator[_Tile]:
    """Every pair of rows with different labels once, except within a tile's overlap."""
    for first_q, some in side.parts():
        for first_g, part in side.parts(first_q):
            for block in blocks(len(some), queries_at_once(len(part), tile_bytes)):
                queries = some.take(block)
                start = block.start if first_g == first_q else 0
                if queries.labels[0] == queries.labels[-1]:  # type: ignore[index]
                    start = max(start, label_range(part.labels, queries).stop)
                if start < len(part):
                    overlap = max(0, block.stop - start) if first_g == first_q else 0
                    yield _Tile(queries, part.take(slice(start, None)), overlap)


def _tiles_across(one: Side, other: Side, tile_bytes: int) -> Iterator[_Tile]:
    """Every pair of a row of one side and a row of the other."""
    for _, some in one.parts():
        for _, part in other.parts():
            for block in blocks(len(some), queries_at_once(len(part), tile_bytes)):
                yield _Tile(some.take(block), part)


def _count_both_ways(count: Count, tiles: Iterator[_Tile], among: int) -> Bool[Tensor, "n"]:
    """Count with each product used both ways; true for those that the cheapest precision leaves, among so many."""
    before = count.above.clone()
    hard = torch.zeros_like(before, dtype=torch.bool)
    for tile in tiles:
        for queries, gallery, product in tile.both_ways():
            uncounted = queries.place[_count(count, queries, gallery, product)]
            hard[uncounted] = True
            count.above[uncounted] = count.k  # so that no later tile looks for more
        if int(hard.sum()) * _MOST_HARD > among:
            hard |= count.above < count.k
            break
    count.above[hard] = before[hard]
    return hard


def _count_each(count: Count, left: Bool[Tensor, "n"], queries: Side, gallery: Side, tile_bytes: int) -> None:
    """Count for those of the queries that are left, each with the whole gallery."""
    for _, some in queries.parts():
        here = left[some.place].nonzero().squeeze(1)
        for _, part in gallery.parts() if len(here) else ():
            for block in blocks(len(here), queries_at_once(len(part), tile_bytes)):
                _count_in(count, some.take(here[block]), part, tile_bytes)


def _count_in(count: Count, queries: Prepared, gallery: Prepared, tile_bytes: int) -> None:
    def attempt(left: Tensor, dtype: torch.dtype) -> Tensor:
        asked = queries.some(left)
        product = products(asked.in_precision(dtype), gallery.in_precision(dtype), _SIZE)
        _other_label(product.values[:, : len(gallery)], asked, gallery)
        counted = _count_all if count.k > _MANY_RIVALS else _count
        return counted(count, asked, gallery, product)

    at = queries.place
    left = through_precisions(count.is_open(at).nonzero().squeeze(1), gallery, attempt)
    for block, _, part, cosine_qg in exact_tiles(queries, left, gallery, _other_label, tile_bytes):
        count.add(at[block], _true(count.beaten(at[block, None], cosine_qg, part.place)))


def _count(count: Count, queries: Prepared, gallery: Prepared, product: Products) -> Bool[Tensor, "q"]:
    """Count the rivals of one tile; true for queries, still uncounted, of which too many pairs are near."""
    at, k = queries.place, count.k
    cosine_q = count.cosine[at]
    least_q = product.reaching(cosine_q).masked_fill_(~count.is_open(at), torch.inf)
    sure_q = product.exceeding(cosine_q)
    maxima = in_blocks(product.values, _SIZE)
    query_h, block_h = (maxima.values_qb >= least_q[:, None]).nonzero().unbind(1)
    # A block whose maximum is surely above has a rival at least: often that is all that has to be known.
    surely_h = maxima.values_qb[query_h, block_h] > sure_q[query_h]
    enough_q = count.above[at] + torch.bincount(query_h[surely_h], minlength=len(at)) >= k
    query_h, block_h = query_h[~enough_q[query_h]], block_h[~enough_q[query_h]]
    row_hs, product_hs = maxima.inside(query_h, block_h)
    surely_hs = product_hs > sure_q[query_h, None]
    rivals_q = torch.zeros_like(at).index_add_(0, query_h, surely_hs.sum(1))
    near_h, near_s = ((product_hs >= least_q[query_h, None]) & ~surely_hs).nonzero().unbind(1)
    query_p, row_p = query_h[near_h], row_hs[near_h, near_s]
    near_q = torch.bincount(query_p, minlength=len(at))
    hard_q = (near_q > max(len(gallery) // _MOST_PAIRS, 4 * k)) & (count.above[at] + rivals_q < k)
    rivals_q += _near(count, queries, gallery, query_p[~hard_q[query_p]], row_p[~hard_q[query_p]])
    count.add(at, torch.where(enough_q, k, rivals_q) * ~hard_q)
    return hard_q


def _count_all(count: Count, queries: Prepared, gallery: Prepared, product: Products) -> Bool[Tensor, "q"]:
    """``_count`` that compares every product, whatever ``k`` is."""
    at = queries.place
    cosine_q, rivals_q, hard_q = count.cosine[at], torch.zeros_like(at), torch.zeros_like(at, dtype=torch.bool)
    least_q, sure_q = product.reaching(cosine_q), product.exceeding(cosine_q)
    near = []
    for block in blocks(len(at), max(1, _PRODUCTS_IN_CACHE // max(1, len(gallery)))):
        product_qw = product.values[block]
        surely_qw = product_qw > sure_q[block, None]
        near_qw = (product_qw >= least_q[block, None]) ^ surely_qw
        rivals_q[block] = _true(surely_qw)
        hard_q[block] = _true(near_qw) > len(gallery) // _MOST_PAIRS
        near.append((near_qw & ~hard_q[block, None]).nonzero() + torch.tensor([block.start, 0], device=at.device))
    query_p, row_p = torch.cat(near).unbind(1)
    rivals_q += _near(count, queries, gallery, query_p, row_p)
    count.add(at, rivals_q * ~hard_q)
    return hard_q


def _near(count: Count, queries: Prepared, gallery: Prepared, query_p: Tensor, row_p: Tensor) -> Int64[Tensor, "q"]:
    """How many of these pairs, which a product leaves undecided, are rivals above."""
    cosine_p = cosines(queries, gallery, query_p, row_p)
    beaten_p = count.beaten(queries.place[query_p], cosine_p, gallery.place[row_p])
    return torch.bincount(query_p[beaten_p], minlength=len(queries))


def _true(mask_qg: Bool[Tensor, "q g"]) -> Int64[Tensor, "q"]:
    return mask_qg.sum(1, dtype=torch.int32).long()  # ten times as fast as a sum in int64
