"""How a head learned: its losses, and what they bought in retrieval."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from likeness.reports import style, words

_SPAN_OF_A_LOG_AXIS = 10.0
_DASHES = ((0, (6, 3)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)))


def draw_curve(
    epochs: Sequence[Mapping[str, float | int | None]],
    path: Path,
    baseline: Mapping[str, float | int] | None,
    best_epoch: int | None,
) -> bool:
    """Draw losses and validation hit@1 over the epochs, side by side; False, and no file, without epochs.

    Args:
        epochs: Each with ``epoch``, ``train/loss``, ``val/loss`` and, where it was measured, ``val/hit@1`` in [0, 1].
        path: Where the figure goes; its suffix is the format.
        baseline: Validation hit@1 in [0, 1] by name, e.g. ``{"frozen": 0.57}``: dashed lines.
        best_epoch: The epoch that was kept: a dotted line in both panels.

    Losses stand on a logarithmic axis when the largest is over ten times the smallest, and all are positive.
    """
    if not epochs:
        return False
    style.save(_curve(epochs, baseline or {}, best_epoch), path)
    return True


def _curve(
    epochs: Sequence[Mapping[str, float | int | None]], baseline: Mapping[str, float | int], best_epoch: int | None
) -> Figure:
    figure = style.new_figure(10, 3.9)
    losses, hits = figure.subplots(1, 2, sharex=True)
    steps = _column(epochs, "epoch")
    _draw_losses(losses, steps, _column(epochs, "train/loss"), _column(epochs, "val/loss"))
    _draw_hits(hits, steps, _column(epochs, "val/hit@1"), baseline)
    for axes in (losses, hits):
        axes.set_xlabel("epoch", fontsize=style.SMALL, color=style.FAINT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if best_epoch is not None:
            axes.axvline(best_epoch, color=style.INK, linewidth=1, linestyle=":", label=f"best epoch, {best_epoch}")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=style.SMALL, frameon=False, labelcolor=style.INK)
    return figure


def _column(epochs: Sequence[Mapping[str, float | int | None]], key: str) -> Float[np.ndarray, " e"]:
    """One value an epoch, NaN where there is none."""
    values = (epoch.get(key) for epoch in epochs)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _draw_losses(
    axes: Axes, steps: Float[np.ndarray, " e"], train: Float[np.ndarray, " e"], val: Float[np.ndarray, " e"]
) -> None:
    style.quiet(axes, grid="y")
    style.headline(axes, "loss")
    _line(axes, steps, train, style.COLOURS[5], "train")
    _line(axes, steps, val, style.COLOURS[0], "val")
    seen = np.concatenate([train, val])
    seen = seen[np.isfinite(seen)]
    if seen.size and seen.min() > 0 and seen.max() > _SPAN_OF_A_LOG_AXIS * seen.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_hits(
    axes: Axes, steps: Float[np.ndarray, " e"], hits: Float[np.ndarray, " e"], baseline: Mapping[str, float | int]
) -> None:
    style.quiet(axes, grid="y")
    style.headline(axes, "validation hit@1")
    axes.yaxis.set_major_formatter(style.PERCENT)
    for (name, value), dashes in zip(baseline.items(), _DASHES * len(baseline), strict=False):
        label, colour = words.METHODS.get(name.lower(), name), style.METHOD_COLOURS.get(name.lower(), style.FAINT)
        label = style.plain(f"{label}, {words.percent(value)} %")
        axes.axhline(value, color=colour, linewidth=1.6, linestyle=dashes, label=label)
    if np.isfinite(hits).any():
        _line(axes, steps, hits, style.COLOURS[0], f"head, highest {words.percent(float(np.nanmax(hits)))} %")
    else:
        axes.text(0.5, 0.5, "not measured while training", transform=axes.transAxes, ha="center", color=style.FAINT)


def _line(axes: Axes, steps: Float[np.ndarray, " e"], values: Float[np.ndarray, " e"], colour: str, name: str) -> None:
    """A line through the finite values, with dots where they are few enough to be told apart."""
    finite = np.isfinite(values)
    marker = "o" if finite.sum() <= 40 else None
    axes.plot(steps[finite], values[finite], color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=name)
