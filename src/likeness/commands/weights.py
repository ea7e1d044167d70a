"""``likeness weights``: weights of other frameworks."""

import argparse
import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from likeness.commands.options import say

_BACKBONES = {"vgg16": "vgg16_fc1", "resnet50_caffe": "resnet50_caffe"}  # what train.py calls a converted network


def add(commands: Any) -> None:
    """The parser of ``likeness weights``."""
    parts = commands.add_parser("weights", help="weights of other frameworks").add_subparsers(
        metavar="COMMAND", required=True
    )
    convert = parts.add_parser(
        "convert", help="a Keras .h5 or a .caffemodel as .safetensors", description="Keras or Caffe weights, converted."
    )
    convert.add_argument("file", metavar="FILE", type=Path, help="the .h5 or .caffemodel")
    convert.add_argument("--out", metavar="FILE", type=Path, help="where to (default: beside it, as .safetensors)")
    convert.set_defaults(do=_convert)


def _convert(given: argparse.Namespace) -> None:
    from safetensors import safe_open

    from likeness.features.convert import convert

    path = convert(given.file, given.out)
    with safe_open(path, "np") as file:
        lines = converted_lines(path, file.metadata(), file.keys())
    say(*lines)


def converted_lines(path: Path, facts: Mapping[str, str], tensors: Collection[str]) -> Iterator[str]:
    """Where a converted file is, what it holds, and the command that uses it."""
    wanted = json.loads(facts["preprocessing"])
    yield str(path)
    yield from (f"  {name:<14} {facts[name]}" for name in ("network", "source", "digest"))
    yield f"  {'preprocessing':<14} " + ", ".join(f"{name} {value}" for name, value in wanted.items())
    yield "use it with (train.py takes the preprocessing from the file):"
    backbone = _BACKBONES.get(facts["network"])
    if backbone == "vgg16_fc1" and "classifier.0.weight" not in tensors:
        backbone = "vgg16_flatten"
    network = f"backbone={backbone}" if backbone else f"backbone.name={facts['network']}"
    yield "  python train.py data=folder data.root=PHOTOS " + shlex.join([network, f"backbone.weights={path}"])
