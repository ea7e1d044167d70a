"""``likeness gallery``: one page of a run's queries and their neighbours."""

import argparse
import math
from pathlib import Path
from typing import Any

from likeness.commands.options import Option, add_with_options, number, options_of, refuse, say


def _megabytes(text: str) -> float:
    if not 0 <= (size := number(float, text)) < math.inf:
        raise ValueError(f"{text} is no size from 0 up")
    return size


OPTIONS = (
    Option("run", Path, "FOLDER", "the finished run", needed=True),
    Option("split", str, "test", "whose queries; when left out test, or the run's last where it has no test"),
    Option("out", Path, "FILE", "where to; when left out RUN/figures/gallery.html"),
    Option("most_mb", _megabytes, "8", "of pictures in the page; of more, those of the most telling queries", 8.0),
)


def add(commands: Any) -> None:
    """The parser of ``likeness gallery``."""
    told = (
        "A run's queries beside their neighbours, the worst first, as one page to open in a browser without a network."
    )
    brief, usage = "one page of a run's queries and their neighbours", "run=FOLDER [NAME=VALUE ...]"
    add_with_options(commands, "gallery", run, brief, told, OPTIONS, usage)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness gallery`` was asked."""
    asked = options_of("gallery", OPTIONS, given.words)
    path = asked.out or asked.run / "figures" / "gallery.html"
    refuse("gallery", [f"out: {path} is a folder, not a file"] if path.is_dir() else [])

    from likeness.reports.gallery_page import write_gallery

    written = write_gallery(asked.run, path, asked.split, round(1e6 * asked.most_mb))
    say(written)
