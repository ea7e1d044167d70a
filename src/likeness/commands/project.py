"""``likeness project``: maps of a run's features and codes."""

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

from likeness.commands.options import (
    DEBUG,
    SPLITS,
    Option,
    add_with_options,
    at_least,
    number,
    one_of,
    options_of,
    refuse,
    several,
)

_FEWEST_ROWS, _LEAST_PERPLEXITY = 4, 1


def _perplexity(text: str) -> float:
    if not _LEAST_PERPLEXITY <= (perplexity := number(float, text)) < math.inf:
        raise ValueError(f"{text} is no number of neighbours from {_LEAST_PERPLEXITY} up")
    return perplexity


OPTIONS = (
    Option("run", Path, "FOLDER", "the finished run", needed=True),
    Option(
        "perplexity", partial(several, read=_perplexity), "5,20,50", "of the maps, a column each", (5.0, 20.0, 50.0)
    ),
    Option(
        "split",
        partial(several, read=partial(one_of, choices=SPLITS)),
        "train,val,test",
        "a figure each; or all",
        ("train", "val", "test"),
    ),
    Option(
        "rows",
        partial(at_least, _FEWEST_ROWS),
        "2000",
        "labelled pictures to draw of a split; of more a sample is drawn",
        2000,
    ),
    Option("out", Path, "FOLDER", "where to; when left out RUN/figures/projections"),
    DEBUG,
)


def add(commands: Any) -> None:
    """The parser of ``likeness project``."""
    told = "t-SNE maps of a run's features above its codes, and their KL beside the hits that it need not follow."
    brief, usage = "t-SNE maps of a run's features and codes", "run=FOLDER [NAME=VALUE ...]"
    add_with_options(commands, "project", run, brief, told, OPTIONS, usage)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness project`` was asked."""
    asked = options_of("project", OPTIONS, given.words)
    too_high = [each for each in asked.perplexity if each >= asked.rows]
    refuse("project", [f"perplexity: {each:g} is not below rows={asked.rows}" for each in too_high])

    from likeness.assembly import projecting
    from likeness.reports.projection_grid import show_divergences

    folder = asked.out or asked.run / "figures" / "projections"
    found, title = projecting.project_run(asked.run, asked.perplexity, asked.split, folder, asked.rows)
    show_divergences(found, title, folder)
