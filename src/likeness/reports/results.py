"""What a run leaves for people: queries as a table, figures, and one table in the terminal."""

import csv
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor

from likeness.console import terminal
from likeness.features.extraction import Bad
from likeness.files import write_atomic
from likeness.images.table import ImageTable
from likeness.reports.choice import evenly
from likeness.reports.confusion import votes_table
from likeness.reports.gallery import GalleryRow, Picture, draw_gallery
from likeness.reports.projection import draw_projection, project
from likeness.reports.rejection import rejection_table
from likeness.reports.scoreboard import run_line, run_table
from likeness.retrieval.metric import Scores

log = logging.getLogger(__name__)

_NEAREST = 5
_GALLERY_ROWS = 6

OpenImage = Callable[[Path], Image]


def write_queries(scores: Mapping[str, Mapping[str, Scores]], table: ImageTable, path: Path) -> None:
    """``queries.csv``: a row for each query of each split, with its rank and its five nearest neighbours.

    Args:
        scores: By split and method; of every baseline the same queries, in the same order, as of ``head``.

    ``rank`` is that of the first neighbour of the query's class: empty where it has no such neighbour to find
    (``skipped`` is then 1), 0 where its code is zero and it finds nothing. Each baseline has its rank as well, the
    neighbours are the head's.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    nearest = [f"{column}_{i}" for i in range(1, _NEAREST + 1) for column in ("path", "label", "similarity")]
    others = list(dict.fromkeys(name for found in scores.values() for name in found if name != "head"))
    ranks = ["rank", *(f"{name}_rank" for name in others)]
    writer.writerow(["split", "sample_id", "path", "label", "home", "skipped", *ranks, *nearest])
    for split, found in scores.items():
        ranked = torch.stack([found[name].rank for name in ("head", *others)], 1)
        writer.writerows(_query_rows(split, found["head"], ranked.tolist(), table))
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _query_rows(split: str, scores: Scores, ranks: list[list[int]], table: ImageTable) -> Iterator[list[Any]]:
    at = _Places(table)
    columns = (scores.sample_ids, scores.skipped, scores.similarities[:, :_NEAREST])
    places = (at.each(scores.sample_ids), at.each(scores.neighbour_ids[:, :_NEAREST]))
    rows = zip(*(column.tolist() for column in columns), *places, ranks, strict=True)
    for sample, skipped, similarities, query, neighbours, rank in rows:
        home = table.home_names[table.homes[query]] if table.homes[query] >= 0 else ""
        facts = [split, sample, table.paths[query], at.label(query), home, int(skipped)]
        shown = [""] * len(rank) if skipped else rank
        yield [*facts, *shown, *_nearest_cells(neighbours, similarities, at, table)]


def _nearest_cells(places: list[int], similarities: list[float], at: "_Places", table: ImageTable) -> Iterator[Any]:
    for place, similarity in zip(places, similarities, strict=True):
        yield from ("", "", "") if place < 0 else (table.paths[place], at.label(place), f"{similarity:.6f}")


class _Places:
    """From a sample id to its row of the table."""

    def __init__(self, table: ImageTable) -> None:
        self._table = table

    def __call__(self, sample_id: int) -> int:
        return int(np.searchsorted(self._table.sample_ids, sample_id))

    def each(self, sample_ids: Int[Tensor, "..."]) -> list[Any]:
        """The rows of all of them, -1 for that of no neighbour."""
        ids = sample_ids.numpy()
        return np.where(ids < 0, -1, np.searchsorted(self._table.sample_ids, ids)).tolist()

    def label(self, row: int) -> str:
        label = self._table.labels[row]
        return self._table.classes[label] if label >= 0 else ""


def draw_neighbours(scores: Scores, table: ImageTable, title: str, folder: Path, open_image: OpenImage) -> None:
    """``neighbours_good.png`` and ``neighbours_worst.png``: queries beside their five nearest.

    Good queries are those whose nearest neighbours are right, taken evenly over the classes; the worst are those whose
    first right neighbour comes last.
    """
    counted = np.flatnonzero(~scores.skipped.numpy())
    rank = np.where(scores.rank[counted] > 0, scores.rank[counted], np.iinfo(np.int64).max)
    quality = scores.precision[counted].sum(1).numpy()
    worst = counted[np.lexsort((counted, -rank))][:_GALLERY_ROWS]
    good = evenly(counted[np.lexsort((counted, -quality))], scores.labels.numpy())[:_GALLERY_ROWS]
    for name, rows in (("good", good), ("worst", worst)):
        if len(rows):
            shown = [_gallery_row(scores, int(row), table) for row in rows]
            draw_gallery(shown, f"{title}: {name} queries", folder / f"neighbours_{name}.png", open_image)


def _gallery_row(scores: Scores, row: int, table: ImageTable) -> GalleryRow:
    at = _Places(table)
    query, label = at(int(scores.sample_ids[row])), int(scores.labels[row])
    neighbours = []
    for sample, similarity in zip(
        scores.neighbour_ids[row, :_NEAREST], scores.similarities[row, :_NEAREST], strict=True
    ):
        if sample >= 0:
            place = at(int(sample))
            right = bool(table.labels[place] == label)
            neighbours.append(Picture(table.path(place), at.label(place), float(similarity), right))
    rank = int(scores.rank[row])
    late = f"first right neighbour at rank {rank:,}" if rank > 1 else ""
    note = late if rank else "finds nothing: its code is zero"
    return GalleryRow(Picture(table.path(query), at.label(query)), neighbours, note)


def write_bad_images(bad: Iterable[Bad], path: Path) -> None:
    """``bad_images.csv``: every picture that the run went on without, and why."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["path", "label", "code", "cause"])
    writer.writerows([fault.path, fault.label, fault.code, fault.cause] for fault in bad)
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def draw_projections(
    panels: Mapping[str, Float[np.ndarray, "n _"]],
    labels: Int[np.ndarray, " n"],
    classes: Sequence[str],
    perplexity: float,
    folder: Path,
) -> dict[str, float]:
    """``projection.png``: t-SNE of each set of rows side by side; returns the Kullback-Leibler divergences."""
    projected = [(name, project(rows, perplexity)) for name, rows in panels.items()]
    draw_projection(projected, labels, classes, folder / "projection.png")
    return {name: projection.kl for name, projection in projected}


def show(metrics: Mapping[str, Any], folder: Path, brief: bool = False, by_class: bool = False) -> None:
    """The run's one table, and where the rest lies; one line when ``brief``, the last split's classes ``by_class``."""
    console = terminal()
    if brief:
        console.print(run_line(metrics), soft_wrap=True)
        return
    console.print(run_table(metrics))
    split, summary = list(metrics["splits"].items())[-1]
    if by_class and summary["n"]:
        console.print("", votes_table(split, summary), sep="\n")
    if "rejection" in metrics:
        console.print("", rejection_table(metrics["rejection"]), sep="\n")
    console.print(f"\nall of it: {folder}", soft_wrap=True)
    if (folder / "figures").is_dir():
        console.print(f"figures:   {folder / 'figures'}", soft_wrap=True)
    if (gallery := folder / "figures" / "gallery.html").exists():
        console.print(f"gallery:   {gallery}", soft_wrap=True)
