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
from jaxtyping import Bool, Float, Float32, Int64
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
from likeness.retrieval.neighbours import (
    TILE_BYTES,
    apart,
    exact_tiles,
    no_keys,
    queries_at_once,
    read_keys,
    rows_at_once,
    search,
)
from likeness.retrieval.rows import Rows, blocks, exclude_groups, places

_SIZE = 32
_MOST_PAIRS = 64  # of a query: this part of a tile's rows is as dear as all of them in a higher precision
_MANY_RIVALS = 64  # with more to count, most blocks would be looked into
_PRODUCTS_IN_CACHE = 2**20
_MOST_HARD = 8  # of all queries: with this part of them, half of the matrix is no help


@dataclass(frozen=True, eq=False)
class _Side:
    """Rows in the order of their labels, prepared in parts of ``size``; the last two parts are kept."""

    rows: Rows
    order: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"]
    place: Int64[Tensor, "n"]
    size: int
    _kept: dict[int, Prepared] = field(default_factory=dict)

    def parts(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, Prepared]]:
        """The first position of each part that has some of these positions, and the part."""
        for part in blocks(len(self.rows), self.size):
            if part.stop > first and (last is None or part.start < last):
                yield part.start, self._part(part)

    def alike(self, queries: Prepared) -> Iterator[tuple[int, Prepared]]:
        """The parts that have labels of these queries."""
        if len(queries):
            span = _range(self.labels[self.order], queries)
            yield from self.parts(span.start, span.stop)

    def _part(self, part: slice) -> Prepared:
        if part.start not in self._kept:
            if len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            self._kept[part.start] = prepared(self.rows, self.place, self.order[part], self.labels)
        return self._kept[part.start]


@dataclass(frozen=True, eq=False)
class _Count:
    """Rivals above each query's best row of its label, counted up to ``k``; in the order of labels."""

    cosine: Float32[Tensor, "q"]
    place: Int64[Tensor, "q"]
    above: Int64[Tensor, "q"]
    k: int
    ties_are_above: bool

    def is_open(self, at: Int64[Tensor, "n"]) -> Bool[Tensor, "n"]:
        return self.above[at] < self.k

    def add(self, at: Int64[Tensor, "n"], rivals: Int64[Tensor, "n"]) -> None:
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
    tile_bytes: int = TILE_BYTES,
) -> Int64[Tensor, "q"]:
    """How many rows of other labels come before the first of the query's own, counted up to ``k``.

    ``hit@i`` holds where that is below i, for every i up to ``k``. A query without a row of its label has ``k``. No row
    is zero. Where ``queries`` is ``gallery`` half of the products are computed.
    """
    if not len(queries) or not len(gallery):
        return torch.full_like(label_q, k)
    ids_g, size = gallery.ids.sort().values, rows_at_once(gallery.codes, tile_bytes)
    of_gallery = _Side(gallery, label_g.argsort(stable=True), label_g, places(gallery.ids, ids_g), size)
    if queries is gallery:
        of_queries = of_gallery
    else:
        of_queries = _Side(queries, label_q.argsort(stable=True), label_q, places(queries.ids, ids_g), size)
    count = _best_of_label(of_queries, of_gallery, k, ties_are_above, tile_bytes)
    left = torch.arange(len(queries), device=label_q.device)
    if of_queries is of_gallery:
        left = _count_by_halves(count, of_gallery, tile_bytes)
    _count_each(count, left, of_queries, of_gallery, tile_bytes)
    above_q = torch.empty_like(count.above)
    above_q[of_queries.order] = count.above
    return above_q


def _best_of_label(queries: _Side, gallery: _Side, k: int, ties_are_above: bool, tile_bytes: int) -> _Count:
    key_q1 = no_keys(len(queries.rows), 1, queries.labels.device)
    for first, some in queries.parts():
        for _, part in gallery.alike(some):
            for block in blocks(len(some), queries_at_once(len(part), tile_bytes)):
                asked = some.take(block)
                alike = part.take(_range(part.labels, asked))
                if len(alike):
                    found = key_q1[first + block.start : first + block.stop]
                    search(asked, alike, found, _own_label, tile_bytes)
    cosine, place = read_keys(key_q1[:, 0])
    return _Count(cosine, place, torch.where(cosine > -torch.inf, 0, k), k, ties_are_above)


def _range(label_g: Int64[Tensor, "g"] | None, queries: Prepared) -> slice:
    """Where, among ascending labels, those between the queries' least and greatest stand."""
    assert label_g is not None
    assert queries.labels is not None
    least, greatest = queries.labels[0], queries.labels[-1]
    return slice(int(torch.searchsorted(label_g, least)), int(torch.searchsorted(label_g, greatest, right=True)))


def _own_label(product_qg: Float[Tensor, "q g"], queries: Prepared, gallery: Prepared) -> None:
    assert gallery.labels is not None
    assert queries.labels is not None
    product_qg.masked_fill_(queries.labels[:, None] != gallery.labels, -torch.inf)
    apart(product_qg, queries, gallery)


def _other_label(product_qg: Float[Tensor, "q g"], queries: Prepared, gallery: Prepared) -> None:
    """A query itself has its own label, and is no rival."""
    assert gallery.labels is not None
    assert queries.labels is not None
    alike = _range(gallery.labels, queries)
    product_qg[:, alike].masked_fill_(queries.labels[:, None] == gallery.labels[alike], -torch.inf)
    exclude_groups(product_qg, queries.rows.groups, gallery.rows.groups)


def _count_by_halves(count: _Count, side: _Side, tile_bytes: int) -> Int64[Tensor, "l"]:
    """Count with each product used both ways; returns the queries that the cheapest precision leaves uncounted."""
    hard = torch.zeros(len(side.rows), dtype=torch.bool, device=side.labels.device)
    for tile in _upper_tiles(side, tile_bytes):
        for at, queries, gallery, product in tile.both_ways():
            uncounted = at[_count(count, at, queries, gallery, product)]
            hard[uncounted] = True
            count.above[uncounted] = count.k  # so that no later tile looks for more
        if int(hard.sum()) * _MOST_HARD > len(hard):
            hard |= count.above < count.k
            break
    left = hard.nonzero().squeeze(1)
    count.above[left] = 0
    return left


class _Tile(NamedTuple):
    """Queries and rows of one set that come after them, but for the first ``overlap`` rows."""

    first_q: int
    queries: Prepared
    first_g: int
    gallery: Prepared
    overlap: int

    def both_ways(self) -> Iterator[tuple[Int64[Tensor, "n"], Prepared, Prepared, Products]]:
        """The positions of the queries, they, their gallery, and the products: of the rows as queries, then turned."""
        queries, gallery, after = self.queries, self.gallery, self.gallery.take(slice(self.overlap, None))
        device = gallery.place.device
        low_q, low_g = queries.cheapest(), gallery.cheapest()
        product = products(low_q, low_g, _SIZE)
        _other_label(product.values[:, : len(gallery)], queries, gallery)
        yield torch.arange(self.first_q, self.first_q + len(queries), device=device), queries, gallery, product
        if len(after):
            turned = product.values[:, self.overlap : len(gallery)].T
            at = torch.arange(self.first_g + self.overlap, self.first_g + len(gallery), device=device)
            yield at, after, queries, Products(turned, slack(low_g, low_q)[self.overlap :], product.u)


def _upper_tiles(side: _Side, tile_bytes: int) -> Iterator[_Tile]:
    """Every pair of rows with different labels once, except within a tile's overlap."""
    for first_q, some in side.parts():
        for first_g, part in side.parts(first_q):
            for block in blocks(len(some), queries_at_once(len(part), tile_bytes)):
                queries = some.take(block)
                start = block.start if first_g == first_q else 0
                if queries.labels[0] == queries.labels[-1]:  # type: ignore[index]
                    start = max(start, _range(part.labels, queries).stop)
                if start < len(part):
                    overlap = max(0, block.stop - start) if first_g == first_q else 0
                    yield _Tile(first_q + block.start, queries, first_g + start, part.take(slice(start, None)), overlap)


def _count_each(count: _Count, left: Int64[Tensor, "l"], queries: _Side, gallery: _Side, tile_bytes: int) -> None:
    """Count for these queries, each with the whole gallery."""
    for first, some in queries.parts():
        here = left[(left >= first) & (left < first + len(some))]
        for _, part in gallery.parts() if len(here) else ():
            for block in blocks(len(here), queries_at_once(len(part), tile_bytes)):
                _count_in(count, here[block], some.take(here[block] - first), part, tile_bytes)


def _count_in(count: _Count, at: Int64[Tensor, "l"], queries: Prepared, gallery: Prepared, tile_bytes: int) -> None:
    def attempt(left: Tensor, dtype: torch.dtype) -> Tensor:
        asked = queries.some(left)
        product = products(asked.in_precision(dtype), gallery.in_precision(dtype), _SIZE)
        _other_label(product.values[:, : len(gallery)], asked, gallery)
        counted = _count_all if count.k > _MANY_RIVALS else _count
        return counted(count, at[left], asked, gallery, product)

    left = through_precisions(count.is_open(at).nonzero().squeeze(1), gallery, attempt)
    for block, _, part, cosine_qg in exact_tiles(queries, left, gallery, _other_label, tile_bytes):
        count.add(at[block], _true(count.beaten(at[block, None], cosine_qg, part.place)))


def _count(
    count: _Count, at: Int64[Tensor, "q"], queries: Prepared, gallery: Prepared, product: Products
) -> Bool[Tensor, "q"]:
    """Count the rivals of one tile; true for queries, still uncounted, of which too many pairs are near."""
    cosine_q, k = count.cosine[at], count.k
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
    rivals_q += _near(count, at, queries, gallery, query_p[~hard_q[query_p]], row_p[~hard_q[query_p]])
    count.add(at, torch.where(enough_q, k, rivals_q) * ~hard_q)
    return hard_q


def _count_all(
    count: _Count, at: Int64[Tensor, "q"], queries: Prepared, gallery: Prepared, product: Products
) -> Bool[Tensor, "q"]:
    """``_count`` that compares every product, whatever ``k`` is."""
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
    rivals_q += _near(count, at, queries, gallery, query_p, row_p)
    count.add(at, rivals_q * ~hard_q)
    return hard_q


def _near(
    count: _Count, at: Int64[Tensor, "q"], queries: Prepared, gallery: Prepared, query_p: Tensor, row_p: Tensor
) -> Int64[Tensor, "q"]:
    """How many of these pairs, which a product leaves undecided, are rivals above."""
    cosine_p = cosines(queries, gallery, query_p, row_p)
    beaten_p = count.beaten(at[query_p], cosine_p, gallery.place[row_p])
    return torch.bincount(query_p[beaten_p], minlength=len(at))


def _true(mask_qg: Bool[Tensor, "q g"]) -> Int64[Tensor, "q"]:
    return mask_qg.sum(1, dtype=torch.int32).long()  # ten times as fast as a sum in int64
