"""Features and codes in two dimensions: a picture to look at, not a score."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from threadpoolctl import threadpool_limits

from likeness.reports import style, words

FEWEST_ROWS = 4
WIDTH_BEFORE_TSNE = 50
_MOST_CLASSES_TOLD_APART = len(style.COLOURS) * len(style.MARKERS)
FOOTNOTE = (
    "t-SNE after PCA to at most 50 dimensions. KL says what a map loses of its own input:\n"
    "the KL of different inputs is not a score, and distances between groups mean little."
)


class Projection(NamedTuple):
    """Points ``xy`` [n, 2], float64, the KL divergence the map ended at (in nats), and the perplexity it used."""

    xy: Float[np.ndarray, "n 2"]
    kl: float
    perplexity: float


def sample_rows(n: int, most: int = 2000, seed: int = 0) -> Int[np.ndarray, " m"]:
    """Which of ``n`` rows to draw: all, or ``most`` without replacement; ascending, the same for the same seed."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def project(rows: Float[np.ndarray, "n d"], perplexity: float | int = 30, seed: int = 0) -> Projection:
    """As :func:`project_each`, of one perplexity that is lowered to ``(n - 1) / 3`` where it is above that."""
    return next(project_each(rows, [min(float(perplexity), (len(rows) - 1) / 3)], seed))


def project_each(
    rows: Float[np.ndarray, "n d"], perplexities: Iterable[float | int], seed: int = 0
) -> Iterator[Projection]:
    """t-SNE (van der Maaten and Hinton, 2008) of ``rows`` to the plane; the same rows give the same maps.

    As is usual, rows are first brought to at most 50 dimensions by PCA, once for all perplexities; that also is where
    the points start. Distances are Euclidean: give rows of unit length to see what the cosine sees. Rows that are all
    equal (a collapsed head) stay on one point, which loses nothing: KL 0.

    Raises:
        ValueError: With fewer than four rows, one that is not finite, or a perplexity that is not below their number.
    """
    if len(rows) < FEWEST_ROWS:
        raise ValueError(f"rows has {len(rows)} of them: a projection needs at least {FEWEST_ROWS}")
    if not np.isfinite(rows).all():
        raise ValueError("rows is not finite everywhere: a projection needs numbers")
    with threadpool_limits(1):
        compact = _compact(rows, seed)
    for perplexity in perplexities:
        yield _project(compact, float(perplexity), seed)


def _project(rows: Float[np.ndarray, "n c"], perplexity: float, seed: int) -> Projection:
    """One map, on one thread: with more, sums are taken in another order and the map is another one."""
    if perplexity >= len(rows):
        raise ValueError(f"perplexity {perplexity:g} is not below the number of rows, {len(rows)}")
    if not rows.any():
        return Projection(np.zeros((len(rows), 2)), 0.0, perplexity)
    from sklearn.manifold import TSNE  # slow to import, and most runs draw no map

    tsne = TSNE(init="pca", perplexity=perplexity, random_state=seed)
    with threadpool_limits(1):
        xy = tsne.fit_transform(rows)
    return Projection(xy.astype(np.float64), float(tsne.kl_divergence_), perplexity)


def _compact(rows: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n c"]:
    """PCA to 50 dimensions; a code of one number gets a second, constant one, as the plane needs two."""
    if not np.ptp(rows, axis=0).any():
        return np.zeros((len(rows), 2))
    rows = np.pad(rows.astype(np.float64), ((0, 0), (0, max(0, 2 - rows.shape[1]))))
    from sklearn.decomposition import PCA

    return PCA(min(WIDTH_BEFORE_TSNE, *rows.shape), random_state=seed).fit_transform(rows)


def draw_projection(
    panels: Sequence[tuple[str, Projection]], labels: Int[np.ndarray, " n"], classes: Sequence[str], path: Path
) -> None:
    """Draw projections of the same rows side by side, one colour a class, one legend for all.

    Args:
        panels: Title and projection, e.g. features beside codes; each title gains the KL and the perplexity.
        labels: Class index of each row.
        classes: Name of each class; after seven the colours repeat with another marker.
        path: Where the figure goes; its suffix is the format.
    """
    style.save(_projections(panels, labels, classes), path)


def _projections(
    panels: Sequence[tuple[str, Projection]], labels: Int[np.ndarray, " n"], classes: Sequence[str]
) -> Figure:
    columns = 3 * len(panels)
    figure = style.new_figure(5 * len(panels), 5.4 + 0.2 * min(len(classes), _MOST_CLASSES_TOLD_APART) / columns)
    for axes, (title, projection) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        style.headline(axes, f"{title} · KL {projection.kl:.2f} · perplexity {projection.perplexity:.3g}")
        scatter(axes, projection.xy, labels)
    draw_legend(figure, classes, "outside upper center", columns)
    if told := crowd(classes):
        figure.suptitle(told, fontsize=style.SMALL, color=style.FAINT)
    figure.supxlabel(FOOTNOTE, fontsize=7.5, color=style.FAINT)
    return figure


def scatter(axes: Axes, xy: Float[np.ndarray, "n 2"], labels: Int[np.ndarray, " n"]) -> None:
    """Points in a mixed order, so that no class lies on top of all others."""
    order = np.random.default_rng(0).permutation(len(labels))
    colours, markers = np.array([style.look_of(int(label)) for label in labels[order]]).T
    for marker in style.MARKERS:
        x, y = xy[order][markers == marker].T
        axes.scatter(x, y, s=11, c=colours[markers == marker], marker=marker, alpha=0.75, linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_color("#D5D5D5")


def draw_legend(
    figure: Figure, classes: Sequence[str], place: Literal["outside upper center", "outside right center"], columns: int
) -> None:
    """One legend for all panels; of too many classes to tell apart none, see :func:`crowd`."""
    if not crowd(classes):
        handles = [_handle(name, *style.look_of(label)) for label, name in enumerate(classes)]
        columns = min(columns, len(classes))
        figure.legend(handles=handles, loc=place, ncols=columns, frameon=False, fontsize=style.SMALL)


def crowd(classes: Sequence[str]) -> str:
    """What to say where colours and marks repeat; nothing where each class has its own."""
    crowded = len(classes) > _MOST_CLASSES_TOLD_APART
    return f"{len(classes)} classes: colours and marks repeat" if crowded else ""


def _handle(name: str, colour: str, marker: str) -> Line2D:
    name = style.plain(words.shortened(name, 20))
    return Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
