"""``likeness sweep``: how a sweep stands, and its unfinished jobs."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from likeness.commands.options import say


def add(commands: Any) -> None:
    """The parser of ``likeness sweep``."""
    parts = commands.add_parser("sweep", help="how a sweep stands, and its unfinished jobs").add_subparsers(
        metavar="COMMAND", required=True
    )
    for do, told in (
        (_status, "every job and how it stands"),
        (_retry, "run the sweep's own command again: what is done is skipped"),
        (_rm, "remove the folders of jobs that failed, were lost or interrupted; --all removes the sweep"),
    ):
        part = parts.add_parser(do.__name__.removeprefix("_"), help=told, description=told)
        part.add_argument("folder", metavar="FOLDER", type=Path, help="outputs/sweep/NAME")
        part.set_defaults(do=do)
    part.add_argument("--all", action="store_true", help="the finished jobs as well")


def _status(given: argparse.Namespace) -> None:
    from likeness.console import terminal
    from likeness.reports.scoreboard import standing_table

    terminal().print(standing_table(given.folder))


def _retry(given: argparse.Namespace) -> None:
    from likeness.runs.sweep import command_of

    words, place = command_of(given.folder)
    sys.stderr.write(f"{shlex.join(words)}\n")
    os.chdir(place)
    os.execv(sys.executable, [sys.executable, *words])


def _rm(given: argparse.Namespace) -> None:
    from likeness.runs.sweep import remove_jobs

    removed = remove_jobs(given.folder, given.all)
    say(f"{removed} jobs removed from {given.folder}")
