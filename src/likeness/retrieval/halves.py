"""How well homes find homes: the two halves of a home's pictures find each other.

A *halving* sorts pictures into a query half and a gallery half of each home, so that no picture is in both. A home's
query half is compared with the gallery halves of all homes; right is its own other half, and nothing else. What
counts is the *rank* at which that comes: ``hit@k`` holds where it is k or less, MRR is the mean of 1/rank.

A home with one half alone asks nothing; as a gallery half it is one more to be confused with.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from likeness.images.splits import hashed
from likeness.retrieval.homes import Homes, assigned, homes_of, kind_means, similarities
from likeness.retrieval.neighbours import TILE_BYTES
from likeness.retrieval.rows import blocks, refusal
from likeness.retrieval.significance import holm, mean_interval, paired, wilson

MOST_HALVINGS = 20  # by kind: those of six kinds
_QUERIES_AT_ONCE = 64


class Halving(NamedTuple):
    """Which pictures ask and which can be found; one in neither is left out."""

    told: str
    is_query: Bool[np.ndarray, " n"]
    is_gallery: Bool[np.ndarray, " n"]


def random_halves(names: Sequence[str], homes: Int64[np.ndarray, " n"], seed: int) -> Halving:
    """Half of each home's pictures, rounded down, ask. A hash of the seed and the names decides which.

    >>> random_halves(["a", "b", "c", "d"], np.array([0, 0, 0, -1]), 0).is_query.tolist()
    [False, False, True, False]
    """
    housed = np.flatnonzero(homes >= 0)
    order = np.array(sorted(housed.tolist(), key=lambda i: (homes[i], hashed(seed, names[i]))), dtype=np.int64)
    _, first, sizes = np.unique(homes[order], return_index=True, return_counts=True)
    is_query = np.zeros(len(names), bool)
    is_query[order] = np.arange(len(order)) - np.repeat(first, sizes) < np.repeat(sizes // 2, sizes)
    return Halving(f"seed {seed}", is_query, ~is_query & (homes >= 0))


def kinds_apart(
    kinds: Int64[np.ndarray, " n"], homes: Int64[np.ndarray, " n"], names: Sequence[str], seed: int = 0
) -> list[Halving]:
    """Half of the kinds, rounded down, ask, and the others are found: so no half has a kind of the other's.

    Every choice of kinds once, an even sample of ``MOST_HALVINGS`` by the seed where there are more; none where fewer
    than two kinds are known.
    """
    present = np.unique(kinds[(kinds >= 0) & (homes >= 0)]).tolist()
    choices = list(combinations(present, len(present) // 2)) if len(present) > 1 else []
    if len(choices) > MOST_HALVINGS:
        drawn = np.random.default_rng(seed).choice(len(choices), MOST_HALVINGS, replace=False)
        choices = [choices[i] for i in sorted(drawn.tolist())]
    is_known = (kinds >= 0) & (homes >= 0)
    return [
        Halving(" + ".join(names[kind] for kind in asking), asks & is_known, ~asks & is_known)
        for asking in choices
        for asks in [np.isin(kinds, asking)]
    ]


class Ranks(NamedTuple):
    """At which rank each query half met its other half.

    Attributes:
        homes: Whose halves they are; several times where there are several halvings.
        ranks: From 1; 0 where the two cannot be compared, and are never found.
        candidates: Gallery halves that there were.
    """

    homes: Int64[np.ndarray, " q"]
    ranks: Int64[np.ndarray, " q"]
    candidates: Int64[np.ndarray, " q"]

    def values(self, measure: str) -> Float[np.ndarray, " q"]:
        """Of each query: ``mrr``, or for instance ``hit@5``."""
        found = self.ranks > 0
        if measure == "mrr":
            return np.where(found, 1 / np.maximum(self.ranks, 1), 0.0)
        return (found & (self.ranks <= int(measure.removeprefix("hit@")))).astype(float)

    def chance(self, measure: str) -> float:
        """What ranks drawn blindly come to."""
        if measure == "mrr":
            return float(np.mean([(1 / np.arange(1, count + 1)).mean() for count in self.candidates]))
        return float(np.mean(int(measure.removeprefix("hit@")) / self.candidates))


def rank_halves(
    codes: Float[Tensor, "n d"],
    homes: Int64[np.ndarray, " n"],
    kinds: Int64[np.ndarray, " n"],
    halvings: Sequence[Halving],
    rule: str,
) -> Ranks:
    """The ranks of every home's other half, over all halvings.

    Raises:
        LikenessError: RETRIEVAL as ``sides`` and ``similarities``.
    """
    parts = []
    for halving in halvings:
        queries, gallery = sides(codes, homes, kinds, halving, rule)
        ranks = own_ranks(queries, gallery, rule).cpu().numpy()
        parts.append(Ranks(queries.ids.cpu().numpy(), ranks, np.full(len(queries), len(gallery))))
    return Ranks(*map(np.concatenate, zip(*parts, strict=True)))


def sides(
    codes: Float[Tensor, "n d"],
    homes: Int64[np.ndarray, " n"],
    kinds: Int64[np.ndarray, " n"],
    halving: Halving,
    rule: str,
) -> tuple[Homes, Homes]:
    """The query halves of the homes that have both, and all gallery halves; an id is a row's number.

    For ``centred_mean`` the mean of each kind is taken over all rows, for one half may lack the kind.

    Raises:
        LikenessError: RETRIEVAL when no home has both halves, and as ``homes_of``.
    """
    asking = halving.is_query & np.isin(homes, homes[halving.is_gallery])
    if not asking.any():
        raise refusal("no home has pictures on both sides.", "Give homes of two or more pictures.", halving.told)
    means = kind_means(codes, torch.from_numpy(kinds)) if rule == "centred_mean" else None
    queries, gallery = (
        homes_of(codes, torch.from_numpy(np.where(mask, homes, -1)), torch.from_numpy(kinds), means)
        for mask in (asking, halving.is_gallery)
    )
    return queries, gallery


def own_ranks(queries: Homes, gallery: Homes, rule: str) -> Int64[Tensor, "q"]:
    """The rank of each query home among the gallery's, ties by ascending home; 0 where the two cannot be compared."""
    size = max(1, min(_QUERIES_AT_ONCE, TILE_BYTES // (16 * max(1, len(gallery)))))
    return torch.cat([_ranks(queries.take(block), gallery, rule) for block in blocks(len(queries), size)])


def _ranks(queries: Homes, gallery: Homes, rule: str) -> Int64[Tensor, "q"]:
    score_qh, own_q1 = similarities(queries, gallery, rule), torch.searchsorted(gallery.ids, queries.ids)[:, None]
    if rule == "assignment":
        _settle_above_own(score_qh, queries, gallery, own_q1)
    own_score_q1 = score_qh.gather(1, own_q1)
    is_before = torch.arange(len(gallery), device=own_q1.device) < own_q1
    above_qh = (score_qh > own_score_q1) | ((score_qh == own_score_q1) & is_before)
    return (above_qh.sum(1) + 1) * (own_score_q1[:, 0] > -torch.inf)


def _settle_above_own(score_qh: Tensor, queries: Homes, gallery: Homes, own_q1: Int64[Tensor, "q 1"]) -> None:
    """In place: the scores of each query's own home, and of all that their bounds leave above it."""
    for query, own in enumerate(own_q1[:, 0]):
        asked, bound_h = queries.take(slice(query, query + 1)), score_qh[query]
        least = assigned(asked, gallery, own[None])
        at = (bound_h >= least).nonzero()[:, 0]
        score_qh[query] = -torch.inf
        score_qh[query, at] = assigned(asked, gallery, at)


Found = Mapping[str, Mapping[str, Ranks]]
"""By method and rule; all of the same queries."""


def summarize(found: Found, ks: Sequence[int]) -> dict[str, Any]:
    """Every measure of every method by every rule, which rule wins, and what the head gains, as plain values.

    A rule by which no home can be compared with its other half is left out. The rule with the greatest MRR wins; its
    p values are adjusted for all pairs of rules (``p_holm``), for it was chosen on the same queries. Those of a head
    against another method are adjusted for the number of rules. What is resampled is homes.

    Raises:
        LikenessError: RETRIEVAL when a k is not below the number of gallery halves.
    """
    incomparable = [rule for rule, ranks in found["head"].items() if not ranks.ranks.any()]
    found = {
        method: {rule: ranks for rule, ranks in rules.items() if rule not in incomparable}
        for method, rules in found.items()
    }
    first = next(iter(found["head"].values()))
    if max(ks) >= (fewest := int(first.candidates.min())) or min(ks) < 1:
        told = f"k={', '.join(map(str, ks))}, and there are {fewest} homes to be found."
        raise refusal(told, "Ask for ks from 1 up, below the number of homes, or give more homes.")
    measures = [*(f"hit@{k}" for k in ks), "mrr"]
    summary: dict[str, Any] = {
        "homes": len(np.unique(first.homes)),
        "queries": len(first.homes),
        "candidates": [fewest, int(first.candidates.max())],
        "chance": {measure: first.chance(measure) for measure in measures},
        "incomparable": incomparable,
    }
    for method, rules in found.items():
        summary[method] = {rule: {name: _interval(ranks, name) for name in measures} for rule, ranks in rules.items()}
    summary["winner"] = {method: _winner(rules) for method, rules in found.items()}
    summary["paired"] = {f"head-{other}": dict(_gains(found, other)) for other in found if other != "head"}
    return summary


def _interval(ranks: Ranks, measure: str) -> dict[str, float]:
    """Wilson's for hits where each home asks once, else a bootstrap over homes."""
    values = ranks.values(measure)
    if measure != "mrr" and len(np.unique(ranks.homes)) == len(ranks.homes):
        return wilson(round(values.sum()), len(values))._asdict()
    return mean_interval(values, ranks.homes)._asdict()


def _winner(rules: Mapping[str, Ranks]) -> dict[str, Any]:
    best = max(rules, key=lambda rule: rules[rule].values("mrr").mean())
    pairs = list(combinations(sorted(rules, key=lambda rule: rule != best), 2))
    return {"rule": best, "over": {b: told for (a, b), told in _adjusted(pairs, rules).items() if a == best}}


def _gains(found: Found, other: str) -> Iterator[tuple[str, dict[str, float]]]:
    both = {(method, rule): found[method][rule] for method in ("head", other) for rule in found[method]}
    pairs = [(("head", rule), (other, rule)) for rule in found["head"] if rule in found[other]]
    for (_, rule), told in zip([a for a, _ in pairs], _adjusted(pairs, both).values(), strict=True):
        yield rule, told


def _adjusted(pairs: Sequence[tuple[Any, Any]], ranks: Mapping[Any, Ranks]) -> dict[tuple[Any, Any], dict[str, float]]:
    """The MRR of each pair's first less its second's, query by query, with p values for their number (Holm)."""
    found = [paired(ranks[a].values("mrr"), ranks[b].values("mrr"), ranks[a].homes) for a, b in pairs]
    adjusted = holm([each.p for each in found])
    return {pair: {**each._asdict(), "p_holm": float(p)} for pair, each, p in zip(pairs, found, adjusted, strict=True)}
