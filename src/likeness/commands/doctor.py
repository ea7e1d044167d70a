"""``likeness doctor``: what is wrong, and what mends it."""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from likeness.commands.options import Option, add_with_options, options_of
from likeness.errors import BAD_DATA

OPTIONS = (
    Option("data", Path, "FOLDER", "pictures: layout, classes, copies, leaks between splits, every file decoded"),
    Option("home_pattern", str, "REGEX", "with data: where a file name says the home"),
    Option("store", Path, "FOLDER", "features: digests, leftovers, the file system; when left out that of train.py"),
    Option("run", Path, "FOLDER", "a run: its state, journal, checkpoints"),
)


def add(commands: Any) -> None:
    """The parser of ``likeness doctor``."""
    told = "What is wrong, and what mends it. Nothing is changed. Without options: this machine and the store."
    brief, usage = "what is wrong with this machine, a store, pictures or a run", "[NAME=VALUE ...]"
    add_with_options(commands, "doctor", run, brief, told, OPTIONS, usage)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness doctor`` was asked."""
    asked = options_of("doctor", OPTIONS, given.words)

    from likeness import doctor
    from likeness.config.composing import composed

    store = asked.store or Path(composed([]).paths.store)
    parts: list[tuple[str, Callable[[], Iterator[Any]]]] = [
        ("this machine", doctor.machine),
        (f"store {store}", partial(doctor.store, store)),
    ]
    if asked.data:
        parts.append((f"pictures in {asked.data}", partial(doctor.dataset, asked.data, asked.home_pattern)))
    if asked.run:
        parts.append((f"run {asked.run}", partial(doctor.run, asked.run)))
    faults = sum(_told(title, part()) for title, part in parts)
    if faults:
        sys.stderr.write(f"{faults} {'fault' if faults == 1 else 'faults'} found\n")
        sys.exit(BAD_DATA)


def _told(title: str, findings: Iterator[Any]) -> int:
    """Print what was found as it comes; how much of it is a fault."""
    from rich.text import Text

    from likeness.console import terminal

    styles = {"fine": "green", "note": "yellow", "fault": "bold red"}
    faults, out = 0, terminal()
    out.print(Text(title, "bold"))
    for state, what, mend in findings:
        faults += state == "fault"
        below = what.replace("\n", "\n         ")
        out.print(Text.assemble(("  " + f"{state:<7}", styles[state]), below), soft_wrap=True)
        if mend and state != "fine":
            out.print(Text(f"         → {mend}", "dim"), soft_wrap=True)
    return faults
