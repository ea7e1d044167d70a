"""``likeness report``: one page of runs."""

import argparse
from pathlib import Path
from typing import Any

from likeness.commands.options import Option, add_with_options, places_and_options, refuse, say

OPTIONS = (Option("out", Path, "FILE", "where to; when left out FOLDER/sweep.html, of several folders ./sweep.html"),)


def add(commands: Any) -> None:
    """The parser of ``likeness report``."""
    told = "One page of all runs in these folders, sweeps' and single runs', to open in a browser without a network."
    brief, usage = "one page of a sweep, or of any runs", "FOLDER... [out=FILE]"
    add_with_options(commands, "report", run, brief, told, OPTIONS, usage, "FOLDER")


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness report`` was asked."""
    folders, asked = places_and_options("report", OPTIONS, given.words)
    refuse("report", [] if folders else ["FOLDER: missing, name a sweep's or a run's"])
    path = asked.out or (folders[0] if len(folders) == 1 else Path()) / "sweep.html"
    refuse("report", [f"out: {path} is a folder, not a file"] if path.is_dir() else [])

    from likeness.reports.page import write_page

    say(write_page(folders, path))
