"""``likeness serve``: a page to search an index by photo."""

import argparse
from pathlib import Path
from typing import Any

_HIGHEST_PORT = 65_535


def add(commands: Any) -> None:
    """The parser of ``likeness serve``."""
    told = """A page to search an index by photo, on this machine. It needs the extra demo, and no network.

Whoever reaches another --host sees the pictures of the index: there is no password."""
    brief = "a page to search an index by photo"
    parser = commands.add_parser(
        "serve", help=brief, description=told, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", metavar="DIR", type=Path, required=True, help="the index, of likeness index")
    parser.add_argument("--compare", metavar="DIR", type=Path, help="another of the same pictures, to see side by side")
    parser.add_argument("--port", metavar="N", type=_port, default=7860, help="0 takes a free one (default: 7860)")
    parser.add_argument("--host", metavar="NAME", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.set_defaults(do=run)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 0 to {_HIGHEST_PORT}")
    return int(text)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness serve`` was asked."""
    from likeness.serving.server import serve

    serve(given.index, given.compare, given.host, given.port, browser=not given.no_browser)
