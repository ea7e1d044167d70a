"""What was found, as HTML; everything that comes from files goes in escaped."""

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from likeness.errors import LikenessError
from likeness.finding import Found, HomeMatch, Match
from likeness.reports.words import count, signed

MOST_PHOTOS, MOST_BYTES = 8, 20_000_000  # of one query; of one photo
Address = Callable[[bytes], str]  # of a thumbnail, for the page


class Photo(NamedTuple):
    """An upload: the bytes of its file, and a JPEG small enough for the page."""

    name: str
    data: bytes
    thumbnail: bytes


class Query(NamedTuple):
    """What is asked for: pictures like these photos, or like row ``match`` of index number ``side``."""

    photos: tuple[Photo, ...] = ()
    match: Match | None = None
    side: int = 0


class Side(NamedTuple):
    """What one index answers; a refusal says why it cannot."""

    title: str
    size: int
    found: Found | LikenessError


def header(titles: Sequence[str], size: int, homes: int) -> str:
    of_homes = f" of {count(homes)} homes" if homes else ""
    told = " against ".join(f"<b>{escape(title)}</b>" for title in titles)
    return f"<h1>likeness</h1><p>{told} · {count(size)} pictures{of_homes}</p>"


def drop() -> str:
    """Where photos are dropped or chosen: the browser's own control, as wide as its frame."""
    told = f"<b>Drop a photo here</b><span>or choose one; several are taken as one home</span>{_files('ask')}"
    return f'<label class="drop">{told}</label>'


def _files(name: str) -> str:
    limits = f'data-photos="{MOST_PHOTOS}" data-bytes="{MOST_BYTES}"'
    return f'<input type="file" name="{name}" accept="image/*" multiple {limits}>'


def start(matches: Sequence[Match], address: Address) -> str:
    """Some pictures to begin with, where nothing is asked yet."""
    cards = "".join(f"<li>{_card(match, 0, address, ranked=False)}</li>" for match in matches)
    told = "Drop a photo of a room, or begin with one of these."
    return f'<section class="start"><h2>{told}</h2><ol class="grid">{cards}</ol></section>'


def answer(query: Query, sides: Sequence[Side], homes: bool, address: Address, arrived: bool) -> str:
    """The query above what each index answers, side by side; what only one of them shows is marked.

    Args:
        homes: The matches are homes.
        arrived: The query is new, so that the reader is led to it.
    """
    columns = "".join(_column(number, sides, homes, address) for number in range(len(sides)))
    return f'{_query(query, homes, address, arrived)}<div class="sides of{len(sides)}">{columns}</div>'


def _query(query: Query, homes: bool, address: Address, arrived: bool) -> str:
    like = "Homes" if homes else "Pictures"
    if query.match is not None:
        told, about = f"{like} like this picture", _about(query.match)
        pictures = _picture(query.match.thumbnail, about, address)
    else:
        many = len(query.photos) > 1
        told = f"{like} like this home" if many else f"{like} like this photo"
        about = f"{len(query.photos)} photos" if many else query.photos[0].name
        pictures = "".join(_picture(photo.thumbnail, photo.name, _inside) for photo in query.photos)
    more = "" if query.match is not None else f'<label class="more">Add photos of this home{_files("more")}</label>'
    focus = ' data-arrived tabindex="-1"' if arrived else ""
    back = '<button type="button" class="back"><span aria-hidden="true">←</span> Back</button>'
    words = f"<div><h2{focus}>{told}</h2><p>{escape(about)}</p>{more}</div>"
    return f'<section class="query"><div class="asked">{pictures}</div>{words}{back}</section>'


def _column(number: int, sides: Sequence[Side], homes: bool, address: Address) -> str:
    title, size, found = sides[number]
    head = f"<h3>{escape(title)}</h3>" if len(sides) > 1 else ""
    if isinstance(found, LikenessError):
        return f'<section class="side">{head}{refusal(found)}</section>'
    others = [_names(side.found) for other, side in enumerate(sides) if other != number]
    shared = set().union(*others) if others else _names(found)
    items = "".join(_item(match, number, address, _name(match) not in shared) for match in found.matches)
    grid = f'<ol class="{"homes" if homes else "grid"}">{items}</ol>'
    body = _verdict(found, homes, size) + _hidden(grid, found) + _timings(found.milliseconds)
    return f'<section class="side">{head}{body}</section>'


def _names(found: Found | LikenessError) -> set[str]:
    return set() if isinstance(found, LikenessError) else {_name(match) for match in found.matches}


def _name(match: Match | HomeMatch) -> str:
    """By what it is known in another index as well: a row's number is each index's own."""
    return match.path if isinstance(match, Match) else match.home


def _verdict(found: Found, homes: bool, size: int) -> str:
    if not found.matches:
        return '<p class="verdict" role="status">There is no picture of these kinds.</p>'
    nearest = f"nearest {_cosine(found.nearest)}"
    least = "" if found.threshold is None else f" on average · a match from {_cosine(found.threshold)}"
    if found.known is False:
        told = f"<b>No {'home' if homes else 'room'} like this in the index.</b>"
        return f'<div class="verdict unknown" role="status">{told}<p>{nearest}{least}</p></div>'
    of = "nearest homes" if homes else f"of {count(size)} pictures"
    return f'<p class="verdict" role="status">{len(found.matches)} {of} · {nearest}{least}</p>'


def _hidden(grid: str, found: Found) -> str:
    if found.known is not False:
        return grid
    return f'<details class="dimmed"><summary>Show the nearest anyway</summary>{grid}</details>'


def _item(match: Match | HomeMatch, side: int, address: Address, only: bool) -> str:
    content = _card(match, side, address) if isinstance(match, Match) else _home(match, side, address)
    return f'<li class="only">{content}<em>only here</em></li>' if only else f"<li>{content}</li>"


def _home(home: HomeMatch, side: int, address: Address) -> str:
    cards = "".join(f"<li>{_card(match._replace(home=''), side, address)}</li>" for match in home.pictures)
    return f'<h4><b>{escape(home.home)}</b> <span>{_cosine(home.similarity)}</span></h4><ol class="grid">{cards}</ol>'


def _card(match: Match, side: int, address: Address, *, ranked: bool = True) -> str:
    """A button that searches on from ``match``."""
    figure = f'<b class="similarity">{_cosine(match.similarity)}</b>' if ranked else ""
    words = figure + "".join(f"<span>{escape(word)}</span>" for word in (match.label, match.home) if word)
    like = f"like {_about(match)}" + (f", similarity {_cosine(match.similarity)}" if ranked else "")
    return (
        f'<button type="button" class="match" data-side="{side}" data-row="{match.id}" '
        f'aria-label="Search for pictures {escape(like)}" title="{escape(match.path)}">'
        f'{_picture(match.thumbnail, "", address)}<span class="words">{words}</span></button>'
    )


def _picture(thumbnail: bytes | None, told: str, address: Address) -> str:
    if thumbnail is None:
        return '<span class="gone">no picture</span>'
    return f'<img src="{escape(address(thumbnail))}" alt="{escape(told)}" loading="lazy" decoding="async">'


def _inside(thumbnail: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}"


def _about(match: Match) -> str:
    return " of ".join(filter(None, [match.label or "a picture", match.home]))


def _cosine(value: float | None) -> str:
    """A cosine, with two digits."""
    return "–" if value is None else signed(f"{value:.2f}")


def _timings(milliseconds: Mapping[str, float]) -> str:
    if not milliseconds:
        return ""
    parts = [f"{name} {value:.2g}" if value < 10 else f"{name} {value:.0f}" for name, value in milliseconds.items()]
    return f'<p class="timings">{escape(" · ".join(parts))} ms</p>'


def refusal(error: LikenessError) -> str:
    """The parts of a message that a reader of the page can act on."""
    items = "".join(f"<li>{escape(line)}</li>" for line in error.where.splitlines())
    return (
        f'<div class="refusal" role="alert"><b>{escape(error.what)}</b><ul>{items}</ul>'
        f"<p>{escape(error.fix)} <code>{escape(error.code)}</code></p></div>"
    )
