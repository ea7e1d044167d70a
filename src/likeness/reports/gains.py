"""A sweep over seeds as two figures: every head's gain over its baselines, and quality against the width of a code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from likeness.reports import style, words

Row = Mapping[str, Any]

_MOST = 40
_FEWEST_WIDTHS = 3
_FOOTNOTE = (
    "hits averaged over seeds, then compared query by query; 95 % intervals.\n"
    "Filled: p < 0.05 after Holm's correction for the number of heads."
)


def draw_gains(rows: Sequence[Row], path: Path) -> bool:
    """Draw every head's difference of hit@1 from each baseline, with its interval.

    False, and no file, where no row is compared with a baseline.

    Args:
        rows: Of one split, of ``seeds.compared_seeds``; the first 40 are drawn.
        path: Where the figure goes; its suffix is the format.
    """
    shown = rows[:_MOST]
    baselines = [name for name in words.METHODS if any(f"over_{name}" in row for row in shown)]
    if baselines:
        style.save(_gains(shown, baselines), path)
    return bool(baselines)


def _gains(rows: Sequence[Row], baselines: Sequence[str]) -> Figure:
    figure = style.new_figure(8.5, 1.7 + len(rows) * (0.1 + 0.16 * len(baselines)))
    axes = figure.subplots()
    style.quiet(axes, grid="x")
    style.headline(axes, f"hit@1 on {rows[0]['split']}: head minus baseline, points")
    axes.axvline(0, color=style.INK, linewidth=1)
    for index, name in enumerate(baselines):
        _intervals(axes, rows, name, 0.24 * (index - (len(baselines) - 1) / 2))
    axes.set_yticks(range(len(rows)), [_named(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.signed(f"{100 * value:+.3g}")))
    figure.supxlabel(_FOOTNOTE, fontsize=7.5, color=style.FAINT)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=style.SMALL, labelcolor=style.INK)
    return figure


def _intervals(axes: Axes, rows: Sequence[Row], name: str, shift: float) -> None:
    colour = style.METHOD_COLOURS[name]
    axes.plot([], [], "o-", color=colour, label=f"minus {words.METHODS[name]}")
    compared = [(at, row) for at, row in enumerate(rows) if f"over_{name}" in row]
    for at, row in compared:
        sure = row[f"p_holm_{name}"] < 0.05
        axes.hlines(at + shift, row[f"low_over_{name}"], row[f"high_over_{name}"], color=colour, linewidth=1.6)
        fill = colour if sure else "white"
        axes.plot(row[f"over_{name}"], at + shift, "o", color=colour, markerfacecolor=fill, markersize=5)


def _named(row: Row) -> str:
    return style.plain(words.shortened("  ".join(map(str, row["options"].values())), 44))


def draw_widths(rows: Sequence[Row], path: Path) -> bool:
    """Draw hit@1 against the width of the code for head, PCA and random projection, and the frozen features as a line.

    False, and no file, where the rows differ in more than the option that says how wide, or in fewer than three widths.

    Args:
        rows: Of one split, of ``seeds.compared_seeds``.
        path: Where the figure goes; its suffix is the format.
    """
    varying = [name.rpartition(".")[2] for name in rows[0]["options"]] if rows else []
    widths = sorted({row["code_width"] for row in rows} - {None})
    if varying not in (["width"], ["widths"]) or len(widths) < max(_FEWEST_WIDTHS, len(rows)):
        return False
    style.save(_widths(sorted(rows, key=lambda row: row["code_width"]), widths), path)
    return True


def _widths(rows: Sequence[Row], widths: Sequence[int]) -> Figure:
    figure = style.new_figure(8, 4.6)
    axes = figure.subplots()
    style.quiet(axes, grid="y")
    style.headline(axes, f"hit@1 on {rows[0]['split']} by the width of the code")
    methods = ["head", *(name for name in ("pca", "random_projection") if all(name in row for row in rows))]
    for name in methods:
        values = np.array([row["hit@1" if name == "head" else name] for row in rows])
        marker = style.MARKERS[methods.index(name)]
        axes.plot(widths, values, marker=marker, color=style.METHOD_COLOURS[name], label=words.METHODS[name])
    low, high = (np.array([row[f"hit@1_{bound}"] for row in rows]) for bound in ("low", "high"))
    axes.fill_between(widths, low, high, color=style.METHOD_COLOURS["head"], alpha=0.15, linewidth=0)
    if all("frozen" in row for row in rows):
        label = f"frozen, {words.percent(rows[0]['frozen'])} %"
        axes.axhline(rows[0]["frozen"], color=style.METHOD_COLOURS["frozen"], linestyle="--", label=label)
    _label_widths(axes, widths)
    axes.legend(fontsize=style.SMALL, frameon=False, labelcolor=style.INK)
    return figure


def _label_widths(axes: Axes, widths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths, [f"{width:,}" for width in widths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("numbers in a code (4 bytes each)", fontsize=style.SMALL, color=style.FAINT)
    axes.yaxis.set_major_formatter(style.PERCENT)
