"""``likeness sync``: runs to wandb that it does not have yet."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """The parser of ``likeness sync``."""
    told = "Runs, rebuilt from their journals, to wandb: those that had no network, and those that never had wandb on."
    parser = commands.add_parser("sync", help="send runs to wandb that it does not have yet", description=told)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="a run's, a sweep's, or one with some")
    parser.add_argument("--project", metavar="NAME", help="wandb's project (default: as the run was configured)")
    parser.set_defaults(do=run)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness sync`` was asked."""
    from likeness.console import terminal
    from likeness.reports.media import media_of
    from likeness.reports.tables import table
    from likeness.runs.sync import send_runs

    board = table(["run"], ["rows", "pictures", "sent to"])
    try:
        for sent in send_runs(given.folders, media_of, given.project):
            board.add_row(str(sent.folder), str(sent.rows), str(sent.pictures), sent.told)
    finally:
        if board.rows:
            terminal().print(board)
