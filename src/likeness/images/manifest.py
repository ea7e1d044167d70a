"""Pictures in a CSV file: one line each, with what is known about it."""

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from likeness.errors import LikenessError, listed
from likeness.images.options import readable, refuse_faults
from likeness.images.splits import SPLITS
from likeness.images.table import (
    SPLIT_NAMES,
    UNLABELLED,
    ImageTable,
    Row,
    option_faults,
    tabulate,
    with_homes,
)

log = logging.getLogger(__name__)

_REQUIRED = ("path", "label")
_ROLES = ("is_query", "is_gallery")
_COLUMNS = (*_REQUIRED, "split", "home", *_ROLES)
_UNLABELLED_WORDS = ("", *(word for word, split in SPLIT_NAMES.items() if split == UNLABELLED))
_TRUTH = {"": True, "true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


@dataclass(frozen=True)
class ImageManifest:
    """Pictures named by a CSV file (UTF-8, commas, a header line).

    Columns: ``path`` (relative to ``root``, or absolute) and ``label``, both required; ``split`` (train, val, test,
    unlabelled; drawn when the column is missing), ``home``, ``is_query`` and ``is_gallery`` (True, False, or empty for
    True). An empty label makes a row unlabelled.

    Files of open-metric-learning are read as they are. They know ``train`` and ``validation``, and their scores are
    those of ``validation``: so, in a file with ``is_query`` or ``is_gallery`` and no other split, ``validation`` is
    test, and val is drawn from train. Everywhere else ``validation`` is val.

    Args:
        manifest: The CSV file.
        root: What relative paths are relative to; the CSV file's folder when left out.
        home_pattern, seed, fractions, unlabelled, on_bad_image, mostly_white: As for
            :class:`likeness.images.folder.ImageFolder`. ``home_pattern`` is for a file without a ``home`` column.
    """

    manifest: str
    root: str | None = None
    home_pattern: str | None = None
    seed: int = 0
    fractions: Sequence[float] = (0.6, 0.2, 0.2)
    unlabelled: bool = False
    on_bad_image: Literal["raise", "quarantine"] = "raise"
    mostly_white: float | None = None

    def __post_init__(self) -> None:
        refuse_faults(
            "the image manifest",
            option_faults(self.home_pattern, self.fractions, self.on_bad_image, self.mostly_white),
        )

    def table(self) -> ImageTable:
        """Reads the file and looks whether each picture is there. No picture is opened.

        Raises:
            LikenessError: DATA-MISSING, DATA-MANIFEST (every faulty line, with its number), DATA-HOMES, DATA-LAYOUT.
        """
        manifest = Path(self.manifest).expanduser().absolute()
        root = Path(self.root).expanduser().absolute() if self.root else manifest.parent
        header, lines = _read(manifest)
        if self.home_pattern and "home" in header:
            refuse_faults("the image manifest", [f"home_pattern: {manifest.name} has a column home already"])
        rows, faults = _parse(header, lines, root)
        faults += _split_faults(rows) if "split" in header and not faults else []
        if faults:
            raise _manifest_error(manifest, faults)
        kept = [row for row in rows if row.label or self.unlabelled]
        return tabulate(root, with_homes(kept, self.home_pattern), self.seed, self.fractions)


class Line(NamedTuple):
    """``width`` cells, of which those under a column are in ``cells``."""

    number: int
    width: int
    cells: dict[str, str]


def _read(manifest: Path) -> tuple[list[str], list[Line]]:
    """The header and every line that is not blank, by column.

    Raises:
        LikenessError: When there is no such file, or when it is no CSV with the required columns.
    """
    try:
        with open(manifest, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if faults := list(_header_faults(header)):
                raise _manifest_error(manifest, faults)
            return header, [
                Line(reader.line_num, len(cells), dict(zip(header, cells, strict=False))) for cells in reader if cells
            ]
    except OSError as error:
        raise LikenessError(
            "DATA-MISSING",
            "the manifest cannot be read.",
            where=readable(manifest),
            cause=readable(error),
            fix="Set manifest to a CSV file with the columns path and label.",
        ) from error
    except csv.Error as error:
        raise _manifest_error(manifest, [f"line {reader.line_num}: {error}"]) from error


def _header_faults(header: Sequence[str]) -> Iterator[str]:
    missing = [name for name in _REQUIRED if name not in header]
    if missing and len(header) == 1 and ";" in header[0]:
        yield "line 1: separated by semicolons; commas are expected"
    elif missing:
        yield f"line 1: no column {' and '.join(missing)}; found {', '.join(map(readable, header)) or 'nothing'}"
    if twice := [name for name, count in Counter(header).items() if count > 1 and name in _COLUMNS]:
        yield f"line 1: more than one column {', '.join(twice)}"
    if unread := [readable(name) for name in header if name not in _COLUMNS]:
        log.info("columns of the manifest that are not read: %s", ", ".join(unread))


def _splits_of(header: Sequence[str], lines: Sequence[Line]) -> dict[str, str]:
    """What each word in the column split stands for; see the class for open-metric-learning's ``validation``."""
    words = {line.cells.get("split", "").lower() for line in lines}
    if set(_ROLES) & set(header) and "validation" in words and words <= {"train", "validation", *_UNLABELLED_WORDS}:
        log.info("[DATA-SPLIT] is_query or is_gallery in the header: validation is read as test")
        return {**SPLIT_NAMES, "validation": "test"}
    return SPLIT_NAMES


def _parse(header: Sequence[str], lines: Sequence[Line], root: Path) -> tuple[list[Row], list[str]]:
    """The rows, and what is wrong with which line."""
    split_of = _splits_of(header, lines)
    rows: list[Row] = []
    faults: list[str] = []
    first_line: dict[str, int] = {}
    for line in lines:
        row = _row(line.cells, split_of, root)
        wrong = [f"{line.width} cells, the header has {len(header)}"] if line.width != len(header) else []
        wrong = wrong or [*_file_faults(row.path, first_line, root), *_cell_faults(line.cells, split_of)]
        faults += [f"line {line.number}: {fault}" for fault in wrong]
        first_line.setdefault(row.path, line.number)
        rows.append(row)
    return rows, faults


def _row(cells: dict[str, str], split_of: dict[str, str], root: Path) -> Row:
    path = os.path.normpath(cells["path"]) if cells.get("path") else ""
    if os.path.isabs(path) and Path(path).is_relative_to(root):
        path = os.path.relpath(path, root)
    label, split = cells.get("label", "").strip(), split_of.get(_word(cells, "split"), "")
    if not label or split == UNLABELLED:
        label, split = "", UNLABELLED
    is_query, is_gallery = (_TRUTH.get(_word(cells, role), True) for role in _ROLES)
    return Row(path, label, split, cells.get("home", "").strip(), is_query, is_gallery)


def _word(cells: dict[str, str], column: str) -> str:
    return cells.get(column, "").strip().lower()


def _file_faults(path: str, first_line: dict[str, int], root: Path) -> Iterator[str]:
    if not path:
        yield "no path"
    elif path in first_line:
        yield f"{readable(path)} again, first in line {first_line[path]}"
    elif not os.path.isfile(root / path):
        yield f"no such file: {readable(path)}"


def _cell_faults(cells: dict[str, str], split_of: dict[str, str]) -> Iterator[str]:
    split = _word(cells, "split")
    if "split" in cells and split not in split_of and (split or cells["label"].strip()):
        yield f"split {readable(cells['split'])!r} is none of {', '.join((*SPLITS, UNLABELLED))}"
    for role in _ROLES:
        if _word(cells, role) not in _TRUTH:
            yield f"{role} {readable(cells[role])!r} is neither True nor False"


def _split_faults(rows: Sequence[Row]) -> list[str]:
    there = {row.split for row in rows} - {UNLABELLED}
    if "train" in there and len(there) > 1:
        return []
    return [f"column split: train and one of val and test are needed, found {', '.join(sorted(there)) or 'none'}"]


def _manifest_error(manifest: Path, faults: Sequence[str]) -> LikenessError:
    return LikenessError(
        "DATA-MANIFEST",
        f"{len(faults):,} fault{'s' * (len(faults) > 1)} in the manifest.",
        where=f"{readable(manifest)}\n{listed(faults, most=20)}",
        fix="Mend the lines named above. Columns: path, label; and, if known, split, home, is_query, is_gallery.",
    )
