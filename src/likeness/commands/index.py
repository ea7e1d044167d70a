"""``likeness index``: a gallery that pictures enter and leave."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from likeness.commands.options import refuse, say
from likeness.errors import BAD_DATA

_SHOWN = 10  # pairs that look the same


def add(commands: Any) -> None:
    """The parser of ``likeness index``."""
    parts = commands.add_parser("index", help="a gallery that pictures enter and leave").add_subparsers(
        metavar="COMMAND", required=True
    )

    def part(do: Callable[..., None], told: str) -> argparse.ArgumentParser:
        found = parts.add_parser(do.__name__.removeprefix("_"), help=told, description=told)
        found.add_argument("index", metavar="DIR", type=Path, help="the index's folder")
        found.set_defaults(do=do)
        return found

    create = part(_create, "an empty index, bound to a run's model")
    create.add_argument("--run", metavar="RUN", type=Path, required=True, help="a finished run, or an exported model")
    create.add_argument("--frozen", action="store_true", help="of the features themselves, without the head")
    create.add_argument("--weights", metavar="FILE", help="where the backbone's weights are now")
    more = part(_add, "add pictures; FOLDER/KIND/... gives them their kind")
    _add_places(more, "*")
    more.add_argument("--label", metavar="NAME", help="the kind of all of them")
    more.add_argument("--home", metavar="NAME", help="the home of all of them")
    more.add_argument("--home-pattern", metavar="REGEX", help="or where each file name says its home")
    more.add_argument("--skip-present", action="store_true", help="pass over pictures that are in it already")
    more.add_argument("--no-duplicates", action="store_true", help="do not look for pictures that look like these")
    more.add_argument("--run", metavar="RUN", type=Path, help="refuse unless this is the index's model")
    remove = part(_remove, "remove pictures")
    remove.add_argument("--ids", metavar="ID", nargs="+", type=int, default=[], help="of pictures")
    remove.add_argument("--home", metavar="NAME", nargs="+", default=[], help="all pictures of these homes")
    info = part(_info, "what is in it")
    info.add_argument("--json", action="store_true", help="for a script")
    verify = part(_verify, "read every byte of it and say what is damaged")
    verify.add_argument("--mend", action="store_true", help="go on without what is damaged")
    near = part(_duplicates, "pairs of pictures that look the same")
    near.add_argument("--above", metavar="COSINE", type=float, default=0.98, help="least similarity (default: 0.98)")
    near.add_argument("--most", metavar="N", type=int, default=_SHOWN, help=f"pairs to show (default: {_SHOWN})")
    gauge = part(_calibrate, "keep a threshold below which a query is like nothing in the index")
    _add_places(gauge, "+")
    gauge.add_argument(
        "--rate", type=float, default=0.05, help="share of pictures like these that may be rejected (default: 0.05)"
    )


def _add_places(parser: argparse.ArgumentParser, count: str) -> None:
    parser.add_argument("places", metavar="FOLDER|FILE", nargs=count, type=Path, help="pictures")
    parser.add_argument("--store", metavar="FOLDER", help="of features; when left out the run's where it is here")
    parser.add_argument(
        "--on-bad-image", choices=("raise", "quarantine"), default="raise", help="go on without them, or refuse"
    )


def _create(given: argparse.Namespace) -> None:
    from likeness.indexing import create

    index = create(given.index, given.run, frozen=given.frozen, weights=given.weights)
    say(f"{given.index}: an empty index of {index.about['title']}, {index.width} numbers a code")


def _add(given: argparse.Namespace) -> None:
    refuse("index add", list(_add_faults(given)))

    from likeness.indexing import NEAR, add, near_duplicates
    from likeness.retrieval.index import Index

    names = ("label", "home", "home_pattern", "skip_present", "on_bad_image", "store", "run")
    added = add(Index.open(given.index), given.places, **{name: getattr(given, name) for name in names})
    new = added.ids[added.new]
    say(f"{len(new):,} pictures added, {len(added.ids) - len(new):,} were there; {len(added.generation):,} in all")
    if len(new) and not given.no_duplicates:
        pairs = near_duplicates(added.generation, new)
        say(*_pair_lines(added.generation, pairs, f"look like another (cosine of {NEAR} or more)"))


def _add_faults(given: argparse.Namespace) -> Iterator[str]:
    if not given.places:
        yield "FOLDER|FILE: missing, name pictures"
    if given.home and given.home_pattern:
        yield "--home, --home-pattern: give one of them"


def _pair_lines(generation: Any, pairs: Sequence[Any], told: str, most: int = _SHOWN) -> Iterator[str]:
    import numpy as np

    if pairs:
        yield f"{len(pairs):,} pairs {told}:"
    for pair in pairs[:most]:
        one, other = (generation.path(int(row)) for row in generation.rows_of(np.array([pair.one, pair.other])))
        yield f"  {pair.similarity:.4f}  {pair.one} {one}  {pair.other} {other}"
    if len(pairs) > most:
        yield f"  … and {len(pairs) - most:,} more"


def _remove(given: argparse.Namespace) -> None:
    refuse("index remove", [] if given.ids or given.home else ["--ids, --home: missing, name what is to leave"])

    from likeness.retrieval.index import Index

    index = Index.open(given.index)
    before = len(index.newest())
    after = len(index.remove(ids=given.ids, homes=given.home))
    say(f"{before - after:,} pictures removed; {after:,} are left")


def _info(given: argparse.Namespace) -> None:
    from likeness.indexing import facts
    from likeness.retrieval.index import Index

    found = facts(Index.open(given.index))
    if given.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        say(*_info_lines(found))


def _info_lines(found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{kind} {count:,}" for kind, count in value.items())
        yield f"{name:<12} {'–' if value in (None, '') else value}"


def _verify(given: argparse.Namespace) -> None:
    from likeness.images.options import readable
    from likeness.indexing import gone
    from likeness.retrieval.index import Index

    index = Index.open(given.index)
    faults = list(index.verify())
    say(*(f"damaged, {_cost(fault.rows)}: {fault.what}" for fault in faults))
    if faults and given.mend:
        generation, lost = index.mend()
        say(f"mended: {lost:,} pictures are lost, {len(generation):,} are left; the damaged files were set aside")
        say("likeness index add brings back those whose files are there")
    elif faults:
        say(f"go on without what is damaged with likeness index verify {given.index} --mend")
        sys.exit(BAD_DATA)
    else:
        say(f"{len(index.newest()):,} pictures, every byte as it was written")
        if missing := gone(index.newest()):
            say(f"of {len(missing):,} the file is not where it was (first: {readable(missing[0])}); they are kept")


def _cost(rows: int | None) -> str:
    return "at an unknown cost" if rows is None else f"at the cost of {rows:,} pictures"


def _duplicates(given: argparse.Namespace) -> None:
    refuse("index duplicates", list(_duplicates_faults(given)))

    from likeness.indexing import near_duplicates
    from likeness.retrieval.index import Index

    generation = Index.open(given.index).newest()
    pairs = near_duplicates(generation, above=given.above)
    told = f"look the same (cosine of {given.above:g} or more)"
    say(*_pair_lines(generation, pairs, told, given.most) if pairs else [f"no pairs {told}"])


def _duplicates_faults(given: argparse.Namespace) -> Iterator[str]:
    if not -1 <= given.above <= 1:
        yield f"--above: {given.above:g}, a cosine is -1 to 1"
    if given.most < 1:
        yield f"--most: {given.most}, at least 1"


def _calibrate(given: argparse.Namespace) -> None:
    refuse("index calibrate", [] if 0 < given.rate < 1 else [f"--rate: {given.rate:g} is not between 0 and 1"])

    from likeness.indexing import calibrated
    from likeness.retrieval.index import Index

    options = {name: getattr(given, name) for name in ("rate", "on_bad_image", "store")}
    index = Index.open(given.index)
    threshold = calibrated(index, given.places, **options)
    low, high = threshold.attained()
    say(
        f"threshold {threshold.value:.4f}: of pictures like these {threshold.rate:.0%} or less are rejected "
        f"(by these {threshold.n:,}: {low:.1%} to {high:.1%})"
    )
    if not index.about.get("frozen"):
        say("a kind of picture that training never had is told better by an index of frozen features: create --frozen")
