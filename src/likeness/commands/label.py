"""``likeness label``: labels for pictures, by vote."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from likeness.commands.options import (
    ON_BAD_IMAGE,
    SPLITS,
    Option,
    add_with_options,
    at_least,
    one_of,
    places_and_options,
    refuse,
    say,
)

OPTIONS = (
    Option("run", Path, "FOLDER", "the finished run whose labelled pictures vote", needed=True),
    Option("out", Path, "FILE", "labels.csv: path, label, confidence, similarity, runner-up, neighbours", needed=True),
    Option("k", partial(at_least, 1), "5", "nearest neighbours that vote", 5),
    Option(
        "weights",
        partial(one_of, choices=("uniform", "similarity")),
        "uniform",
        "a vote each; or similarity: by their cosine",
        "uniform",
    ),
    Option("split", partial(one_of, choices=SPLITS), "train", "of the run's pictures that vote; or all", "train"),
    ON_BAD_IMAGE,
)


def add(commands: Any) -> None:
    """The parser of ``likeness label``."""
    told = """Labels for pictures without any, by vote of their nearest neighbours in a run, least sure first.

How often votes of some confidence are right, evaluate.py run=FOLDER gallery=train says. A picture that is like none of
the run's gets a label all the same."""
    brief, usage = "labels for pictures, by vote of a run's", "FOLDER|FILE... run=FOLDER out=FILE [NAME=VALUE ...]"
    add_with_options(commands, "label", run, brief, told, OPTIONS, usage, "FOLDER|FILE")


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness label`` was asked."""
    places, asked = places_and_options("label", OPTIONS, given.words)
    faults = [] if places else ["FOLDER or FILE: missing, name pictures"]
    refuse("label", faults + ([f"out: {asked.out} is a folder, not a file"] if asked.out.is_dir() else []))

    from likeness import labelling

    options = {name: getattr(asked, name) for name in ("k", "weights", "split", "on_bad_image")}
    found = labelling.label(places, asked.run, **options)
    labelling.write_labels(found, asked.out)
    say(labelling.told(found, asked.out))
