"""Many maps of the same pictures, and their Kullback-Leibler divergences beside the hits that these need not follow."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from likeness.console import terminal
from likeness.files import write_atomic
from likeness.reports import style, words
from likeness.reports.projection import FOOTNOTE, WIDTH_BEFORE_TSNE, Projection, crowd, draw_legend, scatter
from likeness.reports.tables import table, titled
from likeness.retrieval.significance import Interval

_COLUMNS = ("split", "rows", "perplexity", "method", "kl", "hit@1", "hit@1_low", "hit@1_high", "labelled", "code_width")
_NOTE = (
    "KL, in nats, says what a map loses of its own input: between different inputs it is not a score, and need not "
    "rank as hit@1 does. Maps are of the rows, hit@1 of the whole split; the head was trained on train."
)
_SAME_INPUT = (
    f"t-SNE takes frozen and PCA alike by their first {WIDTH_BEFORE_TSNE} principal components: their KLs are close, "
    "whatever their hits."
)
_DRAWN = {"frozen": "features", "head": "codes"}
_UNIT = ", t-SNE; hit@1 in percent with 95 % intervals"
_SIDE, _NAMES, _NARROWEST = 3.4, 2.2, 6.0  # inches
_NAMES_IN_A_COLUMN = 30


@dataclass(frozen=True)
class Drawn:
    """Which pictures a map is of: ``rows`` of the ``labelled`` pictures of a split."""

    split: str
    rows: int
    labelled: int

    def __str__(self) -> str:
        return f"{self.split}: {self.counted} labelled pictures"

    @property
    def counted(self) -> str:
        """``1,071``, or ``2,000 of 3,210`` where they are a sample."""
        return f"{self.rows:,}" + (f" of {self.labelled:,}" if self.rows < self.labelled else "")


@dataclass(frozen=True)
class Method:
    """The maps of one method, one for each perplexity, and its hit@1 on the whole split; None where none is counted."""

    name: str
    code_width: int
    maps: Sequence[Projection]
    hit: Interval | None


Found = Mapping[Drawn, Sequence[Method]]


def draw_grid(
    methods: Sequence[Method], labels: Int[np.ndarray, " n"], classes: Sequence[str], title: str, path: Path
) -> None:
    """Features above codes, a column for each perplexity; one colour a class, one legend for all.

    Args:
        methods: ``frozen`` and ``head``; others among them have no row.
        labels: Class index of each row of every map.
        path: Where the figure goes; its suffix is the format.
    """
    style.save(_grid(methods, labels, classes, title), path)


def _grid(methods: Sequence[Method], labels: Int[np.ndarray, " n"], classes: Sequence[str], title: str) -> Figure:
    named = {method.name: method for method in methods}
    across = len(methods[0].maps)
    beside = 1 + len(classes) // _NAMES_IN_A_COLUMN
    figure = style.new_figure(max(_NARROWEST, _SIDE * across + _NAMES * beside), _SIDE * len(_DRAWN) + 1.8)
    panels = figure.subplots(len(_DRAWN), across, squeeze=False)
    for line, (name, rows) in zip(panels, _DRAWN.items(), strict=True):
        line[0].set_ylabel(f"{rows}, {named[name].code_width:,} numbers", fontsize=style.NORMAL, color=style.INK)
        for axes, projection in zip(line, named[name].maps, strict=True):
            style.headline(axes, f"perplexity {projection.perplexity:.4g} · KL {projection.kl:.2f}")
            scatter(axes, projection.xy, labels)
    told = "\n".join(filter(None, (title, crowd(classes))))
    figure.suptitle(style.plain(told), fontsize=style.LARGE, color=style.INK)
    draw_legend(figure, classes, "outside right center", beside)
    figure.supxlabel(FOOTNOTE, fontsize=7.5, color=style.FAINT)
    return figure


def write_divergences(found: Found, title: str, folder: Path) -> None:
    """``kl.csv``, a row for each map, and ``kl.md``, the table of the terminal for a report."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows(_csv_rows(found))
    write_atomic(folder / "kl.csv", text.getvalue().encode())
    write_atomic(folder / "kl.md", _markdown(found, title).encode())


def _csv_rows(found: Found) -> Iterator[list[object]]:
    for drawn, methods in found.items():
        for method in methods:
            hit = method.hit or ("", "", "")
            for projection in method.maps:
                facts = [drawn.split, drawn.rows, projection.perplexity, method.name, projection.kl]
                yield [*facts, *hit, drawn.labelled, method.code_width]


def show_divergences(found: Found, title: str, folder: Path) -> None:
    """The table in the terminal, and where the maps lie."""
    console = terminal()
    console.print(divergence_table(found, title))
    console.print(f"\nmaps, kl.csv, kl.md: {folder}", soft_wrap=True)


def divergence_table(found: Found, title: str) -> Group:
    """KL by split, method and perplexity, hit@1 beside it, and who is first by the one and by the other."""
    shown = table(["split", "method"], ["rows", "hit@1", *(f"KL at\n{each}" for each in _perplexities(found))])
    for cells in _lines(found):
        shown.add_row(*cells)
    firsts = [Text(line) for line in _firsts(found)]
    return Group(titled(title, _UNIT, shown), Text(), *firsts, Text(_note(found), "dim"))


def _markdown(found: Found, title: str) -> str:
    heads = ["split", "method", "rows", "hit@1", *(f"KL at perplexity {each}" for each in _perplexities(found))]
    lines = [heads, ["---"] * len(heads), *_lines(found)]
    told = "".join(f"- {line}\n" for line in _firsts(found))
    shown = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{title}{_UNIT}\n\n{shown}\n{told}\n{_note(found)}\n"


def _note(found: Found) -> str:
    widths = {method.name: method.code_width for methods in found.values() for method in methods}
    return f"{_NOTE} {_SAME_INPUT}" if widths.get("pca", 0) >= WIDTH_BEFORE_TSNE else _NOTE


def _perplexities(found: Found) -> list[str]:
    methods = next(iter(found.values()))
    return [f"{projection.perplexity:.4g}" for projection in methods[0].maps]


def _lines(found: Found) -> Iterator[list[str]]:
    for drawn, methods in found.items():
        for method in methods:
            hit = _interval(method.hit)
            divergences = (f"{projection.kl:.2f}" for projection in method.maps)
            yield [drawn.split, words.METHODS[method.name], drawn.counted, hit, *divergences]


def _interval(hit: Interval | None) -> str:
    return f"{words.percent(hit.value)} [{words.percent(hit.low)}–{words.percent(hit.high)}]" if hit else words.NONE


def _firsts(found: Found) -> Iterator[str]:
    """``test: highest hit@1: PCA; lowest KL: head (5, 20), frozen (50)``, a line for each split."""
    for drawn, methods in found.items():
        lowest: dict[str, list[str]] = {}
        for column, perplexity in enumerate(_perplexities(found)):
            for name in _least((method.name, method.maps[column].kl) for method in methods):
                lowest.setdefault(name, []).append(perplexity)
        least = ", ".join(f"{words.METHODS[name]} ({', '.join(at)})" for name, at in lowest.items())
        hits = _least((method.name, -method.hit.value) for method in methods if method.hit)
        best = ", ".join(words.METHODS[name] for name in hits) or words.NONE
        yield f"{drawn.split}: highest hit@1: {best}; lowest KL (perplexity): {least}"


def _least(values: Iterable[tuple[str, float]]) -> list[str]:
    """The names that have the least value: several where they are tied."""
    known = dict(values)
    return [name for name, value in known.items() if value == min(known.values())]
