"""Features and codes in two dimensions: a picture to look at, not a score."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from likeness.reports import style, words

_WIDTH_BEFORE_TSNE = 50
_MOST_CLASSES_TOLD_APART = len(style.COLOURS) * len(style.MARKERS)
_FOOTNOTE = (
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
    """t-SNE (van der Maaten and Hinton, 2008) of ``rows`` to the plane; the same rows give the same map.

    As is usual, rows are first brought to at most 50 dimensions by PCA, which also is where the points start.
    Distances are Euclidean: give rows of unit length to see what the cosine sees. The perplexity must be
    below the number of rows, and is lowered to ``(n - 1) / 3`` where it is above that; the result has the one
    that was used. Rows that are all equal (a collapsed head) stay on one point, which loses nothing: KL 0.

    Raises:
        ValueError: With fewer than four rows, or one that is not finite.
    """
    if len(rows) < 4:
        raise ValueError(f"rows has {len(rows)} of them: a projection needs at least 4")
    if not np.isfinite(rows).all():
        raise ValueError("rows is not finite everywhere: a projection needs numbers")
    used = min(float(perplexity), (len(rows) - 1) / 3)
    if not np.ptp(rows, axis=0).any():
        return Projection(np.zeros((len(rows), 2)), 0.0, used)
    tsne = TSNE(init="pca", perplexity=used, random_state=seed)
    xy = tsne.fit_transform(_compact(rows, seed))
    return Projection(xy.astype(np.float64), float(tsne.kl_divergence_), used)


def _compact(rows: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n c"]:
    """PCA to 50 dimensions; a code of one number gets a second, constant one, as the plane needs two."""
    rows = np.pad(rows.astype(np.float64), ((0, 0), (0, max(0, 2 - rows.shape[1]))))
    return PCA(min(_WIDTH_BEFORE_TSNE, *rows.shape), random_state=seed).fit_transform(rows)


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
        _scatter(axes, projection.xy, labels)
    _legend(figure, classes, columns)
    figure.supxlabel(_FOOTNOTE, fontsize=7.5, color=style.FAINT)
    return figure


def _scatter(axes: Axes, xy: Float[np.ndarray, "n 2"], labels: Int[np.ndarray, " n"]) -> None:
    """Points in a mixed order, so that no class lies on top of all others."""
    order = np.random.default_rng(0).permutation(len(labels))
    colours, markers = np.array([style.look_of(int(label)) for label in labels[order]]).T
    for marker in style.MARKERS:
        x, y = xy[order][markers == marker].T
        axes.scatter(x, y, s=11, c=colours[markers == marker], marker=marker, alpha=0.75, linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_color("#D5D5D5")


def _legend(figure: Figure, classes: Sequence[str], columns: int) -> None:
    if len(classes) > _MOST_CLASSES_TOLD_APART:
        figure.suptitle(f"{len(classes)} classes: colours and marks repeat", fontsize=style.SMALL, color=style.FAINT)
        return
    handles = [_handle(name, *style.look_of(label)) for label, name in enumerate(classes)]
    columns = min(columns, len(classes))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=style.SMALL)


def _handle(name: str, colour: str, marker: str) -> Line2D:
    name = style.plain(words.shortened(name, 20))
    return Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
