"""``likeness homes``: how well homes find homes."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from likeness.commands.options import (
    DEBUG,
    SPLITS,
    Option,
    add_with_options,
    at_least,
    one_of,
    options_of,
    several,
    switch,
)

OPTIONS = (
    Option("run", Path, "FOLDER", "the finished run", needed=True),
    Option("data", Path, "FOLDER", "other pictures, a folder for each kind; when left out those of the run"),
    Option("home_pattern", str, "REGEX", "where a file name says the home; when left out as in training"),
    Option(
        "split",
        partial(one_of, choices=SPLITS),
        "test",
        "train, val, test or all; when left out test, of other pictures all",
    ),
    Option(
        "halves",
        partial(several, read=partial(one_of, choices=("random", "kinds"))),
        "random,kinds",
        "how a home's pictures are halved: by chance, or so that no kind is in both halves",
        ("random", "kinds"),
    ),
    Option(
        "seed",
        partial(several, read=partial(at_least, 0)),
        "0,1,2,3,4",
        "of the random halves, averaged",
        tuple(range(5)),
    ),
    Option("k", partial(several, read=partial(at_least, 1)), "1,5,10", "of the hits", (1, 5, 10)),
    Option("copies", switch, "false", "true keeps all pictures of the same bytes, not the first alone", False),
    Option("out", Path, "FOLDER", "where to; when left out RUN/homes"),
    DEBUG,
)


def add(commands: Any) -> None:
    """The parser of ``likeness homes``."""
    told = "How often the halves of a home's pictures find each other, by every rule that compares sets of pictures."
    brief, usage = "how well homes find homes", "run=FOLDER [NAME=VALUE ...]"
    add_with_options(commands, "homes", run, brief, told, OPTIONS, usage)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness homes`` was asked."""
    asked = options_of("homes", OPTIONS, given.words)

    from likeness.homes import Asked, score_homes

    score_homes(
        Asked(
            run=asked.run,
            data=asked.data,
            home_pattern=asked.home_pattern,
            split=asked.split,
            halves=asked.halves,
            seeds=asked.seed,
            ks=asked.k,
            keep_copies=asked.copies,
            folder=asked.out or asked.run / "homes",
        )
    )
