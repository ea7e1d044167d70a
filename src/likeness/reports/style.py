"""How every figure looks: colours that survive colour blindness, marks beside colours, light ground."""

import io
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from likeness.files import write_atomic
from likeness.reports.words import METHODS

# Okabe and Ito (2008), without the yellow and the black, which vanish on white or pass for text.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
INK, FAINT, EMPTY, PAPER = "#222222", "#6B6B6B", "#E4E4E4", "#F6F6F6"
VERDICTS = {True: ("✓", "#007A57"), False: ("✗", "#C8321E"), None: ("", "#A8A8A8")}
METHOD_COLOURS = dict(zip(METHODS, ("#0072B2", "#E69F00", "#009E73", "#A8A8A8"), strict=True))
SMALL, NORMAL, LARGE = 8.5, 10.0, 13.0


PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")


def new_figure(width: float | int, height: float | int) -> Figure:
    """An empty figure of ``width`` by ``height`` inches that no global state knows of."""
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format of ``path``'s suffix, atomically.

    Raises:
        LikenessError: As :func:`likeness.files.write_atomic`.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip("."), dpi=150)
    write_atomic(path, buffer.getvalue())


def quiet(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Only the lines that carry meaning: two spines and a faint grid along ``grid``."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B0B0B0")
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=SMALL, length=3)
    axes.grid(axis=grid, which="major", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)


def headline(axes: Axes, text: str) -> None:
    axes.set_title(plain(text), fontsize=NORMAL, color=INK, loc="left", fontweight="bold")


def plain(text: str) -> str:
    """``text`` as it stands: a dollar in a class's name starts no formula, bytes that are no text show as such."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("$", r"\$")


def look_of(label: int) -> tuple[str, str]:
    """Colour and marker of a class index; the colours repeat after seven, with another marker."""
    turn, colour = divmod(label, len(COLOURS))
    return COLOURS[colour], MARKERS[turn % len(MARKERS)]
