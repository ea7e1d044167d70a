"""FAISS finds candidates among unit rows in float32; their order, and what the exact kind gives, is by the rule.

Flat is proved query by query: no row that was left out has a greater product than the last candidate's, so it cannot
reach the k-th cosine where that is further above than float32 can err. Where it is not (duplicates, ties), all rows
above that margin are looked at. IVF and HNSW look at a part of the rows; how much is tuned to a recall, and the recall
that is stated is of other queries than those that tuned it.
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
    truth_of,
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
        recall: To tune to; where the greatest effort does not reach it, what was reached is stated all the same.
        sample: Rows that tune, and as many others that the stated recall is of.
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
        with _threads(self.threads):
            self.index, settings = _built(kind, self.rows, seed)
        self.effort = _LEAST_EFFORT if kind == "hnsw" else 1
        seconds, held = time.perf_counter() - started, _bytes(kind, self.index, self.rows)
        self.facts = Facts(f"faiss-{kind}", kind == "flat", len(codes), seconds, held, settings)
        if kind != "flat" and len(codes) > 1:
            reached = self._tune(codes, ids, min(k, len(codes) - 1), recall, sampled(len(codes), 2 * sample, seed))
            effort = {"nprobe" if kind == "ivf" else "ef_search": self.effort}
            self.facts = self.facts._replace(settings=settings | effort, recall=reached)

    def search(self, queries: Float[Tensor, "q d"], k: int, allowed: Bool[Tensor, "n"] | None = None) -> Neighbours:
        columns, asked = how_many(k, len(self.rows), allowed), comparable(queries, self.rows)
        if not columns or not len(asked):
            return nothing(asked, columns)
        count = len(self.rows) if allowed is None else int(allowed.sum())
        if count * _FEW <= len(self.rows):
            return _exactly(self.rows, queries, columns, allowed)
        find = self._proved if self.kind == "flat" else self._probable
        with _threads(self.threads):
            keys = find(asked, columns, count, _chosen(allowed))
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
        keys = ranked(asked, self.rows, self.place, candidates, k)
        if depth == count:
            return keys
        reach_q = read_keys(keys[:, -1])[0] - slack(unit_qd.shape[1])
        for query in (product[:, -1] >= reach_q).nonzero()[:, 0].tolist():
            at = slice(query, query + 1)
            *_, rows = self.index.range_search(unit_qd[at], float(reach_q[query]), params=params)
            keys[at] = ranked(asked.take(at), self.rows, self.place, torch.from_numpy(rows)[None], k)
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
        return ranked(asked, self.rows, self.place, torch.from_numpy(candidates), k)

    def _tune(
        self, codes: Float[Tensor, "n d"], ids: Int[Tensor, "n"], k: int, recall: float, sample: Int64[Tensor, "s"]
    ) -> Recall:
        """Doubles the effort until half of the sample is found well enough; says how the other half is."""
        tuning, stating = (truth_of(codes, ids, k, part) for part in (sample[::2], sample[1::2]))
        most = self.index.nlist if self.kind == "ivf" else min(len(codes), _MOST_EFFORT)
        while recall_of(self, codes, tuning).interval.value < recall and self.effort < most:
            self.effort = min(2 * self.effort, most)
        return recall_of(self, codes, stating)


def _built(kind: str, rows: Rows, seed: int) -> tuple[Any, dict[str, int | float]]:
    import faiss

    count, width = rows.codes.shape
    settings: dict[str, int | float] = {}
    if kind == "flat":
        index = faiss.IndexFlatIP(width)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_EFFORT
        settings = {"links": _LINKS, "ef_construction": _BUILD_EFFORT}
    else:
        lists = max(1, min(round(_LISTS * count**0.5), count // _ROWS_A_LIST))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.min_points_per_centroid = seed, 1
        settings = {"lists": lists}
        if count:
            index.train(rows.unit(sampled(count, _ROWS_A_LIST_FITTED * lists, seed)).float().numpy())
    for block in blocks(count, 64 * BLOCK) if count else ():  # so that never all are there in float64
        index.add(rows.unit(block).float().numpy())
    return index, settings


def _bytes(kind: str, index: Any, rows: Rows) -> int:
    held = len(rows) * (4 * rows.codes.shape[1] + _BYTES_BESIDE)
    if kind == "ivf":
        return held + 8 * len(rows) + 4 * index.nlist * rows.codes.shape[1]
    return held + (4 * index.hnsw.neighbors.size() + 12 * len(rows) if kind == "hnsw" else 0)


def _chosen(allowed: Bool[Tensor, "n"] | None) -> Any:
    """A filter as FAISS takes it: a bit a row."""
    if allowed is None:
        return None
    import faiss
    import numpy as np

    bits = np.packbits(allowed.numpy(), bitorder="little")
    return faiss.IDSelectorBitmap(bits)


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
