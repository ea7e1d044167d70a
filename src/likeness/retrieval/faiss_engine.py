"""FAISS finds candidates among unit rows in float32; their order, and what the exact kind gives, is by the rule.

Flat is proved query by query: no row that was left out has a greater product than the last candidate's, so it cannot
reach the k-th cosine where that is further above than float32 can err. Where it is not (duplicates, ties), all rows
above that margin are looked at. IVF and HNSW look at a part of the rows. How much is tuned to a recall by rows that are
not in the index yet, and the recall that is stated is that of others: to itself a row finds its way too easily.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from likeness.retrieval.engines import (
    Facts,
    Recall,
    as_neighbours,
    comparable,
    how_many,
    need,
    nothing,
    ranked,
    recall_of,
    sampled,
    slack,
)
from likeness.retrieval.neighbours import Gallery, Neighbours, no_keys, read_keys
from likeness.retrieval.rows import BLOCK, Rows, blocks, places, refuse_twice, refuse_zero
from likeness.retrieval.rows import comparable as comparable_rows

_FEW = 16  # an allowed part of the rows that is quicker compared than filtered
_LISTS = 4  # times the root of the rows: to find the lists then costs about as much as to look through them
_ROWS_A_LIST, _ROWS_A_LIST_FITTED = 39, 64  # what k-means asks for at least, and what is given it where there is more
_LINKS, _BUILD_EFFORT = 32, 80  # of a node of the graph, and how many are looked at for it
_LEAST_EFFORT, _MOST_EFFORT = 16, 4096
_BYTES_BESIDE = 4 * 8  # of a row: length, id, order, place


class Faiss:
    """An index of FAISS, made anew from the rows; no file of its own is written or read.

    Args:
        kind: ``flat`` looks at every row and gives the exact neighbours, ``ivf`` at the rows of the nearest lists,
            ``hnsw`` at what a walk along a graph meets.
        k: Of the recall that is tuned and stated.
        recall: To tune to. Where more effort does not help, as with hundreds of equal rows in a graph, less is stated.
        sample: Rows that tune, and as many others that the stated recall is of; together a quarter of all at most.
        oversampling: Candidates for each neighbour asked for.
        threads: Of FAISS; as many as torch's when left out.

    Raises:
        LikenessError: CONFIG-EXTRA without faiss, RETRIEVAL as ``neighbours`` does.
    """

    def __init__(
        self,
        codes: Float[Tensor, "n d"],
        ids: Int[Tensor, "n"],
        kind: Literal["flat", "ivf", "hnsw"] = "flat",
        *,
        k: int = 10,
        recall: float = 0.99,
        sample: int = 256,
        oversampling: int = 4,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        need("faiss", "faiss")
        started = time.perf_counter()
        self.rows = comparable_rows(codes, ids)
        refuse_zero(self.rows, "gallery")
        ascending, self.order = self.rows.ids.sort()
        refuse_twice(ascending)
        self.place = places(self.rows.ids, ascending)
        self.kind, self.oversampling, self.threads = kind, oversampling, threads or torch.get_num_threads()
        held = sampled(len(codes), 0 if kind == "flat" else min(2 * sample, len(codes) // 4), seed)
        rest = torch.ones(len(codes), dtype=torch.bool).index_fill_(0, held, False)
        first, reached = rest.nonzero()[:, 0], None
        self.position = torch.cat([first, held])  # of each row of the index
        self.effort = _LEAST_EFFORT if kind == "hnsw" else 1
        with _threads(self.threads):
            self.index, settings = _empty(kind, self.rows, first, seed)
            self._add(first)
            if len(held) > 1:
                reached = self._tune(min(k, len(first)), recall, held, rest)
                settings["nprobe" if kind == "ivf" else "ef_search"] = self.effort
            self._add(held)
        seconds, holds = time.perf_counter() - started, _bytes(kind, self.index, self.rows)
        self.facts = Facts(f"faiss-{kind}", kind == "flat", len(codes), seconds, holds, settings, reached)

    def search(self, queries: Float[Tensor, "q d"], k: int, allowed: Bool[Tensor, "n"] | None = None) -> Neighbours:
        columns, asked = how_many(k, len(self.rows), allowed), comparable(queries, self.rows)
        if not columns or not len(asked):
            return nothing(asked, columns)
        count = len(self.rows) if allowed is None else int(allowed.sum())
        if count * _FEW <= len(self.rows):
            return _exactly(self.rows, queries, columns, allowed)
        find = self._proved if self.kind == "flat" else self._probable
        with _threads(self.threads):
            keys = find(asked, columns, count, self._chosen(allowed))
        short = (keys == no_keys(1, 1, keys.device)).any(1)
        found = as_neighbours(keys.masked_fill(short[:, None], 0), self.order)
        if short.any():
            rest = _exactly(self.rows, queries[short], columns, allowed)
            found.similarities[short], found.indices[short] = rest
        return found

    def _proved(self, asked: Rows, k: int, count: int, chosen: Any) -> Int64[Tensor, "q k"]:
        import faiss

        params, unit_qd = faiss.SearchParameters(sel=chosen), asked.unit().float().numpy()
        depth = min(count, k * self.oversampling)
        product, candidates = map(torch.from_numpy, self.index.search(unit_qd, depth, params=params))
        keys = self._ranked(asked, candidates, k)
        if depth == count:
            return keys
        reach_q = read_keys(keys[:, -1])[0] - slack(unit_qd.shape[1])
        for query in (product[:, -1] >= reach_q).nonzero()[:, 0].tolist():
            at = slice(query, query + 1)
            *_, rows = self.index.range_search(unit_qd[at], float(reach_q[query]), params=params)
            keys[at] = self._ranked(asked.take(at), torch.from_numpy(rows)[None], k)
        return keys

    def _probable(self, asked: Rows, k: int, count: int, chosen: Any) -> Int64[Tensor, "q k"]:
        import faiss

        depth = min(count, k * self.oversampling)
        effort = self.effort * len(self.rows) // count  # a filter leaves fewer rows where it looks
        if self.kind == "ivf":
            params = faiss.SearchParametersIVF(sel=chosen, nprobe=min(effort, self.index.nlist))
        else:
            params = faiss.SearchParametersHNSW(sel=chosen, efSearch=max(effort, depth))
        _, candidates = self.index.search(asked.unit().float().numpy(), depth, params=params)
        return self._ranked(asked, torch.from_numpy(candidates), k)

    def _tune(self, k: int, recall: float, held: Int64[Tensor, "h"], rest: Bool[Tensor, "n"]) -> Recall:
        """Doubles the effort until half of what is held back finds enough, or no more; says how the other half does."""
        true = Gallery(self.rows.codes, self.rows.ids, keep=False).neighbours(self.rows.codes[held], k, allowed=rest)
        least_h, asked, count = true.similarities[:, -1:], self.rows.take(held), int(rest.sum())

        def hits(half: slice) -> Bool[Tensor, "s k"]:
            return read_keys(self._probable(asked.take(half), k, count, None))[0] >= least_h[half]

        most = self.index.nlist if self.kind == "ivf" else min(count, _MOST_EFFORT)
        tuning, stating = slice(0, None, 2), slice(1, None, 2)
        found, before = float(hits(tuning).float().mean()), 0.0
        while before < found < recall and self.effort < most:
            self.effort = min(2 * self.effort, most)
            found, before = float(hits(tuning).float().mean()), found
        return recall_of(hits(stating), held[stating])

    def _ranked(self, asked: Rows, candidates: Int64[Tensor, "q c"], k: int) -> Int64[Tensor, "q k"]:
        position_qc = torch.where(candidates < 0, -1, self.position[candidates.clamp(min=0)])
        return ranked(asked, self.rows, self.place, position_qc, k)

    def _chosen(self, allowed: Bool[Tensor, "n"] | None) -> Any:
        """A filter as FAISS takes it: a bit a row of the index."""
        if allowed is None:
            return None
        import faiss
        import numpy as np

        bits = np.packbits(allowed.index_select(0, self.position).numpy(), bitorder="little")
        return faiss.IDSelectorBitmap(bits)

    def _add(self, positions: Int64[Tensor, "m"]) -> None:
        for block in blocks(len(positions), 64 * BLOCK) if len(positions) else ():  # never all of them in float64
            self.index.add(self.rows.unit(positions[block]).float().numpy())


def _empty(kind: str, rows: Rows, fitted: Int64[Tensor, "m"], seed: int) -> tuple[Any, dict[str, int | float]]:
    """An index without rows, fitted to some of these where its kind is."""
    import faiss

    count, width = len(fitted), rows.codes.shape[1]
    if kind == "flat":
        return faiss.IndexFlatIP(width), {}
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_EFFORT
        return index, {"links": _LINKS, "ef_construction": _BUILD_EFFORT}
    lists = max(1, min(round(_LISTS * count**0.5), count // _ROWS_A_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.min_points_per_centroid = seed, 1
    if count:
        some = fitted[sampled(count, _ROWS_A_LIST_FITTED * lists, seed)]
        index.train(rows.unit(some).float().numpy())
    return index, {"lists": lists}


def _bytes(kind: str, index: Any, rows: Rows) -> int:
    held = len(rows) * (4 * rows.codes.shape[1] + _BYTES_BESIDE)
    if kind == "ivf":
        return held + 8 * len(rows) + 4 * index.nlist * rows.codes.shape[1]
    return held + (4 * index.hnsw.neighbors.size() + 12 * len(rows) if kind == "hnsw" else 0)


def _exactly(rows: Rows, queries: Float[Tensor, "q d"], k: int, allowed: Bool[Tensor, "n"] | None) -> Neighbours:
    which = torch.arange(len(rows)) if allowed is None else allowed.nonzero()[:, 0]
    found = Gallery(rows.codes[which], rows.ids[which], keep=False).neighbours(queries, k)
    return Neighbours(found.similarities, which[found.indices])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """FAISS keeps one number for the whole process."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
