"""What a reader of the page asks, and what the indexes answer; gradio is not known here."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from likeness.errors import LikenessError, listed
from likeness.finding import Finder, Found, Match
from likeness.images.decoding import BadImage, Decoder
from likeness.images.thumbnail import small_jpeg
from likeness.model import Picture
from likeness.serving import results
from likeness.serving.memory import Upload
from likeness.serving.results import MOST_BYTES, MOST_PHOTOS, Address, Photo, Query, Side

_MOST_KEPT = 64_000_000  # bytes of all photos that a reader can go back to
_SAMPLED = 24
_LONGER_SIDE, _QUALITY = 256, 85  # of an upload's thumbnail


class Asked(NamedTuple):
    """Where a reader is: the queries so far, the last one on show, and what is on show and can be searched on from."""

    trail: tuple[Query, ...] = ()
    shown: tuple[tuple[Match, ...], ...] = ()  # of each index


class Choice(NamedTuple):
    """What the controls say."""

    homes: bool = False
    k: int = 12
    labels: Sequence[str] = ()


def photos_of(uploads: Sequence[Upload]) -> tuple[tuple[Photo, ...], LikenessError | None]:
    """The uploads that are pictures, and what is wrong with the others."""
    photos, bad = [], []
    for upload in uploads:
        try:
            photos.append(_photo(upload))
        except BadImage as fault:
            bad.append(f"{upload.name}: {fault}")
    return tuple(photos), _bad_photos(bad, len(uploads)) if bad else None


def _photo(upload: Upload) -> Photo:
    if upload.size > MOST_BYTES:
        raise BadImage("IMG-TOO-LARGE", f"{upload.size:,} bytes, limit {MOST_BYTES:,}")
    if upload.data is None:
        raise BadImage("IMG-TRUNCATED", "it did not arrive; send it again")
    return Photo(upload.name, upload.data, small_jpeg(Decoder().decode(upload.data).image, _LONGER_SIDE, _QUALITY))


def _bad_photos(bad: Sequence[str], of: int) -> LikenessError:
    what = "This photo cannot be used." if of == 1 else f"{len(bad)} of {of} photos cannot be used."
    return LikenessError("IMG-BAD", what, where=listed(bad), fix="Choose another, or save it anew as JPEG or PNG.")


def with_photos(trail: Sequence[Query], photos: Sequence[Photo]) -> tuple[tuple[Query, ...], LikenessError | None]:
    """The trail and a query of ``photos``; what is wrong where these are more than one query takes."""
    fault = None
    if len(photos) > MOST_PHOTOS:
        what = f"{len(photos)} photos are too many: the first {MOST_PHOTOS} are taken."
        fault = LikenessError("CONFIG", what, fix="Choose those that show the home best.")
    return _recent((*trail, Query(photos=tuple(photos[:MOST_PHOTOS])))), fault


def _recent(trail: tuple[Query, ...]) -> tuple[Query, ...]:
    """The last query, and of those before it what memory is set apart for."""
    sizes = [sum(len(photo.data) for photo in query.photos) for query in trail]
    start = len(trail) - 1
    while start and sum(sizes[start - 1 :]) <= _MOST_KEPT:
        start -= 1
    return trail[start:]


def respond(
    finders: Sequence[Finder], trail: tuple[Query, ...], choice: Choice, address: Address, arrived: bool
) -> tuple[Asked, str]:
    """What the page shows for the last query, or to begin with where there is none."""
    if not trail:
        sample = tuple(finders[0].sample(_SAMPLED, choice.labels))
        return Asked((), (sample,)), results.start(sample, address)
    sides = [
        Side(finder.title, finder.size, _asked(finder, trail[-1], at, choice)) for at, finder in enumerate(finders)
    ]
    shown = tuple(tuple(_matches(side.found)) for side in sides)
    return Asked(trail, shown), results.answer(trail[-1], sides, choice.homes, address, arrived)


def _asked(finder: Finder, query: Query, at: int, choice: Choice) -> Found | LikenessError:
    try:
        if choice.homes:
            return finder.find_homes(_pictures(query), choice.k, labels=choice.labels)
        if query.match is not None and query.side == at:
            return finder.find_id(query.match.id, choice.k, labels=choice.labels)
        return finder.find(_pictures(query), choice.k, labels=choice.labels)
    except LikenessError as error:
        return error


def _pictures(query: Query) -> list[Picture]:
    """The photos; of a row its file, or where that is not here any more its thumbnail, which is about as large."""
    if query.match is None:
        return [photo.data for photo in query.photos]
    path, thumbnail = query.match.path, query.match.thumbnail
    return [thumbnail if thumbnail and not Path(path).is_file() else path]


def _matches(found: Found | LikenessError) -> Iterator[Match]:
    for match in [] if isinstance(found, LikenessError) else found.matches:
        yield from [match] if isinstance(match, Match) else match.pictures


def picked(asked: Asked, side: int, row: int) -> Query | None:
    """The query that goes on from a match on show; none for what is not on show any more."""
    if not 0 <= side < len(asked.shown):
        return None
    return next((Query(match=match, side=side) for match in asked.shown[side] if match.id == row), None)
