"""``likeness query``: what an index has that is like a picture, or like a home."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from likeness.commands.options import refuse, say

RULES = ("mean", "best_pair", "by_kind", "assignment", "centred_mean")  # retrieval.homes.RULES, without torch
_DRAWN = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
_ENGINES = ("exact", "flat", "ivf", "hnsw", "qdrant")


def add(commands: Any) -> None:
    """The parser of ``likeness query``."""
    told = "the pictures of an index that are most like one; of several, as one home, the homes"
    parser = commands.add_parser("query", help=told, description=told)
    parser.add_argument("pictures", metavar="IMAGE", nargs="+", help="one picture, or several of one home")
    parser.add_argument("--index", metavar="DIR", type=Path, required=True, help="the index")
    parser.add_argument("-k", type=int, default=5, help="how many to find (default: 5)")
    parser.add_argument("--homes", action="store_true", help="find homes, not pictures")
    parser.add_argument(
        "--rule", choices=RULES, help="how --homes are compared (default: centred_mean, if kinds are known)"
    )
    parser.add_argument("--engine", choices=_ENGINES, default="exact", help="what searches (default: exact)")
    parser.add_argument("--url", help="of the server of --engine qdrant; when left out one in this process, to try it")
    parser.add_argument("--collection", metavar="NAME", help="of that server; when left out the name of the index")
    parser.add_argument("--label", nargs="+", default=[], help="only of these kinds")
    parser.add_argument("--home", nargs="+", default=[], help="only of these homes")
    parser.add_argument(
        "--known-by",
        metavar="DIR",
        type=Path,
        help="another index of the same pictures, of frozen features, which says whether this is like anything in it",
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="for a script")
    shown.add_argument("--gallery", metavar="FILE.png", type=Path, help="as a picture too")
    parser.set_defaults(do=run)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness query`` was asked."""
    refuse("query", list(_faults(given)))

    from likeness.finding import Finder, judged
    from likeness.querying import as_json, board, draw

    finder = Finder.open(given.index, _engine(given))
    judge = Finder.open(given.known_by) if given.known_by else None
    if given.homes:
        found = finder.find_homes(given.pictures, given.k, rule=given.rule, labels=given.label)
    else:
        found = finder.find(given.pictures, given.k, labels=given.label, homes=given.home)
    if judge:
        found = judged(found, judge, given.pictures)
    if given.json:
        sys.stdout.write(json.dumps(as_json(found), indent=2) + "\n")
        return

    from likeness.console import terminal

    terminal().print(board(found))
    if given.gallery:
        draw(found, given.pictures, finder, given.gallery)
        say(given.gallery)


def _faults(given: argparse.Namespace) -> Iterator[str]:
    if given.k < 1:
        yield f"-k: {given.k}, at least 1"
    if given.engine != "qdrant" and (given.url or given.collection):
        yield f"--url, --collection: are of --engine qdrant, not of {given.engine}"
    if given.gallery and given.gallery.suffix.lower() not in _DRAWN:
        yield f"--gallery: {given.gallery} ends in none of {', '.join(_DRAWN)}"
    if given.homes and given.home:
        yield "--home: only pictures are chosen by home, not --homes"
    if given.rule and not given.homes:
        yield "--rule: compares homes, give --homes too"


def _engine(given: argparse.Namespace) -> Any:
    if given.engine != "qdrant":
        return given.engine

    from likeness.retrieval.index import Index
    from likeness.retrieval.qdrant_engine import MEMORY, made_in

    collection = given.collection or given.index.resolve().name
    return made_in(collection, given.url or MEMORY, Index.open(given.index).model)
