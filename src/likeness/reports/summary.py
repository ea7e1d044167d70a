"""A run's final numbers by flat names, the same in the journal and on every dashboard."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from likeness.reports.words import METHODS


def flat_summary(metrics: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = ()) -> dict[str, float]:
    """``test/hit@1`` and its ``_low`` and ``_high``, ``test/pca/hit@1``, ``test/gain_over_pca``, ``rejection/auroc``.

    Args:
        metrics: The content of a ``metrics.json``. Blanks of a split's name become ``_``; what is null is left out. Of
            several seeds it is their means, and the first seed's where there is no mean.
        history: What was logged in each epoch; ``val/hit@1_best`` is its best, or the final one where it has none.
    """
    splits = [*metrics["splits"].items(), *metrics.get("over_seeds", {}).items()]
    flat = {name: value for split, found in splits for name, value in _of_split(split, found)}
    flat |= dict(_of_rejection(metrics.get("rejection") or {}))
    flat |= {f"seconds/{part}": seconds for part, seconds in metrics["seconds"].items()}
    if (final := flat.get("val/hit@1")) is not None:
        flat["val/hit@1_best"] = max((each["val/hit@1"] for each in history if "val/hit@1" in each), default=final)
    return {name: float(value) for name, value in flat.items() if value is not None}


def _of_split(split: str, summary: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    place = split.replace(" ", "_")
    yield f"{place}/n", summary["n"]
    for measure, value in summary.get("chance", {}).items():
        yield f"{place}/chance/{measure}", value
    for method in METHODS:
        prefix = f"{place}/" if method == "head" else f"{place}/{method}/"
        for measure, found in summary.get(method, {}).items():
            yield prefix + measure, found["value"]
            if measure.startswith("hit@"):
                yield from ((f"{prefix}{measure}_{bound}", found[bound]) for bound in ("low", "high"))
    for pair, found in summary.get("paired", {}).items():
        yield from _gain(place, pair, found["hit@1"])


def _of_rejection(summary: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for method in METHODS:
        if found := summary.get(method):
            prefix = "rejection/" if method == "head" else f"rejection/{method}/"
            yield f"{prefix}accepted_at_95", found["accepted_at_95"]
            for measure in ("auroc", "known_rejected", "outside_accepted"):
                yield prefix + measure, found[measure]["value"]
                yield from ((f"{prefix}{measure}_{bound}", found[measure][bound]) for bound in ("low", "high"))
    for pair, found in summary.get("paired", {}).items():
        yield from _gain("rejection", pair, found["auroc"])


def _gain(place: str, pair: str, found: Mapping[str, float | None]) -> Iterator[tuple[str, float | None]]:
    gain = f"{place}/gain_over_{pair.removeprefix('head-')}"
    yield gain, found["difference"]
    yield from ((f"{gain}_{name}", found[name]) for name in ("low", "high", "p"))
