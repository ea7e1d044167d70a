"""Pictures in folders: which layout it is, what lies in it, and what its files contain."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from likeness.console import progress
from likeness.errors import LikenessError, listed
from likeness.images.ledger import Ledger
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

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
_EXPECTED = """Lay the images out as <root>/<class>/*.jpg
or as <root>/{train,val,test}/<class>/*.jpg (val or test may be missing).
Images without a class, if there are any, go to <root>/unlabelled/."""
_UNLABELLED_FOLDERS = tuple(name for name, split in SPLIT_NAMES.items() if split == UNLABELLED)
_FILES_A_TASK = 64
_SECONDS_UNTIL_SHOWN = 2.0


@dataclass(frozen=True)
class ImageFolder:
    """Pictures under one folder, one folder a class; below a class they may lie as deep as they like.

    Either ``root/{train,val,test}/class`` (``valid`` and ``validation`` are val; without val, a part of train becomes
    val) or ``root/class``, of which the three splits are drawn. ``root/unlabelled`` may stand beside both.

    Args:
        root: The folder.
        home_pattern: Regular expression searched in each file name. The home is its group ``home``, else its first
            group, else what it matches. Pictures of one home are never drawn into different splits.
        seed: Of the splits that are drawn.
        fractions: Of train, val and test where they are drawn; where only val is, its share among the first two.
        unlabelled: Whether the unlabelled pictures join the table (and so training).
        on_bad_image: Whether a picture that cannot be decoded ends the run or is left out and named.
        mostly_white: Pictures with a larger share of white pixels are left out; the thesis took 0.69.
    """

    root: str
    home_pattern: str | None = None
    seed: int = 0
    fractions: Sequence[float] = (0.6, 0.2, 0.2)
    unlabelled: bool = False
    on_bad_image: Literal["raise", "quarantine"] = "raise"
    mostly_white: float | None = None

    def __post_init__(self) -> None:
        refuse_faults(
            "the image folder",
            option_faults(self.home_pattern, self.fractions, self.on_bad_image, self.mostly_white),
        )

    def table(self) -> ImageTable:
        """Lists the folder. No picture is opened.

        Raises:
            LikenessError: DATA-MISSING, DATA-LAYOUT (with what was found and what was expected) or DATA-HOMES.
        """
        root = Path(self.root).expanduser().absolute()
        _refuse_no_folder(root)
        found = walk(root, skip=() if self.unlabelled else _UNLABELLED_FOLDERS)
        _say_what_was_skipped(found)
        return tabulate(root, with_homes(_rows(root, found), self.home_pattern), self.seed, self.fractions)


class Found(NamedTuple):
    """What lies under a folder; every path is relative, with forward slashes, and sorted."""

    images: list[str]
    folders: list[str]
    special: list[str]
    skipped: Counter[str]


def walk(root: Path, skip: Sequence[str] = ()) -> Found:
    """All pictures under ``root``, by extension. Hidden names are passed over, and ``skip`` at the top.

    Links are followed, but not back into a folder that they lie in. Pipes, sockets, devices, links to nothing and
    folders called like a picture are ``special``: nothing here opens them. Files cost no ``stat``.

    Raises:
        LikenessError: DATA-MISSING for a folder that cannot be listed.
    """
    found = Found([], [], [], Counter())
    pending: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while pending:
        folder, above = pending.pop()
        for entry in _entries(root, folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not entry.name.startswith(".") and path.lower() not in skip:
                pending += _sorted_in(found, entry, path, above)
    for column in found[:3]:
        column.sort()
    return found


def _entries(root: Path, folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(root / folder) as entries:
            yield from entries
    except OSError as error:
        raise LikenessError(
            "DATA-MISSING",
            f"{readable(root / folder)} cannot be listed.",
            where=readable(root),
            cause=readable(error),
            fix="Allow reading it, or move it out of the dataset.",
        ) from error


def _sorted_in(
    found: Found, entry: os.DirEntry[str], path: str, above: tuple[str, ...]
) -> list[tuple[str, tuple[str, ...]]]:
    """Puts one entry where it belongs; returns it if it is a folder to list, with the real folders it lies in."""
    extension = os.path.splitext(entry.name)[1].lower()
    kind = _kind(entry)
    if kind == "folder" and extension not in EXTENSIONS:
        real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
        if real not in above:
            found.folders.append(path)
            return [(path, (*above, real))]
        kind = "special"
    if kind != "file":
        found.special.append(path)
    elif extension in EXTENSIONS:
        found.images.append(path)
    else:
        found.skipped[extension or "(none)"] += 1
    return []


def _kind(entry: os.DirEntry[str]) -> Literal["file", "folder", "special"]:
    try:
        return "file" if entry.is_file() else "folder" if entry.is_dir() else "special"
    except OSError:  # a link that leads to itself
        return "special"


def _say_what_was_skipped(found: Found) -> None:
    if found.special:
        names = _in_a_line(found.special)
        log.warning("[DATA-SPECIAL] %d pipes, dead links and the like were not opened: %s", len(found.special), names)
    if found.skipped:
        kinds = ", ".join(f"{readable(kind)} {count}" for kind, count in found.skipped.most_common())
        log.info("skipped %d files: %s", found.skipped.total(), kinds)


def _rows(root: Path, found: Found) -> list[Row]:
    """Reads split and class out of the folders, by the layout that the top of ``root`` shows."""
    split_of = _split_folders(root, found)
    by_split = not set(split_of.values()) <= {UNLABELLED}
    placed = {path: _row(path, split_of, by_split) for path in found.images}
    rows = [row for row in placed.values() if row]
    if not any(row.label for row in rows):
        raise _layout_error(root, found, _why_no_class(root, found))
    if strays := [readable(path) for path, row in placed.items() if not row]:
        log.warning("[DATA-LAYOUT] %d images lie in no class and are left out (first: %s)", len(strays), strays[0])
    filled = {(row.split, row.label) for row in rows} | {("", name) for name in _UNLABELLED_FOLDERS}
    classes = [_row(f"{folder}/", split_of, by_split) for folder in found.folders if folder.count("/") == by_split]
    if empty := [row.path for row in classes if row and row.label and (row.split, row.label) not in filled]:
        log.warning("[DATA-CLASS] without images: %s", _in_a_line(empty))
    return rows


def _split_folders(root: Path, found: Found) -> dict[str, str]:
    """The top folders that are a split, and which; no more than the unlabelled where classes lie at the top."""
    tops = [folder for folder in found.folders if "/" not in folder]
    split_of = {top: SPLIT_NAMES[top.lower()] for top in tops if top.lower() in SPLIT_NAMES}
    splits = Counter(split for split in split_of.values() if split in SPLITS)
    if splits["train"] and len(splits) > 1:
        if max(splits.values()) > 1:
            raise _layout_error(root, found, "two folders stand for the same split.")
        return split_of
    if splits and len(split_of) == len(tops):
        raise _layout_error(root, found, "train/ and at least one of val/ and test/ are needed.")
    if splits:
        log.warning("[DATA-LAYOUT] read as classes, for train/ with val/ or test/ is not there: %s", _in_a_line(tops))
    return {top: split for top, split in split_of.items() if split == UNLABELLED}


def _row(path: str, split_of: dict[str, str], by_split: bool) -> Row | None:
    """None for a picture that lies in no class."""
    top, _, rest = path.partition("/")
    split = split_of.get(top, "") if rest else ""
    if split == UNLABELLED:
        return Row(path, "", split)
    label, is_inside, _ = (rest if by_split else path).partition("/")
    return Row(path, label, split) if is_inside and bool(split) == by_split else None


def _why_no_class(root: Path, found: Found) -> str:
    direct = sum("/" not in path for path in found.images)
    if direct:
        return f"{direct:,} images directly in {readable(root)}, and none in a folder of its class."
    return f"no image lies in a class folder of {readable(root)}."


def _layout_error(root: Path, found: Found, what: str) -> LikenessError:
    return LikenessError("DATA-LAYOUT", what, where=readable(root), cause=_tree(root, found), fix=_EXPECTED)


def _tree(root: Path, found: Found) -> str:
    """What lies at the top of ``root``, with the number of images below each folder."""
    tops = [folder for folder in found.folders if "/" not in folder]
    below = Counter(path.partition("/")[0] if "/" in path else "" for path in found.images)
    lines = [f"  {readable(top)}/ ({below[top]:,} images)" for top in tops]
    return f"found {readable(root)}/ ({below['']:,} images directly in it)\n{listed(lines or ['  no folders'])}"


def _refuse_no_folder(root: Path) -> None:
    if not root.is_dir():
        raise LikenessError(
            "DATA-MISSING",
            "the folder of images is a file." if root.exists() else "the folder of images does not exist.",
            where=readable(root),
            fix=_EXPECTED,
        )


def _in_a_line(names: Sequence[str]) -> str:
    return listed(map(readable, names)).replace(os.linesep, ", ")


def digests(files: Sequence[Path], workers: int, ledger: Ledger | None = None) -> UInt8[np.ndarray, "n 32"]:
    """SHA-256 of each file's bytes, read by ``workers`` threads, or as the ledger has noted it.

    Raises:
        LikenessError: DATA-CHANGED when files are gone, DATA-MISSING when they cannot be read; all of them are named.
    """
    parts = [files[start : start + _FILES_A_TASK] for start in range(0, len(files), _FILES_A_TASK)]
    rows: list[bytes | OSError] = []
    shown = progress("reading files", len(files), "files", _SECONDS_UNTIL_SHOWN)
    with ThreadPoolExecutor(workers) as pool, shown as advance:
        for some in pool.map(lambda part: [_digest(path, ledger) for path in part], parts):
            rows += some
            advance(len(some))
    _refuse_unread(files, rows)
    return np.frombuffer(b"".join(row for row in rows if isinstance(row, bytes)), np.uint8).reshape(-1, 32)


def _digest(path: Path, ledger: Ledger | None) -> bytes | OSError:
    try:
        if ledger:
            return ledger.digest(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        return error


def _refuse_unread(files: Sequence[Path], rows: Sequence[bytes | OSError]) -> None:
    faults = {path: row for path, row in zip(files, rows, strict=True) if isinstance(row, OSError)}
    if not faults:
        return
    gone = any(isinstance(error, FileNotFoundError) for error in faults.values())
    raise LikenessError(
        "DATA-CHANGED" if gone else "DATA-MISSING",
        f"{len(faults):,} of {len(files):,} files {'are gone since they were listed' if gone else 'cannot be read'}.",
        where=listed(map(readable, faults)),
        cause=readable(next(iter(faults.values()))),
        fix="Run again when nothing changes the folder any more." if gone else "Allow reading them, or move them out.",
    )


def report_duplicates(table: ImageTable, digests: UInt8[np.ndarray, "n 32"]) -> list[tuple[str, str]]:
    """Pictures with the same bytes: a warning for those in two splits, an info line for those within one.

    Returns:
        One pair of paths for each content and each two splits that it is in.
    """
    rows, content = _repeated(digests)
    names, split = np.unique(table.splits[rows], return_inverse=True)
    first = {name: np.unique(content[split == i], return_index=True) for i, name in enumerate(names.tolist())}
    paths = {name: table.paths[rows[split == i]][first[name][1]] for i, name in enumerate(names.tolist())}
    if copies := len(rows) - sum(map(len, paths.values())):
        log.info("%d images are exact copies of another in the same split", copies)
    pairs, said = [], []
    for one, other in combinations([name for name in (*SPLITS, UNLABELLED) if name in paths], 2):
        _, left, right = np.intersect1d(first[one][0], first[other][0], assume_unique=True, return_indices=True)
        if len(left):
            pairs += list(zip(paths[one][left].tolist(), paths[other][right].tolist(), strict=True))
            a, b = map(readable, pairs[-len(left)])
            said.append(
                f"{len(left)} image{'s are' if len(left) > 1 else ' is'} in both {one} and {other} (first: {a} = {b})"
            )
    if said:
        log.warning("[DATA-LEAK] %s", "; ".join(said))
    return pairs


def _repeated(digests: UInt8[np.ndarray, "n 32"]) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """The rows, ascending, whose content another row has as well, and a number for each content."""
    words = np.ascontiguousarray(digests).view(np.uint64)
    order = np.lexsort(words.T)
    is_new = np.ones(len(order), bool)
    is_new[1:] = (words[order][1:] != words[order][:-1]).any(1)
    content = np.empty(len(order), np.int64)
    content[order] = np.cumsum(is_new) - 1
    rows = np.flatnonzero(np.bincount(content)[content] > 1)
    return rows, content[rows]
