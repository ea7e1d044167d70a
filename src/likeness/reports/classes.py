"""Each class by itself, for every method: an average hides the class that is never found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likeness.reports import style, words

PerClass = Mapping[str, Mapping[str, Mapping]]
_MOST = 40
_FILLED = 0.78  # of the room between two classes


def draw_per_class(per_class: PerClass, measure: str, chance: float | int | None, path: Path) -> None:
    """Draw one measure of every class as bars, a bar for each method, with intervals and the chance level.

    Args:
        per_class: Method, then class, then ``{"n": queries, measure: {"value", "low", "high"}}`` in [0, 1], as in
            ``metrics["splits"][split]["per_class"]``. Classes go from best to worst by the first method; where
            there are over 40, the 20 best and the 20 worst are drawn. A measure that is null has no bar.
        measure: E.g. ``"hit@1"``.
        chance: What drawing neighbours blindly would give, in [0, 1]; None draws no line.
        path: Where the figure goes; its suffix is the format.

    Raises:
        ValueError: If no method has a class.
    """
    style.save(_per_class(per_class, measure, chance), path)


def _per_class(per_class: PerClass, measure: str, chance: float | int | None) -> Figure:
    methods = [method for method in words.METHODS if per_class.get(method)]
    if not methods:
        raise ValueError(f"per_class has none of {', '.join(words.METHODS)}: there is nothing to draw")
    names = _ordered(per_class[methods[0]], measure)
    shown = names if len(names) <= _MOST else names[: _MOST // 2] + names[-(_MOST // 2) :]
    bar = _FILLED / len(methods)
    figure = style.new_figure(8.5, 1.4 + len(shown) * (0.12 + 0.18 * len(methods)))
    axes = figure.subplots()
    style.quiet(axes, grid="x")
    rest = f", {len(shown)} of {len(names)} classes: the best and the worst" if len(shown) < len(names) else ""
    style.headline(axes, f"{measure} of each class{rest}")
    for index, method in enumerate(methods):
        at = np.arange(len(shown)) + bar * (index - (len(methods) - 1) / 2)
        _bars(axes, [per_class[method].get(name, {}).get(measure) for name in shown], at, bar, method)
    if chance is not None:
        axes.axvline(chance, color=style.INK, linewidth=1.2, linestyle="--", label=f"chance, {words.percent(chance)} %")
    _label(axes, [f"{name} ({per_class[methods[0]][name].get('n', '–')})" for name in shown])
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=style.SMALL, labelcolor=style.INK)
    return figure


def _ordered(classes: Mapping[str, Mapping], measure: str) -> list[str]:
    """Names from best to worst; those without a value last."""
    return sorted(classes, key=lambda name: -((classes[name].get(measure) or {}).get("value") or -1.0))


def _bars(
    axes: Axes, intervals: Sequence[Mapping | None], at: Float[np.ndarray, " c"], height: float, method: str
) -> None:
    """One method's bar for each class, with the interval as whiskers; a dash where there is no value."""
    cells = [interval or {} for interval in intervals]
    value, low, high = (_column(cells, key) for key in ("value", "low", "high"))
    axes.barh(at, value, 0.92 * height, color=style.METHOD_COLOURS[method], label=words.METHODS[method])
    axes.errorbar(value, at, xerr=[value - low, high - value], fmt="none", ecolor=style.INK, elinewidth=0.9)
    for missing in at[np.isnan(value)]:
        axes.text(0, missing, " –", va="center", fontsize=style.SMALL, color=style.FAINT)


def _column(cells: Sequence[Mapping], key: str) -> Float[np.ndarray, " c"]:
    return np.array([np.nan if cell.get(key) is None else cell[key] for cell in cells], dtype=np.float64)


def _label(axes: Axes, names: Sequence[str]) -> None:
    """The best class at the top, the axis from zero in percent."""
    axes.set_yticks(range(len(names)), [style.plain(words.shortened(name, 32)) for name in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, None)
    axes.tick_params(axis="y", length=0, labelsize=style.NORMAL)
    axes.xaxis.set_major_formatter(style.PERCENT)
