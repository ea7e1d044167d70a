"""Which pictures there are: one row each, in columns, whatever they were listed from."""

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from likeness.errors import LikenessError
from likeness.images.options import is_numbers, readable, refuse_faults
from likeness.images.splits import SPLITS, seeded_split

log = logging.getLogger(__name__)

UNLABELLED = "unlabelled"
SPLIT_NAMES = {"valid": "val", "validation": "val", "unlabeled": UNLABELLED} | {n: n for n in (*SPLITS, UNLABELLED)}


@dataclass(frozen=True)
class ImageTable:
    """The pictures of a dataset. Rows are sorted by path; a selection keeps every row's ``sample_ids``.

    Attributes:
        root: What ``paths`` are relative to.
        paths: str objects with forward slashes, distinct. Bytes that are not UTF-8 are kept by surrogates.
        labels: Index into ``classes``; -1 is unlabelled.
        splits: train, val, test or unlabelled.
        homes: Index into ``home_names``; -1 is unknown, and such a picture is a home of its own.
        is_query, is_gallery: Whether a picture asks, and whether it can be found. All True unless a manifest says so.
        sample_ids: Position among all paths of the dataset.
    """

    root: Path
    paths: Shaped[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    splits: Shaped[np.ndarray, " n"]
    homes: Int64[np.ndarray, " n"]
    home_names: tuple[str, ...]
    is_query: Bool[np.ndarray, " n"]
    is_gallery: Bool[np.ndarray, " n"]
    sample_ids: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Shaped[np.ndarray, " m"]) -> "ImageTable":
        """The rows of a mask or of indices. Classes and home names stay, so that a label means the same everywhere."""
        names = ("paths", "labels", "splits", "homes", "is_query", "is_gallery", "sample_ids")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def of_split(self, name: str) -> "ImageTable":
        return self.take(self.splits == name)

    def path(self, row: int) -> Path:
        return self.root / self.paths[row]

    def files(self) -> list[Path]:
        return [self.root / path for path in self.paths]


class Row(NamedTuple):
    """One picture as it was listed. "" stands for: no label, a split still to be drawn, an unknown home."""

    path: str
    label: str
    split: str
    home: str = ""
    is_query: bool = True
    is_gallery: bool = True


def tabulate(root: Path, rows: Iterable[Row], seed: int, fractions: Sequence[float]) -> ImageTable:
    """Sorts, numbers classes and homes, and draws the splits that are missing: all of them, or val out of train.

    Raises:
        LikenessError: DATA-LAYOUT when fewer than two classes are left to tell apart.
    """
    rows = sorted(rows)
    classes, labels = numbered([row.label for row in rows])
    home_names, homes = numbered([row.home for row in rows])
    _refuse_single_class(root, classes)
    table = ImageTable(
        root=root,
        paths=np.array([row.path for row in rows], dtype=object),
        labels=labels,
        classes=classes,
        splits=np.array([row.split for row in rows], dtype=f"<U{len(UNLABELLED)}"),
        homes=homes,
        home_names=home_names,
        is_query=np.array([row.is_query for row in rows], dtype=bool),
        is_gallery=np.array([row.is_gallery for row in rows], dtype=bool),
        sample_ids=np.arange(len(rows)),
    )
    _draw_splits(table, seed, fractions)
    _warn_of_names_alike(classes)
    _warn_of_lonely_classes(table)
    _warn_of_shared_homes(table)
    return table


def numbered(values: Sequence[str]) -> tuple[tuple[str, ...], Int64[np.ndarray, " n"]]:
    """The distinct values in order, and the number of each among them; "" is none of them and has -1."""
    names = tuple(sorted(set(values) - {""}))
    number = {name: i for i, name in enumerate(names)} | {"": -1}
    return names, np.array([number[value] for value in values], dtype=np.int64)


def _refuse_single_class(root: Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise LikenessError(
            "DATA-LAYOUT",
            f"{len(classes)} class{'es' * (not classes)} with images, at least 2 are needed.",
            where=readable(root),
            cause=f"the only class is {readable(classes[0])!r}" if classes else "no image has a label",
            fix="Give each kind of picture its own folder, or its own label in the manifest.",
        )


def _draw_splits(table: ImageTable, seed: int, fractions: Sequence[float]) -> None:
    """Fills the empty splits in place."""
    drawn = np.flatnonzero(table.splits == "")
    if len(drawn):
        table.splits[drawn] = np.array(SPLITS)[_parts(table, drawn, fractions, seed)]
    elif not (table.splits == "val").any():
        train = np.flatnonzero(table.splits == "train")
        val = train[_parts(table, train, fractions[:2], seed) == 1]
        table.splits[val] = "val"
        log.info("[DATA-SPLIT] no val: %d of %d train images become val (seed %d)", len(val), len(train), seed)


def _parts(
    table: ImageTable, rows: Int64[np.ndarray, " m"], fractions: Sequence[float], seed: int
) -> Int64[np.ndarray, " m"]:
    some = table.take(rows)
    return seeded_split(some.paths.tolist(), some.labels, some.homes, some.home_names, fractions, seed)


def _warn_of_names_alike(classes: Sequence[str]) -> None:
    """Two folders here, and one on a disk that does not tell case, or composed accents, apart."""
    spelled: dict[str, list[str]] = {}
    for name in classes:
        spelled.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(repr(readable(name)))
    if alike := [" and ".join(names) for names in spelled.values() if len(names) > 1]:
        log.warning("[DATA-CLASS] classes of their own, though only case or accents differ: %s", ", ".join(alike))


def _warn_of_lonely_classes(table: ImageTable) -> None:
    counts = {split: np.bincount(_labels_of(table, split), minlength=len(table.classes)) for split in SPLITS}
    for split, of_class in counts.items():
        if lonely := _named(table, of_class == 1):
            log.warning(
                "[DATA-CLASS] in %s, 1 image each of %s: it can never be retrieved; "
                "counted as no partner, not as a miss",
                split,
                lonely,
            )
        if new := _named(table, (of_class > 0) & (counts["train"] == 0)):
            log.warning("[DATA-CLASS] in %s but not in train: %s", split, new)


def _named(table: ImageTable, is_meant: Bool[np.ndarray, " classes"]) -> str:
    return ", ".join(f'"{readable(table.classes[i])}"' for i in np.flatnonzero(is_meant))


def _labels_of(table: ImageTable, split: str) -> Int64[np.ndarray, " m"]:
    return table.labels[(table.splits == split) & (table.labels >= 0)]


def _warn_of_shared_homes(table: ImageTable) -> None:
    homes = {split: np.unique(table.homes[(table.splits == split) & (table.homes >= 0)]) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        if len(both := np.intersect1d(homes[one], homes[other], assume_unique=True)):
            first = readable(table.home_names[both[0]])
            log.warning("[DATA-LEAK] homes in both %s and %s: %d (first: %s)", one, other, len(both), first)


def with_homes(rows: Sequence[Row], pattern: str | None) -> Sequence[Row]:
    """The rows with the home that each file name says; the rows as they are without a pattern.

    The home is the group called ``home``, else the first group, else the whole match.

    Raises:
        LikenessError: DATA-HOMES when the pattern is found in no file name at all; CONFIG when it is no pattern.
    """
    refuse_faults("the pictures", [_pattern_fault(pattern)])
    if pattern is None or not rows:
        return rows
    housed = [row._replace(home=home_of(row.path, pattern)) for row in rows]
    homeless = [readable(row.path) for row in housed if not row.home]
    if len(homeless) == len(rows):
        raise LikenessError(
            "DATA-HOMES",
            f"home_pattern is found in none of {len(rows):,} file names.",
            where=f"home_pattern={pattern!r}",
            cause=f"a file name is {homeless[0].rpartition('/')[2]!r}",
            fix="Change home_pattern so that it finds the home in the file name, or leave it out.",
        )
    if homeless:
        log.warning(
            "[DATA-HOMES] %d files have no home (first: %s); each is a home of its own", len(homeless), homeless[0]
        )
    return housed


def home_of(path: str, pattern: str) -> str:
    """The home that the name of a file says, as in :func:`with_homes`; "" where it says none."""
    match = re.search(pattern, path.rpartition("/")[2])
    if match is None:
        return ""
    key = "home" if "home" in match.groupdict() else 1 if match.re.groups else 0
    return match[key] or ""


def option_faults(
    home_pattern: str | None, fractions: Sequence[float], on_bad_image: str, mostly_white: float | None
) -> Iterable[str | None]:
    """What is wrong with the options that every dataset has."""
    yield _pattern_fault(home_pattern)
    fit = is_numbers(fractions, len(SPLITS)) and min(fractions) > 0 and abs(sum(fractions) - 1) < 1e-6
    yield None if fit else f"fractions: three numbers above 0 (train, val, test) with the sum 1, not {fractions!r}"
    yield (
        None if on_bad_image in ("raise", "quarantine") else f"on_bad_image: raise or quarantine, not {on_bad_image!r}"
    )
    if mostly_white is not None and not 0 < mostly_white <= 1:
        yield f"mostly_white: a share above 0, up to 1, not {mostly_white}"


def _pattern_fault(pattern: str | None) -> str | None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        return f"home_pattern: {pattern!r} is no regular expression: {error}"
    return None
