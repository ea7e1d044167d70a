"""Known pictures told from those from outside: a table of every method, and a figure."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from likeness.reports import style, words
from likeness.reports.scoreboard import at, differences, interval_cell
from likeness.reports.tables import table, titled
from likeness.retrieval.rejection import Scored, coverage_curve

_BINS = 40
_LEAST_COVERAGE = 0.05  # of fewer pictures a mean says nothing


def rejection_table(summary: Mapping[str, Any]) -> Group:
    """Every method and its comparison with the head.

    Args:
        summary: ``metrics["rejection"]``.
    """
    rate, hit = words.percent(summary["rate"]), _first_hit(summary)
    figures = ["\nAUROC", "outside passes\nat 95 % known", f"known rejected\n(asked: {rate})", "outside\npasses"]
    board = table([""], [*figures, f"{hit} of all\nof those that pass"])
    for name in words.METHODS:
        if found := summary.get(name):
            board.add_row(words.METHODS[name], *_cells(found, hit))
    n = summary["n"]
    told = (
        f"n: calibrated on {n['held_out']:,} of val, scored on {n['known']:,} of test, {n['outside']:,} from outside\n"
        f"score: mean similarity to the {summary['k']} nearest of {summary['searched']:,} in {summary['gallery']}"
    )
    title = f"rejection of {summary['outside']}"
    return Group(
        titled(title, ", percent with 95 % intervals", board), Text(), _comparisons(summary), Text(told, "dim")
    )


def _cells(found: Mapping[str, Any], hit: str) -> Iterator[Text]:
    yield interval_cell(found["auroc"])
    yield Text(words.percent(found["accepted_at_95"]))
    yield interval_cell(found["known_rejected"])
    yield interval_cell(found["outside_accepted"])
    yield Text(
        f"{words.percent(at(found, hit, 'all', 'value'))} → {words.percent(at(found, hit, 'accepted', 'value'))}"
    )


def _first_hit(summary: Mapping[str, Any]) -> str:
    return next(name for name in summary["head"] if name.startswith("hit@"))


def _comparisons(summary: Mapping[str, Any]) -> Table:
    return differences((f"AUROC, {words.pair(pair)}", found["auroc"]) for pair, found in summary["paired"].items())


def draw_rejection(scored: Mapping[str, Scored], summary: Mapping[str, Any], path: Path) -> None:
    """Draw how scores of head and frozen features are distributed, and hits as fewer pictures are answered.

    Args:
        scored: By method.
        summary: ``metrics["rejection"]``.
        path: Where the figure goes; its suffix is the format.
    """
    style.save(_rejection(scored, summary), path)


def _rejection(scored: Mapping[str, Scored], summary: Mapping[str, Any]) -> Figure:
    shown = [name for name in ("head", "frozen") if name in scored]
    figure = style.new_figure(5 + 4.5 * len(shown), 4.2)
    *left, right = figure.subplots(1, len(shown) + 1)
    for axes, name in zip(left, shown, strict=True):
        _draw_scores(axes, name, scored[name], summary)
    _draw_coverage(right, scored, _first_hit(summary))
    return figure


def _draw_scores(axes: Axes, name: str, own: Scored, summary: Mapping[str, Any]) -> None:
    style.quiet(axes, grid="y")
    parts = {"known": (own.known, style.COLOURS[0]), "outside": (own.outside, style.COLOURS[3])}
    finite = np.concatenate([values[np.isfinite(values)] for values, _ in parts.values()])
    bins = np.linspace(finite.min(), finite.max(), _BINS + 1).tolist()
    for part, (values, colour) in parts.items():
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins, weights=weights, color=colour, alpha=0.55, label=f"{part} ({len(values):,})")
    threshold = summary[name]["threshold"]
    told = f"threshold, {words.percent(threshold['rate'])} % of known rejected"
    axes.axvline(threshold["value"], color=style.INK, linewidth=1.2, linestyle="--", label=told)
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
    axes.yaxis.set_major_formatter(style.PERCENT)
    axes.set_xlabel(f"mean similarity to the {summary['k']} nearest of the gallery", fontsize=style.SMALL)
    axes.set_ylabel("share of the pictures", fontsize=style.SMALL)
    axes.legend(frameon=False, fontsize=style.SMALL, labelcolor=style.INK, loc="upper left")
    style.headline(axes, f"{words.METHODS[name]}: AUROC {interval_cell(summary[name]['auroc']).plain}")


def _draw_coverage(axes: Axes, scored: Mapping[str, Scored], hit: str) -> None:
    style.quiet(axes, grid="y")
    k = int(hit.removeprefix("hit@"))
    for name, own in scored.items():
        curve = coverage_curve(own.known, own.hits[k])
        shown = curve.coverage >= _LEAST_COVERAGE
        label = words.METHODS[name]
        axes.plot(curve.coverage[shown], curve.hit[shown], color=style.METHOD_COLOURS[name], linewidth=1.8, label=label)
    axes.xaxis.set_major_formatter(style.PERCENT)
    axes.yaxis.set_major_formatter(style.PERCENT)
    axes.set_xlabel("known pictures that are answered, most similar to the gallery first", fontsize=style.SMALL)
    axes.set_ylabel(f"{hit} of these", fontsize=style.SMALL)
    axes.legend(frameon=False, fontsize=style.SMALL, labelcolor=style.INK)
    style.headline(axes, f"{hit} against coverage, known pictures of test")
