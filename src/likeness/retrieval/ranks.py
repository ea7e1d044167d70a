"""The first places of every query's order, and the place of its first positive, without ordering the rest.

The first places are searched as neighbours are; where no positive is among them, its rivals are counted as for hits,
but all of them. Similarities and ties are those of ``retrieval.neighbours``.

Axes: q queries, g gallery rows, r first places.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from likeness.retrieval.filtering import Prepared, block_size, prepared
from likeness.retrieval.hits import rivals_above
from likeness.retrieval.neighbours import (
    apart,
    no_keys,
    queries_at_once,
    read_keys,
    rows_at_once,
    search,
    tile_budget,
)
from likeness.retrieval.rows import BLOCK, Rows, blocks, count_candidates, places

_PLACES_IN_CACHE = 2**18
_BYTES_PER_PLACE = 64  # key, similarity, position, and what a measure makes of them


class Labelled(NamedTuple):
    """Rows in ascending order of id, each with a label."""

    rows: Rows
    labels: Int64[Tensor, "n"]

    def where(self, mask_n: Bool[Tensor, "n"]) -> "Labelled":
        """Itself where that is all: the usual case needs no second copy of the codes."""
        return self if mask_n.all() else Labelled(self.rows.where(mask_n), self.labels[mask_n])

    def take(self, which: slice | Int64[Tensor, "m"]) -> "Labelled":
        return Labelled(self.rows.take(which), self.labels[which])


class First(NamedTuple):
    """The first places of some queries, nearest first.

    Attributes:
        similarities: -inf where there are fewer candidates.
        rows: Positions in the gallery; 0 where there are fewer.
    """

    similarities: Float32[Tensor, "q r"]
    rows: Int64[Tensor, "q r"]

    @property
    def exist(self) -> Bool[Tensor, "q r"]:
        return self.similarities > -torch.inf


def first_places(
    queries: Labelled, gallery: Labelled, depth: int, ties_are_above: bool = False, tile_bytes: int | None = None
) -> Iterator[tuple[slice, First]]:
    """Blocks of queries, each with its first ``depth`` places; none where the gallery is empty. No row is zero.

    With ``ties_are_above`` a tied row of another label comes before one of the query's own.
    """
    if not len(gallery.rows):
        return
    tile_bytes = tile_budget(gallery.labels.device, tile_bytes)
    size, at_once = rows_at_once(gallery.rows.codes, tile_bytes), max(1, tile_bytes // (_BYTES_PER_PLACE * depth))
    filtered = block_size(min(size, len(gallery.rows)), depth) is not None
    # Made again for each round of queries, where that costs little beside the round.
    kept = list(_parts(gallery, size, filtered)) if len(gallery.rows) <= size or at_once < BLOCK else None
    place_q = places(queries.rows.ids, gallery.rows.ids)
    for block in blocks(len(queries.rows), at_once):
        key_qr = no_keys(block.stop - block.start, depth, place_q.device)
        for part in _parts(gallery, size, filtered) if kept is None else kept:
            for some in blocks(len(key_qr), queries_at_once(len(part), tile_bytes)):
                at = slice(block.start + some.start, block.start + some.stop)
                whole = queries is gallery and len(part) == len(gallery.rows)
                asked = part.take(at) if whole else _ready(queries, place_q, at, filtered)
                search(asked, part, key_qr[some], apart, tile_bytes, ties_are_above)
        for some in blocks(len(key_qr), max(1, _PLACES_IN_CACHE // depth)):
            similarity_qr, row_qr = read_keys(key_qr[some])
            at = slice(block.start + some.start, block.start + some.stop)
            yield at, First(similarity_qr, row_qr.masked_fill_(similarity_qr == -torch.inf, 0))


def _parts(gallery: Labelled, size: int, filtered: bool) -> Iterator[Prepared]:
    place_g = torch.arange(len(gallery.rows), device=gallery.labels.device)
    for part in blocks(len(gallery.rows), size):
        yield _ready(gallery, place_g, part, filtered)


def _ready(rows: Labelled, place: Int64[Tensor, "n"], which: slice, filtered: bool) -> Prepared:
    """Rounded now where products in lower precision will be asked for."""
    if filtered:
        return prepared(rows.rows, place, which, rows.labels)
    chosen = rows.rows.take(which)
    return Prepared(chosen, {}, place[which], rows.labels[which], chosen.unit())


def later_ranks(
    queries: Labelled, gallery: Labelled, ties_are_above: bool = False, tile_bytes: int | None = None
) -> Int64[Tensor, "q"]:
    """The rank of each query's first positive, from 1, however late it comes; 0 where there is none.

    For the queries without a positive among their first places: several times as dear as those.
    """
    rank_q = torch.zeros_like(queries.labels)
    has_q = count_candidates(queries.rows, gallery.rows, queries.labels, gallery.labels) > 0
    asked = queries.take(has_q.nonzero().squeeze(1))  # never the gallery itself, of which halves would be counted
    above_q = rivals_above(*asked, *gallery, len(gallery.rows), ties_are_above=ties_are_above, tile_bytes=tile_bytes)
    rank_q[has_q] = above_q + 1
    return rank_q
