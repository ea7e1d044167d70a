"""Pictures that are named one by one or by folder: as a table, whatever their classes are, with or without any."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from likeness.errors import LikenessError, listed
from likeness.images.folder import EXTENSIONS, walk
from likeness.images.options import readable
from likeness.images.table import UNLABELLED, ImageTable, Row, numbered, with_homes


def list_pictures(
    places: Sequence[Path], *, label: str | None = None, home_pattern: str | None = None, home: str | None = None
) -> ImageTable:
    """The pictures that ``places``, files and folders, name. No picture is opened; a file that comes twice counts once.

    The label of a picture is the name of the first folder below the place that it was found in, as in ``ImageFolder``;
    a picture named as a file, or directly in its place, has none.

    Args:
        label: Of all of them, whatever their folders are.
        home_pattern: As of ``ImageFolder``: searched in each file name.
        home: Of all of them.

    Raises:
        LikenessError: DATA-MISSING when a place is not there, DATA-LAYOUT when there is no picture in any, DATA-HOMES.
    """
    places = [Path(os.path.abspath(place.expanduser())) for place in places]
    _refuse_missing(places)
    labels = {path: found for place in places for path, found in _labelled(place)}
    if not labels:
        raise LikenessError(
            "DATA-LAYOUT",
            "there is no picture.",
            where=listed(map(readable, places)),
            cause=f"A picture is a file that ends in {', '.join(sorted(EXTENSIONS))}.",
            fix="Name files, or a folder with pictures in it.",
        )
    root = Path(os.path.commonpath([path.parent for path in labels]))
    rows = [
        Row(path.relative_to(root).as_posix(), found if label is None else label, UNLABELLED, home or "")
        for path, found in labels.items()
    ]
    return _table(root, sorted(rows if home else with_homes(rows, home_pattern)))


def _refuse_missing(places: Sequence[Path]) -> None:
    if missing := [readable(place) for place in places if not place.exists()]:
        raise LikenessError(
            "DATA-MISSING",
            f"{len(missing)} of {len(places)} files and folders are not there.",
            where=listed(missing),
            fix="Name files and folders that are there.",
        )


def _labelled(place: Path) -> Iterable[tuple[Path, str]]:
    if not place.is_dir():
        return [(place, "")]
    return [(place / path, path.partition("/")[0] if "/" in path else "") for path in walk(place).images]


def _table(root: Path, rows: Sequence[Row]) -> ImageTable:
    classes, labels = numbered([row.label for row in rows])
    home_names, homes = numbered([row.home for row in rows])
    return ImageTable(
        root=root,
        paths=np.array([row.path for row in rows], dtype=object),
        labels=labels,
        classes=classes,
        splits=np.full(len(rows), UNLABELLED),
        homes=homes,
        home_names=home_names,
        is_query=np.ones(len(rows), bool),
        is_gallery=np.ones(len(rows), bool),
        sample_ids=np.arange(len(rows)),
    )
