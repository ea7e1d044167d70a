"""``likeness embed``: codes of pictures as a table."""

import argparse
from pathlib import Path
from typing import Any

from likeness.commands.options import (
    ON_BAD_IMAGE,
    WEIGHTS,
    Option,
    add_with_options,
    places_and_options,
    refuse,
    say,
    switch,
)

_TABLES = (".npy", ".parquet")


def _suffix(text: str) -> Path:
    if (suffix := Path(text).suffix) not in _TABLES:
        raise ValueError(f"{text!r} ends in {suffix or 'nothing'}, not in one of {', '.join(_TABLES)}")
    return Path(text)


OPTIONS = (
    Option("run", Path, "FOLDER", "the finished run whose model makes the codes"),
    Option("model", Path, "FILE", "in its place: a checkpoint, or what likeness export wrote"),
    Option(
        "out", _suffix, "FILE", "codes.npy, with codes.csv beside it (path, label, home); or codes.parquet", None, True
    ),
    Option("home_pattern", str, "REGEX", "where a file name says the home"),
    Option("frozen", switch, "false", "true gives the frozen features, without the head", False),
    ON_BAD_IMAGE,
    Option("store", str, "FOLDER", "of features; when left out the run's where it is here, else that of train.py"),
    WEIGHTS,
)


def add(commands: Any) -> None:
    """The parser of ``likeness embed``."""
    told = "The codes of pictures as a table. Their features are kept in the store: a second time, none is computed."
    brief, usage = (
        "codes of pictures as .npy or Parquet",
        "FOLDER|FILE... run=FOLDER|model=FILE out=FILE [NAME=VALUE ...]",
    )
    add_with_options(commands, "embed", run, brief, told, OPTIONS, usage, "FOLDER|FILE")


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness embed`` was asked."""
    places, asked = places_and_options("embed", OPTIONS, given.words)
    faults = [] if places else ["FOLDER or FILE: missing, name pictures"]
    faults += [] if bool(asked.run) != bool(asked.model) else ["run, model: give one of them"]
    refuse("embed", faults)

    from likeness.embedding import embed

    told = embed(
        places,
        asked.run or asked.model,
        asked.out,
        home_pattern=asked.home_pattern,
        frozen=asked.frozen,
        on_bad_image=asked.on_bad_image,
        store=asked.store,
        weights=asked.weights,
    )
    say(told)
