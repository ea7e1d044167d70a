"""What a query found, as a table, as plain values, or as a picture."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Group
from rich.text import Text

from likeness.finding import Finder, Found, HomeMatch, Match
from likeness.images.options import readable
from likeness.reports.gallery import GalleryRow, Picture, draw_gallery
from likeness.reports.tables import table

_A_ROW = 5


def as_json(found: Found) -> dict[str, Any]:
    """Plain values; without thumbnails."""
    nearest = found.nearest if found.nearest == found.nearest else None
    return {
        "known": found.known,
        "nearest": nearest,
        "threshold": found.threshold,
        "milliseconds": {name: round(value, 3) for name, value in found.milliseconds.items()},
        "matches": [_plain(match) for match in found.matches],
    }


def _plain(match: Match | HomeMatch) -> dict[str, Any]:
    if isinstance(match, HomeMatch):
        return {**match._asdict(), "pictures": [_plain(picture) for picture in match.pictures]}
    return {name: value for name, value in match._asdict().items() if name != "thumbnail"} | {
        "path": readable(match.path)
    }


def board(found: Found) -> Group:
    """What was found, whether it is anything like the query at all, and where the time went."""
    rows = table(("kind", "home", "path"), ("rank", "similarity", "id"))
    for rank, match, pictures in _ranked(found):
        for place, picture in enumerate(pictures):
            figures = (str(rank) if not place else "", f"{match.similarity:.4f}" if not place else "", str(picture.id))
            rows.add_row(*map(Text, (picture.label, picture.home, readable(picture.path), *figures)))
    return Group(*map(Text, _verdict(found)), rows, Text(_spent(found), "dim"))


def _ranked(found: Found) -> Iterator[tuple[int, Match | HomeMatch, Sequence[Match]]]:
    for rank, match in enumerate(found.matches, 1):
        if isinstance(match, HomeMatch):
            yield rank, match, match.pictures
        elif isinstance(match, Match):
            yield rank, match, [match]


def _verdict(found: Found) -> Iterator[str]:
    if not found.matches:
        yield "nothing was found: the index is empty, or none of its pictures is of what was asked for"
    elif found.known is False:
        yield f"no room like this: {found.nearest:.4f} is below the threshold {found.threshold:.4f}; the nearest are:"


def _spent(found: Found) -> str:
    parts = ", ".join(f"{name} {value:.1f}" for name, value in found.milliseconds.items())
    return f"milliseconds: {parts}"


def draw(found: Found, asked: Sequence[str], finder: Finder, path: Path) -> None:
    """The query beside what was found."""
    thumbnails = {Path(match.path): match.thumbnail for _, _, pictures in _ranked(found) for match in pictures}

    def open_image(file: Path) -> Image.Image:
        if kept := thumbnails.get(file):
            return Image.open(io.BytesIO(kept))
        return finder.model.extractor.decoder.decode(file.read_bytes()).image

    draw_gallery(gallery_rows(found, asked), "; ".join([finder.title, *_verdict(found)]), path, open_image)


def gallery_rows(found: Found, asked: Sequence[str]) -> list[GalleryRow]:
    """Five pictures in a row; where homes were found a home in each, with its rank and how like it is."""
    queries = [Picture(Path(picture), Path(picture).name) for picture in asked]
    parts = list(_homes(found) if any(isinstance(match, HomeMatch) for match in found.matches) else _fives(found))
    return [
        GalleryRow(queries[min(row, len(queries) - 1)], list(map(_shown, pictures)), note)
        for row, (note, pictures) in enumerate(parts)
    ]


def _homes(found: Found) -> Iterator[tuple[str, Sequence[Match]]]:
    for rank, match, pictures in _ranked(found):
        yield f"{rank}. {match.home}: {match.similarity:.3f}", pictures


def _fives(found: Found) -> Iterator[tuple[str, Sequence[Match]]]:
    matches = [picture for _, _, pictures in _ranked(found) for picture in pictures]
    for start in range(0, max(1, len(matches)), _A_ROW):
        yield f"from nearest {start + 1}" if start else "", matches[start : start + _A_ROW]


def _shown(match: Match) -> Picture:
    return Picture(Path(match.path), f"{match.label} {match.home}".strip(), match.similarity)
