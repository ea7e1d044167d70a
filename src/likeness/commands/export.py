"""``likeness export``: a trained model as one file."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from likeness.commands.options import WEIGHTS, Option, add_with_options, one_of, options_of, refuse, say, several

_FORMATS = ("safetensors", "onnx")
OPTIONS = (
    Option(
        "run", Path, "FOLDER", "the finished run; or a checkpoint; or, for format=onnx, an exported file", needed=True
    ),
    Option("out", Path, "FILE", "where to; when left out RUN/model.safetensors, or beside the file that is given"),
    Option(
        "format",
        partial(several, read=partial(one_of, choices=_FORMATS)),
        "safetensors,onnx",
        "the first for likeness.load, the second for other programs; when left out as out= ends, or the first",
    ),
    WEIGHTS,
)


def add(commands: Any) -> None:
    """The parser of ``likeness export``."""
    told = """A trained model as one file, to be used elsewhere: with likeness.load(FILE).encode(pictures), or as ONNX.

The .safetensors holds backbone, head and all that decides a code; it needs neither the run nor the weights file."""
    brief, usage = "a trained model as one file, to use it elsewhere", "run=FOLDER [NAME=VALUE ...]"
    add_with_options(commands, "export", run, brief, told, OPTIONS, usage)


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness export`` was asked."""
    asked = options_of("export", OPTIONS, given.words)
    out = asked.out or (asked.run / "model" if asked.run.is_dir() else asked.run.with_suffix(""))
    refuse("export", [f"out: {out} is a folder, not a file"] if out.is_dir() else [])
    named = out.suffix.removeprefix(".")
    formats = asked.format or (named if named in _FORMATS else _FORMATS[0],)

    from likeness.export import export

    for line in export(asked.run, out.with_suffix("") if named in _FORMATS else out, formats, asked.weights):
        say(line)
