"""``likeness query``: what an index has that is like a picture, or like a home."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from likeness.commands.options import refuse


def add(commands: Any) -> None:
    """The parser of ``likeness query``."""
    told = "the pictures of an index that are most like one; of several, as one home, the homes"
    parser = commands.add_parser("query", help=told, description=told)
    parser.add_argument("pictures", metavar="IMAGE", nargs="+", help="one picture, or several of one home")
    parser.add_argument("--index", metavar="DIR", type=Path, required=True, help="the index")
    parser.add_argument("-k", type=int, default=5, help="how many to find (default: 5)")
    parser.add_argument("--homes", action="store_true", help="find homes, not pictures")
    parser.add_argument("--rule", default="mean", help="how homes are compared (see likeness homes; default: mean)")
    parser.add_argument("--engine", choices=("exact", "flat", "ivf", "hnsw"), default="exact", help="what searches")
    parser.add_argument("--label", nargs="+", default=[], help="only of these kinds")
    parser.add_argument("--home", nargs="+", default=[], help="only of these homes")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="for a script")
    shown.add_argument("--gallery", metavar="FILE.png", type=Path, help="as a picture")
    parser.set_defaults(do=run)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness query`` was asked."""
    refuse("query", [] if given.k >= 1 else [f"-k: {given.k}, at least 1"])

    from likeness.finding import Finder
    from likeness.querying import as_json, board, draw

    finder = Finder.open(given.index, given.engine)
    if given.homes:
        found = finder.find_homes(given.pictures, given.k, rule=given.rule, labels=given.label)
    else:
        found = finder.find(given.pictures, given.k, labels=given.label, homes=given.home)
    if given.json:
        sys.stdout.write(json.dumps(as_json(found), indent=2) + "\n")
        return

    from likeness.console import terminal

    if given.gallery:
        draw(found, given.pictures, finder, given.gallery)
    terminal().print(board(found))
