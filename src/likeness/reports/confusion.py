"""What pictures of each class were voted to be: as a table, and as a figure of true against voted classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from likeness.reports import style, words
from likeness.reports.scoreboard import at, interval_cell
from likeness.reports.tables import table, titled

Votes = Mapping[str, Mapping[str, Any]]
"""By class ``{"n", "recall", "precision", "voted_as"}``, as ``metrics["splits"][split]["votes"]``."""

_MOST_TOLD, _MOST_DRAWN = 20, 40
_MOST_WITH_SHARES = 12
_NO_VOTE, _REST = "no vote", "other classes"
_COLOURS = LinearSegmentedColormap.from_list("votes", ["#FFFFFF", style.COLOURS[5], style.COLOURS[0]])


def votes_table(split: str, summary: Mapping[str, Any]) -> Group:
    """The classes of one split, least often right first, and what the neighbours' agreement has been worth.

    Args:
        summary: Of the split, from a ``metrics.json``. Of more than 20 classes the first are shown.
    """
    votes: Votes = summary["votes"]
    order = sorted(votes, key=lambda name: (at(votes[name], "recall", "value") is None, _recall(votes[name])))
    board = table(["class"], ["n", "right", "votes right", "most often taken for"])
    for name in order[:_MOST_TOLD]:
        found = votes[name]
        cells = (interval_cell(found["recall"]), interval_cell(found["precision"]), _taken_for(name, found))
        board.add_row(Text(name), words.count(found["n"]), *cells)
    rest = f", {_MOST_TOLD} of {len(order)} classes" if len(order) > _MOST_TOLD else ""
    measure = next(name for name in summary["head"] if name.startswith("vote@"))
    title = Text.assemble(f"{split} {measure} of the head ", interval_cell(summary["head"][measure]))
    told = [
        f"confidence {name}: {found['n']:,} votes, {interval_cell(found['right']).plain} % right"
        for name, found in summary["votes_by_agreement"].items()
        if found["n"]
    ]
    return Group(titled(title.plain, f"{rest}, percent", board), Text("\n".join(["", *told]), "dim"))


def _recall(found: Mapping[str, Any]) -> float:
    return at(found, "recall", "value") or 0.0


def _taken_for(name: str, found: Mapping[str, Any]) -> Text:
    wrong = {other: count for other, count in found["voted_as"].items() if other != name}
    if not wrong:
        return Text(words.NONE)
    most = max(wrong, key=lambda other: wrong[other])
    return Text(f"{words.shortened(most or _NO_VOTE, 24)} ({wrong[most]})")


def draw_confusion(votes: Votes, measure: str, path: Path) -> None:
    """Draw true classes (rows) against voted ones (columns): shares of each row as colour, counts as numbers.

    Args:
        votes: Of one split. Of more than 40 classes those with the most wrong votes are drawn, and the votes for the
            others are added up.
        measure: E.g. ``"vote@5"``.
        path: Where the figure goes; its suffix is the format.
    """
    style.save(_confusion(votes, measure), path)


def _confusion(votes: Votes, measure: str) -> Figure:
    names = _drawn(votes)
    rows = [name for name in names if votes[name]["n"]]
    counts, columns = _counts(votes, rows, names)
    side = 2.2 + max(0.27 * len(columns), min(0.95 * len(columns), 4.5))
    figure = style.new_figure(side + 1.2, side - 2.2 + 1.9 - 0.27 * (len(columns) - len(rows)))
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdims=True)
    norm = PowerNorm(0.6, vmin=0, vmax=1)  # so that a rare mistake is seen
    image = axes.imshow(shares, cmap=_COLOURS, norm=norm, aspect="auto")
    _write(axes, counts, shares)
    _label(axes, [f"{name} ({words.count(votes[name]['n'])})" for name in rows], columns)
    rest = f", the {len(names)} of {len(votes)} classes that are mistaken most" if len(names) < len(votes) else ""
    style.headline(axes, f"{measure}: true class against voted class{rest}")
    bar = figure.colorbar(image, ax=axes, format=style.PERCENT, aspect=30, shrink=0.8, fraction=0.03, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=style.SMALL, length=0, labelcolor=style.INK)
    return figure


def _drawn(votes: Votes) -> list[str]:
    """The classes with the most wrong votes, in the order of all."""
    if len(votes) <= _MOST_DRAWN:
        return list(votes)
    wrong = {name: found["n"] - found["voted_as"].get(name, 0) for name, found in votes.items()}
    most = set(sorted(wrong, key=lambda name: -wrong[name])[:_MOST_DRAWN])
    return [name for name in votes if name in most]


def _counts(votes: Votes, rows: Sequence[str], names: Sequence[str]) -> tuple[Int[np.ndarray, "r c"], list[str]]:
    """How many pictures of each row were voted to be of each column; columns that are nobody's at the end are cut."""
    of_rows = [votes[row]["voted_as"] for row in rows]
    known = np.array([[row.get(name, 0) for name in names] for row in of_rows])
    none = np.array([row.get("", 0) for row in of_rows])
    rest = np.array([sum(row.values()) for row in of_rows]) - known.sum(1) - none
    ends = [(title, column) for title, column in ((_REST, rest), (_NO_VOTE, none)) if column.any()]
    counts = np.concatenate([known, *(column[:, None] for _, column in ends)], axis=1)
    return counts, [*names, *(title for title, _ in ends)]


def _write(axes: Axes, counts: Int[np.ndarray, "r c"], shares: Float[np.ndarray, "r c"]) -> None:
    """Counts, and of few classes the shares above them; nothing where there is nothing."""
    few = counts.shape[1] <= _MOST_WITH_SHARES
    for (row, column), count in np.ndenumerate(counts):
        if count:
            share = float(shares[row, column])
            text = f"{words.percent(share)} %\n{count:,}" if few else f"{count:,}"
            colour = "white" if share > 0.5 else style.INK
            size = style.SMALL if few else 6.5
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _label(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    size = style.SMALL if len(columns) <= _MOST_WITH_SHARES else 6.5
    axes.set_yticks(range(len(rows)), [style.plain(words.shortened(name, 32)) for name in rows], fontsize=size)
    turned = 90 if len(columns) > 8 else 0
    named = [style.plain(words.shortened(name, 24)) for name in columns]
    axes.set_xticks(range(len(columns)), named, fontsize=size, rotation=turned)
    axes.set_ylabel("true class (pictures)", fontsize=style.SMALL, color=style.FAINT)
    axes.set_xlabel("voted class", fontsize=style.SMALL, color=style.FAINT)
    axes.tick_params(length=0, labelcolor=style.INK)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(-0.5, len(columns)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(rows)), minor=True)
    axes.grid(which="minor", color="#E6E6E6", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
