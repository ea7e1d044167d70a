"""A head beside its baselines: the same queries, the same gallery, every number with its interval."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from likeness.retrieval.metric import Scores
from likeness.retrieval.significance import Interval, Paired, mean_interval, paired, plain, seeds_interval, wilson

_ALL_AGREE = 1 - 1e-9
_CONFIDENCES = {
    "0 to 0.5": (-1, 0.5),
    "0.5 to 0.75": (0.5, 0.75),
    "0.75 to 1": (0.75, _ALL_AGREE),
    "1": (_ALL_AGREE, 1),
}
_PROPORTIONS = ("hit@", "vote@", "published_top5")


class Measured(NamedTuple):
    """One measure of one method: a value for each counted query."""

    values: Float[np.ndarray, " q"]
    homes: np.ndarray | None
    is_proportion: bool

    def interval(self) -> Interval:
        """Wilson's for a proportion, else a bootstrap over homes (queries where no home is known)."""
        if self.is_proportion:
            return wilson(round(self.values.sum()), len(self.values))
        return mean_interval(self.values, self.homes)


def compare(scores: Mapping[str, Scores], classes: Sequence[str], ks: Sequence[int]) -> dict[str, Any]:
    """Every measure of every method, and the head against each baseline query by query, as plain values.

    Args:
        scores: By method; ``head`` first. All of the same queries.
        classes: Names of the labels.
        ks: Of the hits that are shown by class and beside their chance level.
    """
    head = scores["head"]
    others = [name for name in scores if name != "head"]
    summary: dict[str, Any] = {"n": head.n, "skipped": head.n_skipped}
    summary["zero"] = {name: len(score.zero_ids) for name, score in scores.items()}
    if not head.n:
        return summary
    summary["chance"] = {f"hit@{k}": head.chance(k) for k in ks}
    for name, score in scores.items():
        summary[name] = {measure: plain(_measured(score, measure).interval()) for measure in score.values()}
    summary["per_class"] = {name: dict(_by_class(score, classes, ks)) for name, score in scores.items()}
    summary["votes"] = votes_by_class(head, classes)
    summary["votes_by_agreement"] = votes_by_agreement(head)
    summary["paired"] = {f"head-{other}": _paired(head, scores[other]) for other in others}
    return summary


def votes_by_class(score: Scores, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each class that has a counted query or a vote: what its queries were voted to be, as counts and shares.

    ``recall`` is the share of its ``n`` queries that were voted right, ``precision`` the share of the votes for it that
    were; both with Wilson's interval, None where there is no query or no vote. ``voted_as`` leaves out what is 0, and
    has under "" the queries that no neighbour voted for.
    """
    label_c, vote_c = score.counted_labels.numpy(), score.vote[~score.skipped].numpy()
    pairs, counts = np.unique(np.stack([label_c, vote_c]), axis=1, return_counts=True)
    named = [*classes, ""]  # -1 is the last
    rows: dict[str, dict[str, int]] = {named[label]: {} for label in np.unique(pairs) if label >= 0}
    for (label, vote), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        rows[named[label]][named[vote]] = count
    return {name: _of_votes(name, rows) for name in rows}


def _of_votes(name: str, rows: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    n, votes = sum(rows[name].values()), sum(row.get(name, 0) for row in rows.values())
    right = rows[name].get(name, 0)
    return {"n": n, "recall": _share(right, n), "precision": _share(right, votes), "voted_as": dict(rows[name])}


def votes_by_agreement(score: Scores) -> dict[str, dict[str, Any]]:
    """How many votes have a confidence above the one bound up to the other, and how many of them are right.

    That is what a confidence has been worth on these queries; of itself it is no probability.
    """
    right_c = (score.vote == score.labels)[~score.skipped].numpy()
    confidence_c = score.confidence[~score.skipped].numpy()
    found = {}
    for name, (above, up_to) in _CONFIDENCES.items():
        inside = (confidence_c > above) & (confidence_c <= up_to)
        n = int(inside.sum())
        found[name] = {"n": n, "right": _share(int(right_c[inside].sum()), n)}
    return found


def _share(count: int, of: int) -> dict[str, float | None] | None:
    return plain(wilson(count, of)) if of else None


def compare_seeds(runs: Sequence[Mapping[str, Scores]]) -> dict[str, Any]:
    """Each measure of the heads of several seeds with Student's interval, and their hits against each baseline's.

    Args:
        runs: Of each seed, the scores by method, ``head`` first. All of the same queries.
    """
    first = runs[0]["head"]
    summary: dict[str, Any] = {"n": first.n, "seeds": len(runs)}
    if not first.n:
        return summary
    values = [run["head"].values() for run in runs]
    summary["head"] = {name: plain(seeds_interval([value[name] for value in values])) for name in values[0]}
    summary["paired"] = {f"head-{other}": _paired_over_seeds(runs, other) for other in runs[0] if other != "head"}
    return summary


def _paired_over_seeds(runs: Sequence[Mapping[str, Scores]], other: str) -> dict[str, Any]:
    differences = {}
    for measure in (name for name in runs[0]["head"].values() if name.startswith("hit@")):
        homes = _measured(runs[0]["head"], measure).homes
        mine, theirs = ([_array(run[name].per_query(measure)) for run in runs] for name in ("head", other))
        differences[measure] = plain(paired_over_seeds(mine, theirs, homes))
    return differences


def paired_over_seeds(
    mine: Sequence[Float[np.ndarray, " q"]], theirs: Sequence[Float[np.ndarray, " q"]], homes: np.ndarray | None
) -> Paired:
    """Two methods, each averaged over its seeds, compared query by query (by home where homes are known)."""
    return paired(np.mean(mine, axis=0), np.mean(theirs, axis=0), homes)


def _measured(score: Scores, measure: str) -> Measured:
    homes = score.counted_groups
    known = None if homes is None or bool((homes < 0).all()) else homes.numpy()
    return Measured(_array(score.per_query(measure)), known, measure.startswith(_PROPORTIONS))


def _array(values: Tensor) -> Float[np.ndarray, " q"]:
    return values.double().numpy()


def _by_class(score: Scores, classes: Sequence[str], ks: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    labels = score.counted_labels.numpy()
    for label in np.unique(labels):
        own = labels == label
        hits = {f"hit@{k}": wilson(round(_array(score.hit(k))[own].sum()), int(own.sum())) for k in ks}
        yield classes[label], {"n": int(own.sum()), **{name: plain(value) for name, value in hits.items()}}


def _paired(head: Scores, other: Scores) -> dict[str, Any]:
    differences = {}
    for measure in head.values():
        if measure.startswith(("hit@", "map@")):
            mine, theirs = _measured(head, measure), _measured(other, measure)
            differences[measure] = plain(paired(mine.values, theirs.values, mine.homes))
    return differences
