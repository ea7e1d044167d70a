"""``likeness extract``: fill the store of features."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from likeness.commands.options import Option, add_with_options, options_of, say


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not int(found[1]) < int(found[2]):
        raise ValueError(f"{text!r} is no share i/n with 0 ≤ i < n: of four these are 0/4, 1/4, 2/4 and 3/4")
    return int(found[1]), int(found[2])


OPTIONS = (
    Option("shard", _share, "i/n", "this command's share of the pictures; one command for each i from 0", (0, 1)),
)


def add(commands: Any) -> None:
    """The parser of ``likeness extract``."""
    told = """Fill the store of features, and nothing else. A later train.py computes only what is missing.

All other options are those of train.py (its --help lists the groups); of these data, decoding, preprocessing, backbone,
extraction and paths count, and trainer.accelerator, devices, num_nodes and strategy (auto or ddp)."""
    brief, usage = "fill the store of features, on many GPUs or nodes", "[shard=i/n] [NAME=VALUE ...]"
    parser = add_with_options(commands, "extract", run, brief, told, OPTIONS, usage)
    parser.add_argument("--cfg", choices=("job",), help="show every option with its value, and end")


def run(given: argparse.Namespace) -> None:
    """Do what ``likeness extract`` was asked."""
    shares = [word for word in given.words if word.partition("=")[0] == "shard"]
    number, of = options_of("extract", OPTIONS, shares).shard

    from omegaconf import OmegaConf

    from likeness.config.checking import checked
    from likeness.config.composing import composed

    cfg = composed([word for word in given.words if word not in shares])
    if given.cfg:
        sys.stdout.write(OmegaConf.to_yaml(cfg))
        return
    config = checked(cfg)

    from likeness.assembly import filling

    if done := filling.fill_store(config, number, of):
        say(filled_line(*done, number, of))


def filled_line(filled: Any, store: Path, number: int, of: int) -> str:
    """One line on what became of a share's pictures."""
    rate = filled.computed / max(filled.seconds, 1e-9)
    pace = f", {rate:,.0f} pictures/s" if rate >= 10 else f", {rate:.2g} pictures/s" if rate else ""
    return (
        f"share {number}/{of}: {filled.found} rows found, {filled.computed} computed, {filled.bad} bad pictures, "
        f"{filled.seconds:.1f} s{pace} ({store})"
    )
