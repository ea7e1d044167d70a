"""The ``likeness`` command: what is neither training nor an evaluation, each a subcommand."""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial

from likeness.commands import (
    doctor,
    embed,
    export,
    extract,
    gallery,
    homes,
    index,
    label,
    project,
    query,
    report,
    serve,
    sweep,
    sync,
    weights,
)

_COMMANDS = (
    *(weights, extract, export, embed, label, project, sweep, report, gallery, sync, doctor, homes, index, query),
    serve,
)


def main(words: Sequence[str] | None = None) -> None:
    """Run the subcommand that ``words`` name, the command line's when left out; a refusal ends with its exit code."""
    parser = _parser()
    given, unknown = parser.parse_known_args(words)
    if unknown:
        instead = f"; {given.command} takes NAME=VALUE, without dashes" if "command" in given else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{instead}")

    from likeness.runs.launch import run

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run(partial(given.do, given))


def _parser() -> argparse.ArgumentParser:
    """A new subcommand is a file of ``commands`` whose ``add`` adds its parser, with what it does as ``do``."""
    parser = argparse.ArgumentParser("likeness", description="What goes with train.py and evaluate.py.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    main()
