"""Homes find homes: sets of pictures, compared as sets.

What two homes are to each other is pooled from the cosines of their pictures by one of five rules. The cosines are
multiplied in float64, pooled in float64 and rounded as those of single pictures are (``retrieval.neighbours``); ties go
by ascending home. All rules are symmetric: which home asks does not matter.

``assignment`` alone is dear, so it is computed only where a bound leaves it open whether a home is among the nearest:
the answer is that of computing it for every home.

Axes: m pictures of the queries, n of the gallery, q query homes, h gallery homes, d width of a code, k homes found.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from likeness.retrieval.neighbours import rank_keys
from likeness.retrieval.rows import BLOCK, Rows, blocks, comparable, refusal, refuse_zero, settled

RULES = ("mean", "best_pair", "by_kind", "assignment", "centred_mean")
NEEDS_KINDS = ("by_kind", "centred_mean")
_POINTS_NOWHERE = 2.0**-20  # a sum of unit codes as short as this gets its direction from rounding
_SLACK = 1e-9  # more than the order of summing leaves in a bound
_FIRST_SETTLED = 64


@dataclass(frozen=True, eq=False)
class Homes:
    """Pictures in the order of their homes, within a home by kind.

    Attributes:
        rows: Their codes; an id is the position among the rows that were given.
        kinds: -1 where unknown.
        ids: The homes, ascending.
        sizes: How many pictures each has.
        lengths: Of the sum of each home's unit codes.
    """

    rows: Rows
    kinds: Int64[Tensor, "n"]
    ids: Int64[Tensor, "h"]
    sizes: Int64[Tensor, "h"]
    lengths: Float64[Tensor, "h"]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def ends(self) -> Int64[Tensor, "h"]:
        return self.sizes.cumsum(0)

    @cached_property
    def runs_of_kinds(self) -> tuple[Int64[Tensor, "runs"], Int64[Tensor, "h"]]:
        """How many pictures each kind of each home has, and how many kinds each home has; unknown is a kind here."""
        home = torch.repeat_interleave(self.sizes)
        runs, counts = torch.unique_consecutive(torch.stack([home, self.kinds]), dim=1, return_counts=True)
        return counts, torch.bincount(runs[0], minlength=len(self))

    @cached_property
    def parts(self) -> list[slice]:
        """Whole homes, with about ``BLOCK`` pictures a part."""
        counts = torch.unique_consecutive((self.ends - 1) // BLOCK, return_counts=True)[1].tolist()
        ends = np.cumsum(counts).tolist()
        return [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]

    def pictures(self, homes: slice) -> slice:
        """Where the pictures of consecutive homes stand."""
        start = int(self.ends[homes.start - 1]) if homes.start else 0
        return slice(start, int(self.ends[homes.stop - 1]) if homes.stop else 0)

    def take(self, homes: slice) -> "Homes":
        at = self.pictures(homes)
        return Homes(self.rows.take(at), self.kinds[at], self.ids[homes], self.sizes[homes], self.lengths[homes])

    def pictures_of(self, home: int) -> slice:
        return self.pictures(slice(home, home + 1))


class HomeNeighbours(NamedTuple):
    """The nearest homes, nearest first.

    Attributes:
        similarities: Pooled cosines in [-1, 1].
        homes: As numbered in the gallery.
        rows: For each picture of the query, in the order given, the gallery's row that it meets in that home: its
            nearest there; by ``by_kind`` the nearest of its kind, by ``assignment`` its partner; -1 where none is.
        cosines: Of these pairs; NaN where there is none.
    """

    similarities: Float32[Tensor, "k"]
    homes: Int64[Tensor, "k"]
    rows: Int64[Tensor, "k m"]
    cosines: Float32[Tensor, "k m"]


@torch.no_grad()
def rank_homes(
    query_codes: Float[Tensor, "m d"],
    gallery_codes: Float[Tensor, "n d"],
    gallery_homes: Int[Tensor, "n"],
    k: int,
    *,
    rule: str = "mean",
    query_kinds: Int[Tensor, "m"] | None = None,
    gallery_kinds: Int[Tensor, "n"] | None = None,
    exclude: Int[Tensor, "e"] | None = None,
) -> HomeNeighbours:
    """The ``k`` homes of the gallery that are most like one home, ties by ascending home.

    They are fewer where the rule can compare the home with fewer.

    Whoever asks more than once keeps what ``homes_of`` makes of the gallery, and calls ``nearest_homes``.

    Args:
        gallery_homes: A picture with a negative home is left out.
        rule: One of ``RULES``. For ``centred_mean`` each kind's mean is taken over the gallery.
        query_kinds, gallery_kinds: Labels, given or voted; negative where unknown.
        exclude: Homes that are not to be found, for instance the query's own.

    >>> rooms = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> found = rank_homes(rooms[:1], rooms, torch.tensor([7, 7, 8]), 2, rule="best_pair")
    >>> found.homes.tolist(), found.rows.tolist()
    ([7, 8], [[0], [2]])

    Raises:
        LikenessError: RETRIEVAL for what ``homes_of`` and ``nearest_homes`` refuse.
    """
    means = None
    if rule == "centred_mean" and gallery_kinds is not None:
        means = kind_means(gallery_codes, gallery_kinds)
    query = homes_of(query_codes, torch.zeros(len(query_codes), dtype=torch.int64), query_kinds, means)
    return nearest_homes(query, homes_of(gallery_codes, gallery_homes, gallery_kinds, means), k, rule, exclude)


def homes_of(
    codes: Float[Tensor, "n d"],
    homes: Int[Tensor, "n"],
    kinds: Int[Tensor, "n"] | None = None,
    means: Float64[Tensor, "kinds d"] | None = None,
) -> Homes:
    """Pictures made ready to be compared by home. Their codes are copied where they do not stand in order.

    Args:
        means: Of each kind, as ``kind_means`` gives them: taken from the unit codes, for ``centred_mean``. A picture
            of another kind then has nothing left, and says nothing.

    Raises:
        LikenessError: RETRIEVAL when lengths differ, and for codes that are zero or not finite (names the rows).
    """
    kinds = torch.full_like(homes, -1) if kinds is None else kinds
    if not len(codes) == len(homes) == len(kinds):
        told = f"{len(codes)} codes, {len(homes)} homes and {len(kinds)} kinds"
        raise refusal(f"{told} are given.", "Pass one home, and one kind or none, a code.")
    homes, kinds = (column.to(codes.device, torch.int64) for column in (homes, kinds))
    order = _by_home_and_kind(homes, kinds)
    in_order = torch.equal(order, torch.arange(len(codes), device=codes.device))
    rows = comparable(codes if in_order else codes[order], order)
    refuse_zero(rows, "home")
    if means is not None:
        rows = comparable(_centred(rows, kinds[order], means), order)
    ids, sizes = torch.unique_consecutive(homes[order], return_counts=True)
    made = Homes(rows, kinds[order], ids, sizes, torch.empty(len(ids), dtype=torch.float64, device=codes.device))
    for part in made.parts:
        sums = _pooled(rows.unit(made.pictures(part)), sizes[part], "sum")
        made.lengths[part] = torch.linalg.vector_norm(sums, dim=1)
    return made


def _by_home_and_kind(homes: Int64[Tensor, "n"], kinds: Int64[Tensor, "n"]) -> Int64[Tensor, "known"]:
    by_kind = kinds.argsort(stable=True)
    order = by_kind[homes[by_kind].argsort(stable=True)]
    return order[homes[order] >= 0]


def kind_means(codes: Float[Tensor, "n d"], kinds: Int[Tensor, "n"]) -> Float64[Tensor, "kinds d"]:
    """The mean unit code of each kind, NaN for a kind without pictures; the kind is the row."""
    rows = comparable(codes, torch.arange(len(codes)))
    kinds = kinds.to(codes.device, torch.int64)
    sums = torch.zeros(int(kinds.max()) + 1, codes.shape[1], dtype=torch.float64, device=codes.device)
    for block in blocks(len(codes), BLOCK):
        known = kinds[block] >= 0
        sums.index_add_(0, kinds[block][known], rows.unit(block)[known])
    return sums / torch.bincount(kinds[kinds >= 0], minlength=len(sums))[:, None]


def _centred(rows: Rows, kinds: Int64[Tensor, "n"], means: Float64[Tensor, "kinds d"]) -> Float[Tensor, "n d"]:
    """What is left of each unit code without the mean of its kind; nothing where no mean is known."""
    means = torch.cat([means.to(rows.codes.device), means.new_full((1, means.shape[1]), torch.nan)])
    centred = torch.empty_like(rows.codes)
    for block in blocks(len(rows), BLOCK):
        left = rows.unit(block) - means[torch.where(kinds[block] < len(means), kinds[block], -1)]
        is_something = torch.linalg.vector_norm(left, dim=1) >= _POINTS_NOWHERE  # and no NaN
        centred[block] = left.masked_fill_(~is_something[:, None], 0)
    return centred


def mean(cosine_nm: Float64[Tensor, "n m"], queries: Homes, gallery: Homes) -> Float64[Tensor, "q h"]:
    """The cosine of the sums of unit codes, which is that of their means: Σᵢⱼ xᵢ·yⱼ / (|Σxᵢ| |Σyⱼ|).

    A home whose codes cancel points nowhere, and is like none: -inf.
    """
    sum_qh = _pooled(_pooled(cosine_nm, gallery.sizes, "sum").T, queries.sizes, "sum")
    nowhere_qh = (queries.lengths < _POINTS_NOWHERE)[:, None] | (gallery.lengths < _POINTS_NOWHERE)
    return (sum_qh / queries.lengths[:, None] / gallery.lengths).masked_fill_(nowhere_qh, -torch.inf)


def best_pair(cosine_nm: Float64[Tensor, "n m"], queries: Homes, gallery: Homes) -> Float64[Tensor, "q h"]:
    """The greatest cosine of any two of their pictures: single linkage (Sneath 1957)."""
    return _pooled(_pooled(cosine_nm, gallery.sizes, "max").T, queries.sizes, "max")


def by_kind(cosine_nm: Float64[Tensor, "n m"], queries: Homes, gallery: Homes) -> Float64[Tensor, "q h"]:
    """For each kind of room that both homes have, the best pair of that kind; the mean over those kinds.

    Homes that share no kind cannot be compared: -inf. A picture of unknown kind is of no kind.
    """
    apart_nm = (gallery.kinds[:, None] != queries.kinds) | (queries.kinds < 0)
    best_mh = _pooled(cosine_nm.masked_fill(apart_nm, -torch.inf), gallery.sizes, "max").T
    counts, kinds_q = queries.runs_of_kinds
    best_rh = _pooled(best_mh, counts, "max")
    shared_rh = best_rh > -torch.inf
    sum_qh = _pooled(best_rh.masked_fill(~shared_rh, 0), kinds_q, "sum")
    return (sum_qh / _pooled(shared_rh.double(), kinds_q, "sum")).nan_to_num_(nan=-torch.inf)


def assignment(cosine_nm: Float64[Tensor, "n m"]) -> float:
    """The greatest mean cosine of min(n, m) pairs that share no picture (Kuhn 1955), of one home and one other."""
    return float(cosine_nm[_partners(cosine_nm)].mean())


def _at_most(cosine_nm: Float64[Tensor, "n m"], queries: Homes, gallery: Homes) -> Float64[Tensor, "q h"]:
    """No less than ``assignment``: each picture of the smaller home with its nearest, whoever else has it."""
    nearest_mh = _pooled(cosine_nm, gallery.sizes, "max").T
    nearest_nq = _pooled(cosine_nm.T, queries.sizes, "max").T
    of_query_qh = _pooled(nearest_mh, queries.sizes, "mean")
    of_gallery_qh = _pooled(nearest_nq, gallery.sizes, "mean").T
    return torch.where(queries.sizes[:, None] <= gallery.sizes, of_query_qh, of_gallery_qh) + _SLACK


def _partners(cosine_nm: Float64[Tensor, "n m"]) -> tuple[Int64[Tensor, "pairs"], Int64[Tensor, "pairs"]]:
    row_p, column_p = linear_sum_assignment(cosine_nm.cpu().numpy(), maximize=True)
    return torch.from_numpy(row_p), torch.from_numpy(column_p)


def _pooled(values_nm: Float64[Tensor, "n m"], sizes: Int64[Tensor, "h"], how: str) -> Float64[Tensor, "h m"]:
    """Consecutive rows, as many as the sizes say, as one."""
    return torch.segment_reduce(values_nm.contiguous(), how, lengths=sizes, axis=0, unsafe=True)


_POOLS: dict[str, Callable[[Tensor, Homes, Homes], Tensor]] = {
    "mean": mean,
    "best_pair": best_pair,
    "by_kind": by_kind,
    "assignment": _at_most,
    "centred_mean": mean,
}


def similarities(queries: Homes, gallery: Homes, rule: str) -> Float32[Tensor, "q h"]:
    """Every home to every other by a rule; -inf where two cannot be compared. By ``assignment`` it is a bound.

    For ``centred_mean`` both were made with ``means``.

    Raises:
        LikenessError: RETRIEVAL when the rule is unknown or a kind is needed and none is known, and when widths differ.
    """
    _refuse_misfit(queries, gallery, rule)
    asked = queries.rows.unit()
    parts = (gallery.take(part) for part in gallery.parts)
    with torch.autocast(asked.device.type, enabled=False):
        pooled = [_POOLS[rule](part.rows.unit() @ asked.T, queries, part) for part in parts]
    return settled(torch.cat(pooled, dim=1))


@torch.no_grad()
def nearest_homes(
    query: Homes, gallery: Homes, k: int, rule: str = "mean", exclude: Int[Tensor, "e"] | None = None
) -> HomeNeighbours:
    """``rank_homes`` with what ``homes_of`` made of the query, a single home, and of the gallery.

    Raises:
        LikenessError: RETRIEVAL as ``similarities``, and when ``k`` is below one.
    """
    if len(query) != 1:
        raise refusal(f"the query is {len(query)} homes.", "Ask with the pictures of one home at a time.")
    if k < 1:
        raise refusal(f"k={k}, and k must be 1 or more.", "Ask for at least one home.")
    score_h = similarities(query, gallery, rule)[0]
    if exclude is not None:
        score_h[torch.isin(gallery.ids, exclude.to(gallery.ids))] = -torch.inf
    k = min(k, int((score_h > -torch.inf).sum()))
    if rule == "assignment":
        score_h = _best_assigned(query, gallery, score_h, k)
    nearest_k = rank_keys(score_h[None])[0].topk(k).indices
    rows_km = nearest_k.new_empty(k, len(query.rows))
    cosines_km = score_h.new_empty(k, len(query.rows))
    for place, home in enumerate(nearest_k.tolist()):
        rows_km[place], cosines_km[place] = _meetings(query, gallery, home, rule)
    return HomeNeighbours(score_h[nearest_k], gallery.ids[nearest_k], rows_km, cosines_km)


def _best_assigned(query: Homes, gallery: Homes, bound_h: Float32[Tensor, "h"], k: int) -> Float32[Tensor, "h"]:
    """The assignment's score of the homes that may be among the ``k`` best, -inf of the others."""
    order_h, candidates = rank_keys(bound_h[None])[0].argsort(descending=True), int((bound_h > -torch.inf).sum())
    score_h, done, size = torch.full_like(bound_h, -torch.inf), 0, max(k, _FIRST_SETTLED)
    while done < candidates and (done < k or bound_h[order_h[done]] >= score_h.topk(k).values[-1]):
        at = order_h[done : min(done + size, candidates)]
        score_h[at] = assigned(query, gallery, at)
        done, size = done + len(at), 2 * size
    return score_h


def assigned(query: Homes, gallery: Homes, at: Int64[Tensor, "b"]) -> Float32[Tensor, "b"]:
    """The assignment's score of one home with the homes at these places of the gallery."""
    sizes = gallery.sizes[at]
    first_n = torch.repeat_interleave(gallery.ends[at] - sizes.cumsum(0), sizes)
    cosine_nm = gallery.rows.unit(first_n + torch.arange(len(first_n), device=first_n.device)) @ query.rows.unit().T
    scores = [assignment(of_home) for of_home in cosine_nm.split(sizes.tolist())]
    return settled(torch.tensor(scores, dtype=torch.float64, device=cosine_nm.device))


def _meetings(query: Homes, gallery: Homes, home: int, rule: str) -> tuple[Int64[Tensor, "m"], Float32[Tensor, "m"]]:
    """The gallery's row that each picture of the query meets in a home, in the order of the query as given."""
    pictures = gallery.pictures_of(home)
    cosine_nm = settled(gallery.rows.unit(pictures) @ query.rows.unit().T)
    if rule == "assignment":
        met = torch.zeros_like(cosine_nm, dtype=torch.bool)
        met[_partners(cosine_nm.double())] = True
        cosine_nm.masked_fill_(~met, -torch.inf)
    elif rule == "by_kind":
        apart_nm = (gallery.kinds[pictures, None] != query.kinds) | (query.kinds < 0)
        cosine_nm.masked_fill_(apart_nm, -torch.inf)
    cosine_m, nearest_m = cosine_nm.max(0)
    met_m, as_given = cosine_m > -torch.inf, query.rows.ids.argsort()
    row_m = torch.where(met_m, gallery.rows.ids[pictures][nearest_m], -1)
    return row_m[as_given], torch.where(met_m, cosine_m, torch.nan)[as_given]


def _refuse_misfit(queries: Homes, gallery: Homes, rule: str) -> None:
    if rule not in _POOLS:
        raise refusal(f"rule={rule!r} is unknown.", f"Choose one of {', '.join(RULES)}.")
    widths = [homes.rows.codes.shape[1] for homes in (queries, gallery)]
    if len(set(widths)) > 1:
        raise refusal(f"codes are {widths[0]} and {widths[1]} wide.", "Make both with the same head.")
    if not (len(queries) and len(gallery)):
        raise refusal("there are no homes to compare.", "Give pictures whose home is known.")
    if rule in NEEDS_KINDS and not all((homes.kinds >= 0).any() for homes in (queries, gallery)):
        raise refusal(f"{rule} needs the kinds of the pictures.", "Give labels, let neighbours vote, or choose mean.")
