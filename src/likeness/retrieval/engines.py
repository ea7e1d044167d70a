"""What answers a search over the rows of an index, behind one interface, and how near the approximate ones come.

An engine is made from codes and ids and lives in memory (or on a server): the truth stays with the index, and an engine
is always made again from it. Whatever finds the candidates, their order is the rule of ``retrieval.neighbours``.
"""

import time
from importlib.util import find_spec
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from likeness.errors import LikenessError
from likeness.retrieval.neighbours import Gallery, Neighbours, no_keys, pair_keys, read_keys
from likeness.retrieval.rows import Rows, blocks, refusal, refuse_other_width, refuse_zero, settled
from likeness.retrieval.rows import comparable as comparable_rows
from likeness.retrieval.significance import Interval, wilson

Kind = Literal["exact", "flat", "ivf", "hnsw"]

_ENTRIES_AT_ONCE = 2**22  # of gathered candidates, in float64
_BYTES_BESIDE = 2 + 8 + 8 + 8 + 8 + 1  # of a row that is kept, beside two an entry: lengths, ids, order, place


class Recall(NamedTuple):
    """How many of the ``k`` nearest an engine finds; one as near as the last of them counts as it.

    Attributes:
        interval: Wilson's for as many trials as queries. The neighbours of one query are not independent, so it is
            rather too wide than too narrow.
        sample: Positions of the rows that were asked, before the engine held them.
    """

    k: int
    interval: Interval
    sample: Int64[Tensor, "s"]


class Facts(NamedTuple):
    """What an engine says of itself.

    Attributes:
        exact: Whether its neighbours are always those of ``retrieval.neighbours``.
        seconds: Of making it, tuned.
        bytes: What it holds beside the codes.
        settings: What it was made with, and searches with.
        recall: None for an exact one.
    """

    name: str
    exact: bool
    rows: int
    seconds: float
    bytes: int
    settings: dict[str, int | float]
    recall: Recall | None = None


@runtime_checkable
class Engine(Protocol):
    """Answers searches over codes [n, d] with ids [n] that were given when it was made."""

    facts: Facts

    def search(self, queries: Float[Tensor, "q d"], k: int, allowed: Bool[Tensor, "n"] | None = None) -> Neighbours:
        """The nearest of the ``allowed`` rows by cosine similarity, ties by ascending id, as positions among all rows.

        Gives min(k, allowed rows) columns, none of them empty.

        Raises:
            LikenessError: RETRIEVAL for ``k`` below one and for queries of another width, zero or not finite.
        """


def build(kind: Kind, codes: Float[Tensor, "n d"], ids: Int[Tensor, "n"]) -> Engine:
    """An engine on this machine, with settings by its own rules.

    Raises:
        LikenessError: CONFIG-EXTRA without faiss, RETRIEVAL for codes and ids that ``neighbours`` refuses.
    """
    if kind == "exact":
        return Exact(codes, ids)
    from likeness.retrieval.faiss_engine import Faiss

    return Faiss(codes, ids, kind)


class Exact:
    """The whole gallery, made ready once: the engine that the others are measured by."""

    def __init__(self, codes: Float[Tensor, "n d"], ids: Int[Tensor, "n"]) -> None:
        started = time.perf_counter()
        self.gallery = Gallery(codes, ids)
        kept = len(codes) * (2 * codes.shape[1] + _BYTES_BESIDE)
        self.facts = Facts("exact", True, len(codes), time.perf_counter() - started, kept, {})

    def search(self, queries: Float[Tensor, "q d"], k: int, allowed: Bool[Tensor, "n"] | None = None) -> Neighbours:
        columns = how_many(k, len(self.gallery.rows), allowed)
        if not columns:
            return nothing(comparable(queries, self.gallery.rows))
        return self.gallery.neighbours(queries, columns, allowed=allowed)


def how_many(k: int, rows: int, allowed: Bool[Tensor, "n"] | None) -> int:
    """How many neighbours there are to give.

    Raises:
        LikenessError: RETRIEVAL for ``k`` below one and for a filter of another length.
    """
    if k < 1:
        raise refusal(f"k={k}, and k must be 1 or more.", "Ask for at least one neighbour.")
    if allowed is None:
        return min(k, rows)
    if allowed.shape != (rows,):
        raise refusal(f"allowed is {tuple(allowed.shape)} for {rows} rows.", "Say of every row whether it is allowed.")
    return min(k, int(allowed.sum()))


def nothing(queries: Rows, k: int = 0) -> Neighbours:
    """The answer where there is no query or no row."""
    empty = torch.empty(len(queries), k)
    return Neighbours(empty, empty.long())


def comparable(queries: Float[Tensor, "q d"], rows: Rows) -> Rows:
    """Queries that are no rows of the gallery, ready to be compared with it.

    Raises:
        LikenessError: RETRIEVAL when they are of another width, zero or not finite.
    """
    refuse_other_width(queries, rows)
    asked = comparable_rows(queries, torch.arange(len(queries)))
    refuse_zero(asked, "query")
    return asked


def slack(width: int) -> float:
    """How far a cosine that was multiplied in float32 from unit rows, in any order, can lie from the settled one.

    u = 2⁻²⁴ for each entry that was rounded, and u for each product and sum (Higham 2002, 3.1); tripled for an engine
    that brings the rows to unit length once more.
    """
    return (3 * width + 32) * 2.0**-24


def ranked(
    queries: Rows, gallery: Rows, place: Int64[Tensor, "n"], candidates: Int64[Tensor, "q c"], k: int
) -> Int64[Tensor, "q k"]:
    """Keys of the ``k`` nearest of each query's candidates by the rule; a negative candidate is none.

    Where there are too few, the key of nothing.
    """
    found = no_keys(len(queries), k, candidates.device)
    size = max(1, _ENTRIES_AT_ONCE // (max(1, candidates.shape[1]) * gallery.codes.shape[1]))
    for block in blocks(len(queries), size):
        row_qc = candidates[block]
        unit_qcd = gallery.unit(row_qc.clamp(min=0).flatten()).view(*row_qc.shape, gallery.codes.shape[1])
        cosine_qc = settled(torch.einsum("qd,qcd->qc", queries.unit(block), unit_qcd))
        key_qc = torch.where(row_qc < 0, found[:1, :1], pair_keys(cosine_qc, place[row_qc]))
        found[block] = torch.cat([found[block], key_qc], 1).topk(k).values
    return found


def as_neighbours(keys: Int64[Tensor, "q k"], order: Int64[Tensor, "n"]) -> Neighbours:
    """Keys of real rows as similarities and positions; ``order`` gives the position of each place."""
    similarities, place_qk = read_keys(keys)
    return Neighbours(similarities, order[place_qk])


def sampled(rows: int, size: int, seed: int) -> Int64[Tensor, "s"]:
    """Ascending positions of at most ``size`` rows, drawn without replacement."""
    drawn = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:size]
    return drawn.sort().values


def recall_of(hits: Bool[Tensor, "s k"], sample: Int64[Tensor, "s"]) -> Recall:
    """Of queries each of whose columns says whether a neighbour was found that is as near as the last true one."""
    n, value = len(hits), int(hits.sum()) / hits.numel()
    return Recall(hits.shape[1], wilson(round(value * n), n)._replace(value=value), sample)


def need(package: str, extra: str) -> None:
    """Raises CONFIG-EXTRA when ``package``, which an engine is made with, is not installed."""
    if find_spec(package) is None:
        raise LikenessError(
            "CONFIG-EXTRA",
            f"The engine {extra} was asked for, and {package} is not installed.",
            where="--engine",
            fix=f'pip install "likeness[{extra}]", or take --engine exact.',
        )
