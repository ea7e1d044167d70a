"""Queries beside their nearest neighbours, as pictures."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from PIL import Image, ImageOps

from likeness.reports import style, words

log = logging.getLogger(__name__)
_SHOWN = 5
_WIDE, _ABOVE, _TEXT = 1.8, 0.68, 0.42  # inches: a picture, the title's strip, the text under a picture
_BESIDE_QUERY = 0.16  # of a picture's width
_PIXELS = 360  # a picture's longer side
_SHAPES = (2 / 3, 3 / 2)  # width over height that frames may have
_MOST_OF_A_HOME, _WIDE_OF_A_HOME, _BESIDE_HOME = 3, 1.25, 0.3  # pictures; inches; of a picture's width

OpenImage = Callable[[Path], Image.Image]


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery; ``similarity`` and ``right`` (same label as the query) are a neighbour's."""

    path: Path
    label: str
    similarity: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class GalleryRow:
    """A query, its neighbours from nearest to farthest (five are shown), and a remark, e.g. a rank."""

    query: Picture
    neighbours: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True)
class HomePictures:
    """Pictures of one home; ``similarity`` and ``right`` are those of one that was found."""

    name: str
    paths: Sequence[Path]
    similarity: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class HomeRow:
    """Half of a home, its other half, the homes that were found from nearest to farthest, and a remark."""

    query: HomePictures
    other: HomePictures
    nearest: Sequence[HomePictures]
    note: str = ""


@dataclass(frozen=True)
class _Canvas:
    image: Image.Image
    fault: str = ""


def draw_gallery(rows: Sequence[GalleryRow], title: str, path: Path, open_image: OpenImage) -> None:
    """Draw each query at the left and its five nearest at the right, framed and marked right or wrong.

    Args:
        rows: One or more; a dozen fills a page. A row with fewer than five neighbours leaves blanks.
        title: Stands above all.
        path: Where the figure goes; its suffix is the format.
        open_image: From a path to a picture. What it cannot open becomes a grey box with the file's name.

    Raises:
        ValueError: If there is no row.
    """
    style.save(_gallery(rows, title, open_image), path)


def _gallery(rows: Sequence[GalleryRow], title: str, open_image: OpenImage) -> Figure:
    if not rows:
        raise ValueError("rows is empty: a gallery needs at least one query")
    canvases = _canvases(
        [picture.path for row in rows for picture in (row.query, *row.neighbours[:_SHOWN])], open_image
    )
    one = next(iter(canvases.values())).image
    figure, grid = _page(len(rows), title, high=_WIDE * one.height / one.width)
    for index, row in enumerate(rows):
        _draw_row(figure, grid, index, row, canvases)
    for column, axes in enumerate(figure.axes[: 1 + len(rows[0].neighbours[:_SHOWN])]):
        axes.set_title(f"nearest {column}" if column else "query", fontsize=style.SMALL, color=style.FAINT, pad=5)
    return figure


def _page(rows: int, title: str, high: float) -> tuple[Figure, GridSpec]:
    """A figure, and its grid: the query's column, a gap, the neighbours' columns; pictures are ``high`` inches."""
    width, height = (1.05 + _BESIDE_QUERY + 1.05 * _SHOWN) * _WIDE, rows * (high + _TEXT) + _ABOVE
    figure = style.new_figure(width, height)
    figure.set_layout_engine("none")
    figure.text(0.012, 1 - 0.24 / height, style.plain(title), fontsize=style.LARGE, fontweight="bold", va="center")
    grid = figure.add_gridspec(rows, 2 + _SHOWN, width_ratios=[1, _BESIDE_QUERY, *[1] * _SHOWN])
    grid.update(left=0.012, right=0.988, top=1 - _ABOVE / height, bottom=_TEXT / height)
    grid.update(wspace=0.06, hspace=_TEXT / high)
    return figure, grid


def _canvases(paths: Sequence[Path], open_image: OpenImage) -> dict[Path, _Canvas]:
    """Each picture, whole, on a ground of the shape that most of them have: so rows and columns stay aligned."""
    opened = {path: _small(path, open_image) for path in dict.fromkeys(paths)}
    shapes = [image.width / image.height for image in opened.values() if image is not None]
    shape = min(max(median(shapes or [1.0]), _SHAPES[0]), _SHAPES[1])
    size = (round(_PIXELS * min(1, shape)), round(_PIXELS / max(1, shape)))
    return {path: _canvas(path, image, size) for path, image in opened.items()}


def _small(path: Path, open_image: OpenImage) -> Image.Image | None:
    try:
        with open_image(path) as image:
            return ImageOps.contain(image.convert("RGB"), (_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    except Exception as error:  # a figure does not stop for one picture, whatever the decoder raises
        log.warning("%s is drawn as a grey box: %s", path, error)
        return None


def _canvas(path: Path, image: Image.Image | None, size: tuple[int, int]) -> _Canvas:
    if image is None:
        return _Canvas(Image.new("RGB", size, style.EMPTY), f"cannot be opened\n{words.shortened(path.name, 24)}")
    return _Canvas(ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=style.PAPER))


def _draw_row(figure: Figure, grid: GridSpec, index: int, row: GalleryRow, canvases: Mapping[Path, _Canvas]) -> None:
    axes = figure.add_subplot(grid[index, 0])
    _show(axes, canvases[row.query.path], frame=style.INK)
    _say(axes, 0, words.shortened(row.query.label, 22), fontweight="bold")
    _say(axes, 0, words.shortened(row.note, 38), line=1, color=style.FAINT, fontsize=7.5)
    for column, neighbour in enumerate(row.neighbours[:_SHOWN]):
        _draw_neighbour(figure.add_subplot(grid[index, 2 + column]), neighbour, canvases[neighbour.path])


def _draw_neighbour(axes: Axes, neighbour: Picture, canvas: _Canvas) -> None:
    mark, colour = style.VERDICTS[neighbour.right]
    _show(axes, canvas, frame=colour)
    _say(axes, 0, mark, color=colour, fontweight="bold", fontsize=style.NORMAL)
    _say(axes, 0.1 if mark else 0, words.shortened(neighbour.label, 15))
    if neighbour.similarity is not None:
        _say(axes, 1, words.signed(f"{neighbour.similarity:.3f}"), color=style.FAINT, ha="right")


def _show(axes: Axes, canvas: _Canvas, frame: str) -> None:
    axes.imshow(canvas.image)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=frame, linewidth=2.5)
    middle = (canvas.image.width / 2, canvas.image.height / 2)
    axes.text(*middle, style.plain(canvas.fault), fontsize=7.5, color=style.FAINT, ha="center", va="center")


def _say(axes: Axes, x: float | int, text: str, line: int = 0, **look: Any) -> None:
    """Text under a picture: ``x`` as a fraction of its width, ``line`` counted downwards."""
    look = dict[str, Any](fontsize=style.SMALL, color=style.INK) | look
    below = (0, -13 - 11 * line)
    axes.annotate(style.plain(text), (x, 0), below, xycoords="axes fraction", textcoords="offset points", **look)


def draw_homes(rows: Sequence[HomeRow], title: str, path: Path, open_image: OpenImage) -> None:
    """Draw each half of a home, its other half, and the homes found, each as a few pictures side by side.

    Args:
        rows: One or more, with as many homes found in each. Of a home three pictures are shown.
        title, path, open_image: As of ``draw_gallery``.

    Raises:
        ValueError: If there is no row.
    """
    style.save(_homes(rows, title, open_image), path)


def _homes(rows: Sequence[HomeRow], title: str, open_image: OpenImage) -> Figure:
    if not rows:
        raise ValueError("rows is empty: a figure of homes needs at least one query")
    shown = [[row.query, row.other, *row.nearest] for row in rows]
    canvases = _canvases([path for homes in shown for home in homes for path in _some(home)], open_image)
    one, slots = next(iter(canvases.values())).image, max(len(_some(home)) for homes in shown for home in homes)
    figure, grid = _page_of_homes(len(rows), len(shown[0]), slots, title, one.height / one.width)
    heads = ["half of a home", "its other half", *(f"nearest {i}" for i in range(1, len(shown[0]) - 1))]
    for line, (row, homes) in enumerate(zip(rows, shown, strict=True)):
        for group, (home, head) in enumerate(zip(homes, heads, strict=True)):
            cells = [figure.add_subplot(grid[line, group * (slots + 1) + slot]) for slot in range(len(_some(home)))]
            _draw_home(cells, home, canvases, style.INK if group < 2 else style.VERDICTS[home.right][1])
            if not line:
                cells[0].set_title(head, fontsize=style.SMALL, color=style.FAINT, pad=5, loc="left")
            if not group:
                _say(cells[0], 0, words.shortened(row.note, 38), line=1, color=style.FAINT, fontsize=7.5)
    return figure


def _some(home: HomePictures) -> Sequence[Path]:
    return home.paths[:_MOST_OF_A_HOME]


def _page_of_homes(rows: int, groups: int, slots: int, title: str, shape: float) -> tuple[Figure, GridSpec]:
    """A figure and its grid: each home's columns, a gap behind them; a picture is ``shape`` times as high as wide."""
    ratios = [*[*[1.0] * slots, _BESIDE_HOME] * groups][:-1]
    high = _WIDE_OF_A_HOME * shape
    width, height = sum(ratios) * 1.03 * _WIDE_OF_A_HOME, rows * (high + _TEXT) + _ABOVE
    figure = style.new_figure(width, height)
    figure.set_layout_engine("none")
    figure.text(0.012, 1 - 0.24 / height, style.plain(title), fontsize=style.LARGE, fontweight="bold", va="center")
    grid = figure.add_gridspec(rows, len(ratios), width_ratios=ratios)
    grid.update(left=0.012, right=0.988, top=1 - _ABOVE / height, bottom=_TEXT / height)
    grid.update(wspace=0.04, hspace=_TEXT / high)
    return figure, grid


def _draw_home(cells: Sequence[Axes], home: HomePictures, canvases: Mapping[Path, _Canvas], frame: str) -> None:
    for axes, path in zip(cells, home.paths, strict=False):
        _show(axes, canvases[path], frame)
    more = f" ({len(cells)} of {len(home.paths)})" if len(home.paths) > len(cells) else ""
    mark, colour = style.VERDICTS[home.right]
    _say(cells[0], 0, mark, color=colour, fontweight="bold", fontsize=style.NORMAL)
    _say(cells[0], 0.12 if mark else 0, words.shortened(home.name, 22) + more)
    if home.similarity is not None:
        _say(cells[-1], 1, words.signed(f"{home.similarity:.3f}"), color=style.FAINT, ha="right")
