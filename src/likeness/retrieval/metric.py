"""How good a set of codes is at finding pictures of the same kind.

``score`` is the arithmetic; ``SimilarityRetrieval`` only remembers rows, on one process or many.

Candidates of a query are the gallery without itself and, on request, without its group. Positives are the candidates
with its label. Both follow from the data alone, never from the codes: two heads are compared on the same queries.

Axes: q queries, g gallery rows, k neighbours kept, d width of a code, n rows, c counted queries.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from likeness.errors import listed
from likeness.retrieval.facts import Facts, once
from likeness.retrieval.ranks import First, Labelled, first_places, later_ranks
from likeness.retrieval.ring import ALONE, Ring, known, ring_of, rivals_above
from likeness.retrieval.rows import comparable, count_candidates, refusal, refuse_too_few
from likeness.retrieval.vote import Weights, vote

_PUBLISHED_RANKS = slice(1, 6)


@dataclass(frozen=True, eq=False)
class Scores:
    """What became of each query, in ascending order of sample id, on the CPU.

    A query without a positive is *skipped*: it stands in the arrays and is left out of every mean. The others are
    *counted*.

    Attributes:
        ks: The k of ``hit@k`` and ``precision@k``, as asked.
        vote_k: Number of neighbours that vote.
        sample_ids, labels, groups: Of the queries; group -1 is unknown.
        rank: Of the first positive, from 1; 0 where none is retrieved: the query's code is zero, or every positive's.
        positives, candidates: How many there are, zero codes included.
        precision: Share of positives in the first k, a column for each of ``ks``.
        average_precision_at_r: MAP@R's summand, R being ``positives``; None when it was not asked for.
        vote: Label that the first ``vote_k`` neighbours vote for, -1 without any.
        confidence: The share of their weight that it has (see ``retrieval.vote``).
        published_top5: Whether a positive is among the neighbours ranked 2 to 6, as far as there are so many.
        neighbour_ids: The first max(ks, vote_k, 6) neighbours (at most the gallery's size); -1 where there are fewer.
        similarities: Their cosine; -inf where there are fewer.
        zero_ids: Sample ids of zero codes among queries and gallery.
    """

    ks: tuple[int, ...]
    vote_k: int
    sample_ids: Int64[Tensor, "q"]
    labels: Int64[Tensor, "q"]
    groups: Int64[Tensor, "q"]
    rank: Int64[Tensor, "q"]
    positives: Int64[Tensor, "q"]
    candidates: Int64[Tensor, "q"]
    precision: Float64[Tensor, "q ks"]
    average_precision_at_r: Float64[Tensor, "q"] | None
    vote: Int64[Tensor, "q"]
    confidence: Float64[Tensor, "q"]
    published_top5: Bool[Tensor, "q"]
    neighbour_ids: Int64[Tensor, "q k"]
    similarities: Float32[Tensor, "q k"]
    zero_ids: tuple[int, ...]

    @property
    def skipped(self) -> Bool[Tensor, "q"]:
        return self.positives == 0

    @property
    def n(self) -> int:
        """Number of counted queries."""
        return int((~self.skipped).sum())

    @property
    def n_skipped(self) -> int:
        return int(self.skipped.sum())

    @property
    def counted_ids(self) -> Int64[Tensor, "c"]:
        return self.sample_ids[~self.skipped]

    @property
    def counted_labels(self) -> Int64[Tensor, "c"]:
        return self.labels[~self.skipped]

    @property
    def counted_groups(self) -> Int64[Tensor, "c"]:
        return self.groups[~self.skipped]

    @property
    def reciprocal_rank(self) -> Float64[Tensor, "q"]:
        return torch.where(self.rank > 0, 1 / self.rank.double(), 0.0)

    def hit(self, k: int) -> Float64[Tensor, "c"]:
        """1.0 where one of the ``k`` nearest shares the query's label, else 0.0; any ``k``."""
        return self._hit(k)[~self.skipped]

    def per_query(self, name: str) -> Float64[Tensor, "c"]:
        """What ``values()[name]`` is the mean of, in the order of ``counted_ids``."""
        measures = self._measures()
        if name not in measures:
            raise refusal(f"there is no measure {name!r}.", f"Choose one of {', '.join(measures)}.")
        return measures[name][~self.skipped]

    def values(self) -> dict[str, float]:
        """The mean of each measure over the counted queries; NaN when none is counted."""
        return {name: float(value_q[~self.skipped].mean()) for name, value_q in self._measures().items()}

    def per_class(self, name: str) -> dict[int, float]:
        """The mean of one measure over the counted queries of each label, labels ascending."""
        value_c, label_c = self.per_query(name), self.counted_labels
        return {int(label): float(value_c[label_c == label].mean()) for label in label_c.unique()}

    def chance(self, k: int) -> float:
        """Mean over the counted queries of the probability that a random order has a positive among its first ``k``.

        With p positives among c candidates that is 1 - C(c-p, k) / C(c, k), as a product of k factors.
        """
        candidates_c, positives_c = (count_q[~self.skipped].double() for count_q in (self.candidates, self.positives))
        missed_c = torch.ones_like(candidates_c)
        for drawn in range(k):
            left_c = candidates_c - drawn
            missed_c *= (left_c - positives_c).clamp(min=0) / left_c.clamp(min=1)
        return float((1 - missed_c).mean())

    def _hit(self, k: int) -> Float64[Tensor, "q"]:
        return ((self.rank > 0) & (self.rank <= k)).double()

    def _measures(self) -> dict[str, Float64[Tensor, "q"]]:
        measures = {f"hit@{k}": self._hit(k) for k in self.ks}
        measures |= {f"precision@{k}": self.precision[:, column] for column, k in enumerate(self.ks)}
        if self.average_precision_at_r is not None:
            measures["map@r"] = self.average_precision_at_r
        measures["mrr"] = self.reciprocal_rank
        measures[f"vote@{self.vote_k}"] = (self.vote == self.labels).double()
        return measures | {"published_top5": self.published_top5.double()}


@dataclass(frozen=True)
class _Options:
    ks: tuple[int, ...]
    exclude_group: bool
    ties: Literal["by_id", "pessimistic"]
    vote_k: int
    vote_weights: Weights
    map_at_r: bool
    tile_bytes: int | None
    only_hits: bool = False

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise refusal(f"ks={list(self.ks)}: needed are different numbers from 1 up.", "For example ks=[1,5].")
        if self.vote_k < 1:
            raise refusal(f"vote_k={self.vote_k}: at least one neighbour votes.", "For example vote_k=5.")
        if self.ties not in ("by_id", "pessimistic"):
            raise refusal(f"ties={self.ties!r} is unknown.", "Choose by_id or pessimistic.")

    @property
    def ties_are_above(self) -> bool:
        return self.ties == "pessimistic"

    @property
    def shown(self) -> int:
        return max(*self.ks, self.vote_k, _PUBLISHED_RANKS.stop)


def score(
    codes: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    sample_ids: Int[Tensor, "n"],
    *,
    group_ids: Int[Tensor, "n"] | None = None,
    is_query: Bool[Tensor, "n"] | None = None,
    is_gallery: Bool[Tensor, "n"] | None = None,
    ks: Sequence[int] = (1, 5),
    exclude_group: bool = False,
    ties: Literal["by_id", "pessimistic"] = "by_id",
    vote_k: int = 5,
    vote_weights: Weights = "uniform",
    map_at_r: bool = True,
    tile_bytes: int | None = None,
) -> Scores:
    """Rank the gallery for every query by cosine similarity, and say how often its label is found.

    Similarities and ties are those of ``retrieval.neighbours``. MAP@R is Musgrave et al. 2020, "A Metric Learning
    Reality Check"; for it as many neighbours are searched as the largest class has pictures. Memory: at most the codes
    in float64, and a tile.

    Args:
        labels: A row with a negative label is neither query nor gallery.
        sample_ids: Of rows with the same id the first is kept.
        group_ids: For instance the home; negative where unknown.
        is_query, is_gallery: The roles; both default to every row with a label.
        exclude_group: Whether rows of the query's own group are no candidates.
        ties: ``by_id``, or ``pessimistic``: a tied wrong label comes before a tied right one.
        vote_k, vote_weights: How many neighbours vote, and with which weights (see ``retrieval.vote``).

    Warns:
        UserWarning: When codes are zero (names the ids): such a query is a miss in every measure, such a gallery row is
            never retrieved. When no query is counted: the means are NaN.

    Raises:
        LikenessError: RETRIEVAL when codes are not finite (names the ids), when a k of ``ks`` exceeds the candidates of
            a counted query, when rows with one id differ in label, group or role, and when an option is out of range.
    """
    options = _Options(tuple(ks), exclude_group, ties, vote_k, vote_weights, map_at_r, tile_bytes)
    return _score(codes, _facts(codes, labels, sample_ids, group_ids, is_query, is_gallery, options), options)


def _facts(
    codes: Tensor,
    labels: Tensor,
    ids: Tensor,
    groups: Tensor | None,
    is_query: Tensor | None,
    is_gallery: Tensor | None,
    options: _Options,
) -> Facts:
    if options.exclude_group and groups is None:
        raise refusal("exclude_group is on, but no group_ids are given.", "Pass group_ids, or turn exclude_group off.")
    lengths = [len(column) for column in (codes, labels, ids, groups, is_query, is_gallery) if column is not None]
    if len(set(lengths)) > 1:
        raise refusal(f"codes, labels, ids and the rest have {lengths} rows.", "Pass one entry a row in each.")
    groups = torch.full_like(labels, -1) if groups is None else groups
    labelled = labels >= 0
    roles = (labelled if role is None else role & labelled for role in (is_query, is_gallery))
    return Facts(*(column.to(codes.device, torch.int64) for column in (ids, labels, groups.clamp(min=-1), *roles)))


@torch.no_grad()
def _score(codes: Float[Tensor, "n d"], facts: Facts, options: _Options, ring: Ring = ALONE) -> Scores:
    """Of rows that all processes of the ring have; they share out the queries."""
    first = once(facts)
    codes, facts = codes[first], facts.take(first)
    rows = comparable(codes, facts.ids, facts.groups if options.exclude_group else None)
    labelled, query_n, gallery_n = Labelled(rows, facts.labels), facts.is_query.bool(), facts.is_gallery.bool()
    zero_ids = rows.ids[rows.is_zero & (query_n | gallery_n)].tolist()
    queries, gallery = labelled.where(query_n), labelled.where(gallery_n)
    per_query = ring.shared_out(len(queries.rows), lambda part: _rank(queries.take(part), gallery, options))
    scores = Scores(
        ks=options.ks,
        vote_k=options.vote_k,
        sample_ids=facts.ids[query_n].cpu(),
        labels=facts.labels[query_n].cpu(),
        groups=facts.groups[query_n].cpu(),
        zero_ids=tuple(zero_ids),
        **per_query,
    )
    _warn(zero_ids, scores.n, len(scores.sample_ids), len(codes))
    return scores


@torch.no_grad()
def _hits(codes: Float[Tensor, "n d"], facts: Facts, options: _Options, ring: Ring) -> dict[str, float]:
    """The ``hit@k`` of ``_score`` and its ``n`` and ``skipped``, at a fraction of the work, of all processes' rows."""
    every = known(ring, codes, facts, options.exclude_group)
    query_n, gallery_n, k = every.facts.is_query.bool(), every.facts.is_gallery.bool(), max(options.ks)
    labelled = Labelled(every.without_codes(), every.facts.labels)
    counted_q = _counts(labelled.where(query_n), labelled.where(gallery_n), k)[0] > 0
    above_n = rivals_above(every, k, ties_are_above=options.ties_are_above, tile_bytes=options.tile_bytes)
    above_c, n = above_n[query_n][counted_q], int(counted_q.sum())
    zero_ids = every.facts.ids[every.is_zero & (query_n | gallery_n)].tolist()
    _warn(zero_ids, n, len(counted_q), len(query_n))
    hits = {f"hit@{k}": float((above_c < k).double().mean()) for k in options.ks}
    return {**hits, "n": n, "skipped": len(counted_q) - n}


def _counts(queries: Labelled, gallery: Labelled, k: int) -> tuple[Int64[Tensor, "q"], Int64[Tensor, "q"]]:
    """Positives and candidates of each query; refused where a counted one has fewer than ``k``."""
    positives_q = count_candidates(queries.rows, gallery.rows, queries.labels, gallery.labels)
    candidates_q, counted_q = count_candidates(queries.rows, gallery.rows), positives_q > 0
    refuse_too_few(k, candidates_q[counted_q], queries.rows.ids[counted_q])
    return positives_q, candidates_q


def _rank(queries: Labelled, gallery: Labelled, options: _Options) -> dict[str, Any]:
    positives_q, candidates_q = _counts(queries, gallery, max(options.ks))
    r_max = int(gallery.labels.unique(return_counts=True)[1].amax()) if len(gallery.labels) else 0
    depth = min(len(gallery.labels), max(options.shown, r_max * options.map_at_r))
    asked_q, searched = ~queries.rows.is_zero, gallery.where(~gallery.rows.is_zero)
    asked, at_q = queries.where(asked_q), asked_q.nonzero().squeeze(1)
    found = _nothing(len(asked_q), min(depth, options.shown), options, at_q.device)
    for block, first in first_places(asked, searched, depth, options.ties_are_above, options.tile_bytes):
        at_b = at_q[block]
        for name, value in _measures(first, asked.labels[block], positives_q[at_b], searched, options).items():
            found[name][at_b] = value
    late_q = asked_q & (found["rank"] == 0)
    if late_q.any():
        found["rank"][late_q] = later_ranks(queries.where(late_q), searched, options.ties_are_above, options.tile_bytes)
    found = {"positives": positives_q, "candidates": candidates_q} | found
    merged = {name: value.cpu() for name, value in found.items()}
    return merged if options.map_at_r else {**merged, "average_precision_at_r": None}


def _nothing(queries: int, shown: int, options: _Options, device: torch.device) -> dict[str, Tensor]:
    """What is known of queries that find nothing: those with a zero code."""
    zero_q = torch.zeros(queries, dtype=torch.int64, device=device)
    return {
        "rank": zero_q,
        "precision": zero_q.double()[:, None].repeat(1, len(options.ks)),
        "average_precision_at_r": zero_q.double(),
        "published_top5": zero_q.bool(),
        "vote": zero_q - 1,
        "confidence": zero_q.double(),
        "neighbour_ids": (zero_q - 1)[:, None].repeat(1, shown),
        "similarities": torch.full((queries, shown), -torch.inf, device=device),
    }


def _measures(
    first: First, label_q: Int64[Tensor, "q"], positives_q: Int64[Tensor, "q"], gallery: Labelled, options: _Options
) -> dict[str, Tensor]:
    """What the first places say; the rank is 0 where no positive is among them."""
    label_qr = gallery.labels[first.rows].masked_fill_(~first.exist, -1)
    relevant_qr = label_qr == label_q[:, None]
    similarity_qk = first.similarities[:, : options.shown]
    ids_qk = gallery.rows.ids[first.rows[:, : options.shown]]
    votes = vote(label_qr[:, : options.vote_k], similarity_qk[:, : options.vote_k], options.vote_weights)
    found = {
        "rank": torch.where(relevant_qr.any(dim=1), relevant_qr.byte().argmax(dim=1) + 1, 0),
        "precision": torch.stack([relevant_qr[:, :k].sum(dim=1).double() / k for k in options.ks], dim=1),
        "published_top5": relevant_qr[:, _PUBLISHED_RANKS].any(dim=1),
        "vote": votes.labels,
        "confidence": votes.confidence,
        "neighbour_ids": ids_qk.masked_fill_(~first.exist[:, : options.shown], -1),
        "similarities": similarity_qk,
    }
    if options.map_at_r:
        found["average_precision_at_r"] = _average_precision_at_r(relevant_qr, positives_q)
    return found


def _average_precision_at_r(relevant_qr: Bool[Tensor, "q r"], positives_q: Int64[Tensor, "q"]) -> Float64[Tensor, "q"]:
    place_r = torch.arange(1, relevant_qr.shape[1] + 1, device=relevant_qr.device)
    counts_qr = relevant_qr & (place_r <= positives_q[:, None])
    return (counts_qr.cumsum(dim=1).double() / place_r * counts_qr).sum(dim=1) / positives_q.clamp(min=1)


def _warn(zero_ids: list[int], n: int, queries: int, rows: int) -> None:
    if zero_ids:
        warnings.warn(
            f"{len(zero_ids)} of {rows} codes are zero: as queries they miss, in the gallery they are never "
            f"retrieved. Sample ids:\n{listed(zero_ids)}",
            stacklevel=2,
        )
    if not n:
        warnings.warn(
            f"none of {queries} queries has another picture of its label in the gallery: means are NaN.",
            stacklevel=2,
        )


class SimilarityRetrieval(Metric):
    """``score`` over rows that come in batches, and from several processes.

    The result is that of a single process: each sample id counts once, however often a sampler repeats it. A process
    may have no rows at all. Options are those of ``score``; ``process_group`` defaults to all. The codes are gathered,
    and each process ranks the gallery for a share of the queries.
    With ``only_hits`` the values are ``hit@k``, ``n`` and ``skipped`` alone, the same numbers for far less work: what
    training watches. No process has all codes then: they go round (see ``retrieval.ring`` for work and memory).

    >>> metric = SimilarityRetrieval(ks=(1,), vote_k=1)
    >>> codes = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]])
    >>> metric.update(codes, labels=torch.tensor([0, 0, 1]), sample_ids=torch.arange(3))
    >>> metric.compute()["hit@1"]
    tensor(1., dtype=torch.float64)
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    codes: list[Tensor] | Tensor
    facts: list[Tensor] | Tensor

    def __init__(
        self,
        ks: Sequence[int] = (1, 5),
        exclude_group: bool = False,
        ties: Literal["by_id", "pessimistic"] = "by_id",
        vote_k: int = 5,
        vote_weights: Weights = "uniform",
        map_at_r: bool = True,
        tile_bytes: int | None = None,
        only_hits: bool = False,
        process_group: Any = None,
    ) -> None:
        super().__init__(process_group=process_group)
        self.options = _Options(tuple(ks), exclude_group, ties, vote_k, vote_weights, map_at_r, tile_bytes, only_hits)
        self.add_state("codes", [], dist_reduce_fx="cat")
        self.add_state("facts", [], dist_reduce_fx="cat")
        self._scores: Scores | None = None

    def update(
        self,
        codes: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        sample_ids: Int[Tensor, "b"],
        group_ids: Int[Tensor, "b"] | None = None,
        is_query: Bool[Tensor, "b"] | None = None,
        is_gallery: Bool[Tensor, "b"] | None = None,
    ) -> None:
        """Remember a batch, on the metric's device; codes below float32 are widened."""
        facts = _facts(codes, labels, sample_ids, group_ids, is_query, is_gallery, self.options)
        wide = torch.promote_types(codes.dtype, torch.float32)
        self.codes.append(codes.detach().to(self.device, wide))  # type: ignore[union-attr]
        self.facts.append(facts.table().to(self.device))  # type: ignore[union-attr]

    def compute(self) -> dict[str, Tensor]:
        """``Scores.values()``, ``chance@k``, ``n`` and ``skipped``, float64 scalars. All processes call it together."""
        codes, facts = self._rows()
        ring = ring_of(self.process_group) if self._is_synced else ALONE
        values = self._values(codes, Facts(*facts.T), ring)
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in values.items()}

    def _values(self, codes: Float[Tensor, "n d"], facts: Facts, ring: Ring) -> dict[str, float]:
        if self.options.only_hits:
            return _hits(codes, facts, self.options, ring)
        self._scores = scores = _score(codes, facts, self.options, ring)
        chances = {f"chance@{k}": scores.chance(k) for k in scores.ks}
        return {**scores.values(), **chances, "n": scores.n, "skipped": scores.n_skipped}

    def scores(self) -> Scores:
        """What ``compute`` found, query by query. All processes call it together, unless ``compute`` was called.

        Raises:
            LikenessError: RETRIEVAL with ``only_hits``.
        """
        if self.options.only_hits:
            raise refusal("only hits are computed, not scores.", "Make the metric without only_hits.")
        self.compute()
        assert self._scores is not None
        return self._scores

    def reset(self) -> None:
        super().reset()
        self._scores = None

    def _rows(self) -> tuple[Float[Tensor, "n d"], Int64[Tensor, "n f"]]:
        if isinstance(self.codes, list) and not self.codes:
            none = torch.zeros(0, len(Facts._fields), device=self.device)
            return none, none.long()
        return dim_zero_cat(self.codes), dim_zero_cat(self.facts)

    def _sync_dist(self, dist_sync_fn: Callable = gather_all_tensors, process_group: Any = None) -> None:
        """Gather the rows that scores are of, alike in width and type; for hits they stay where they are."""
        if not self.options.only_hits:
            codes, facts = self._rows()
            self.codes, self.facts = [ring_of(process_group or self.process_group).alike(codes)], [facts]
            super()._sync_dist(dist_sync_fn, process_group)
