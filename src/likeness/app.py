"""The ``likeness`` command: what is neither training nor an evaluation, each a subcommand.

Only the standard library at the top: ``--help`` must answer at once.
"""

import argparse
import json
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from likeness.errors import BAD_DATA, LikenessError

_SPLITS = ("train", "val", "test", "all")
_FEWEST_ROWS, _LEAST_PERPLEXITY = 4, 1
_HIGHEST_PORT = 65_535
_DRAWN = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
RULES = ("mean", "best_pair", "by_kind", "assignment", "centred_mean")  # retrieval.homes.RULES, without torch
_BACKBONES = {"vgg16": "vgg16_fc1", "resnet50_caffe": "resnet50_caffe"}  # what train.py calls a converted network


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
    """A new subcommand is a function that adds its parser, with what it does as ``do``."""
    parser = argparse.ArgumentParser("likeness", description="What goes with train.py and evaluate.py.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_weights,
        _add_extract,
        _add_export,
        _add_embed,
        _add_label,
        _add_project,
        _add_sweep,
        _add_report,
        _add_gallery,
        _add_sync,
        _add_doctor,
        _add_homes,
        _add_index,
        _add_query,
        _add_serve,
    ):
        add(commands)
    return parser


def _say(*lines: object) -> None:
    """Lines of plain text, as they are."""
    from likeness.console import terminal

    for line in lines:
        terminal().print(str(line), soft_wrap=True, markup=False, highlight=False)


def _add_with_options(
    commands: Any, do: Callable[..., None], brief: str, told: str, options: Sequence["Option"], usage: str
) -> argparse.ArgumentParser:
    """A subcommand, named as its function, whose help lists the options ``name=value`` that it takes."""
    name = do.__name__.removeprefix("_")
    parser = commands.add_parser(
        name,
        help=brief,
        description="\n".join([told, "", *_help(options)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"likeness {name} {usage}",
    )
    parser.set_defaults(do=do, command=f"likeness {name}")
    return parser


def _add_weights(commands: Any) -> None:
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
    _say(*lines)


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


def _add_sweep(commands: Any) -> None:
    parts = commands.add_parser("sweep", help="how a sweep stands, and its unfinished jobs").add_subparsers(
        metavar="COMMAND", required=True
    )
    for do, told in (
        (_sweep_status, "every job and how it stands"),
        (_sweep_retry, "run the sweep's own command again: what is done is skipped"),
        (_sweep_rm, "remove the folders of jobs that failed, were lost or interrupted; --all removes the sweep"),
    ):
        part = parts.add_parser(do.__name__.removeprefix("_sweep_"), help=told, description=told)
        part.add_argument("folder", metavar="FOLDER", type=Path, help="outputs/sweep/NAME")
        part.set_defaults(do=do)
    part.add_argument("--all", action="store_true", help="the finished jobs as well")


def _sweep_status(given: argparse.Namespace) -> None:
    from likeness.console import terminal
    from likeness.reports.scoreboard import standing_table

    terminal().print(standing_table(given.folder))


def _sweep_retry(given: argparse.Namespace) -> None:
    from likeness.runs.sweep import command_of

    words, place = command_of(given.folder)
    sys.stderr.write(f"{shlex.join(words)}\n")
    os.chdir(place)
    os.execv(sys.executable, [sys.executable, *words])


def _sweep_rm(given: argparse.Namespace) -> None:
    from likeness.runs.sweep import remove_jobs

    removed = remove_jobs(given.folder, given.all)
    _say(f"{removed} jobs removed from {given.folder}")


def _values(text: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
    """``5,20`` and ``[5, 20]`` alike; no value may come twice."""
    values = [read(value.strip()) for value in text.strip("[]").split(",")]
    if twice := [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise ValueError(f"{', '.join(twice)} is given more than once")
    return tuple(values)


def _perplexity(text: str) -> float:
    if not _LEAST_PERPLEXITY <= (perplexity := _number(float, text)) < math.inf:
        raise ValueError(f"{text} is no number of neighbours from {_LEAST_PERPLEXITY} up")
    return perplexity


def _one_of(text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise ValueError(f"{text!r} is not one of {', '.join(choices)}{_suggestion(text, choices)}")
    return text


def _count(text: str) -> int:
    if (count := _number(int, text)) < 1:
        raise ValueError(f"{count} is less than 1")
    return count


def _rows(text: str) -> int:
    if (rows := _number(int, text)) < _FEWEST_ROWS:
        raise ValueError(f"{rows} is less than {_FEWEST_ROWS}")
    return rows


def _megabytes(text: str) -> float:
    if not 0 <= (size := _number(float, text)) < math.inf:
        raise ValueError(f"{text} is no size from 0 up")
    return size


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is no {'whole ' if kind is int else ''}number") from None


@dataclass(frozen=True)
class Option:
    """An option ``name=value``.

    Args:
        read: Its value from its text; a ValueError says what is wrong with it.
        shown: What stands for the value in ``--help``.
        needed: It has no default and must be given.
    """

    name: str
    read: Callable[[str], Any]
    shown: str
    told: str
    default: Any = None
    needed: bool = False


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not int(found[1]) < int(found[2]):
        raise ValueError(f"{text!r} is no share i/n with 0 ≤ i < n: of four these are 0/4, 1/4, 2/4 and 3/4")
    return int(found[1]), int(found[2])


_EXTRACT = (
    Option("shard", _share, "i/n", "this command's share of the pictures; one command for each i from 0", (0, 1)),
)


def _add_extract(commands: Any) -> None:
    told = """Fill the store of features, and nothing else. A later train.py computes only what is missing.

All other options are those of train.py (its --help lists the groups); of these data, decoding, preprocessing, backbone,
extraction and paths count, and trainer.accelerator, devices, num_nodes and strategy (auto or ddp)."""
    brief, usage = "fill the store of features, on many GPUs or nodes", "[shard=i/n] [NAME=VALUE ...]"
    parser = _add_with_options(commands, _extract, brief, told, _EXTRACT, usage)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE", help="as above")
    parser.add_argument("--cfg", choices=("job",), help="show every option with its value, and end")


def _extract(given: argparse.Namespace) -> None:
    shares = [word for word in given.options if word.partition("=")[0] == "shard"]
    number, of = options_of("extract", _EXTRACT, shares).shard

    from omegaconf import OmegaConf

    from likeness.config import checked, composed

    cfg = composed([word for word in given.options if word not in shares])
    if given.cfg:
        sys.stdout.write(OmegaConf.to_yaml(cfg))
        return
    config = checked(cfg)

    from likeness import assembly

    if done := assembly.fill_store(config, number, of):
        _say(filled_line(*done, number, of))


def filled_line(filled: Any, store: Path, number: int, of: int) -> str:
    """One line on what became of a share's pictures."""
    rate = filled.computed / max(filled.seconds, 1e-9)
    pace = f", {rate:,.0f} pictures/s" if rate >= 10 else f", {rate:.2g} pictures/s" if rate else ""
    return (
        f"share {number}/{of}: {filled.found} rows found, {filled.computed} computed, {filled.bad} bad pictures, "
        f"{filled.seconds:.1f} s{pace} ({store})"
    )


_PROJECT = (
    Option("run", Path, "FOLDER", "the finished run", needed=True),
    Option(
        "perplexity", partial(_values, read=_perplexity), "5,20,50", "of the maps, a column each", (5.0, 20.0, 50.0)
    ),
    Option(
        "split",
        partial(_values, read=partial(_one_of, choices=_SPLITS)),
        "train,val,test",
        "a figure each; or all",
        ("train", "val", "test"),
    ),
    Option("rows", _rows, "2000", "labelled pictures to draw of a split; of more a sample is drawn", 2000),
    Option("out", Path, "FOLDER", "where to; when left out RUN/figures/projections"),
    Option("debug", _switch, "false", "true shows where an error comes from", False),
)


def _add_project(commands: Any) -> None:
    told = "t-SNE maps of a run's features above its codes, and their KL beside the hits that it need not follow."
    brief, usage = "t-SNE maps of a run's features and codes", "run=FOLDER [NAME=VALUE ...]"
    parser = _add_with_options(commands, _project, brief, told, _PROJECT, usage)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE", help="as above")


def _project(given: argparse.Namespace) -> None:
    asked = options_of("project", _PROJECT, given.options)
    too_high = [each for each in asked.perplexity if each >= asked.rows]
    _refuse("project", [f"perplexity: {each:g} is not below rows={asked.rows}" for each in too_high])

    from likeness import assembly
    from likeness.reports.projection_grid import show_divergences

    folder = asked.out or asked.run / "figures" / "projections"
    found, title = assembly.project_run(asked.run, asked.perplexity, asked.split, folder, asked.rows)
    show_divergences(found, title, folder)


_FORMATS = ("safetensors", "onnx")
_EXPORT = (
    Option(
        "run", Path, "FOLDER", "the finished run; or a checkpoint; or, for format=onnx, an exported file", needed=True
    ),
    Option("out", Path, "FILE", "where to; when left out RUN/model.safetensors, or beside the file that is given"),
    Option(
        "format",
        partial(_values, read=partial(_one_of, choices=_FORMATS)),
        "safetensors,onnx",
        "the first for likeness.load, the second for other programs; when left out as out= ends, or the first",
    ),
    Option("weights", str, "FILE", "where the backbone's weights are now, if not where training found them"),
)


def _add_export(commands: Any) -> None:
    told = """A trained model as one file, to be used elsewhere: with likeness.load(FILE).encode(pictures), or as ONNX.

The .safetensors holds backbone, head and all that decides a code; it needs neither the run nor the weights file."""
    brief, usage = "a trained model as one file, to use it elsewhere", "run=FOLDER [NAME=VALUE ...]"
    parser = _add_with_options(commands, _export, brief, told, _EXPORT, usage)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE", help="as above")


def _export(given: argparse.Namespace) -> None:
    asked = options_of("export", _EXPORT, given.options)
    out = asked.out or (asked.run / "model" if asked.run.is_dir() else asked.run.with_suffix(""))
    _refuse("export", [f"out: {out} is a folder, not a file"] if out.is_dir() else [])
    named = out.suffix.removeprefix(".")
    formats = asked.format or (named if named in _FORMATS else _FORMATS[0],)

    from likeness.export import export

    for line in export(asked.run, out.with_suffix("") if named in _FORMATS else out, formats, asked.weights):
        _say(line)


def _suffix(text: str) -> Path:
    if (suffix := Path(text).suffix) not in _TABLES:
        raise ValueError(f"{text!r} ends in {suffix or 'nothing'}, not in one of {', '.join(_TABLES)}")
    return Path(text)


_TABLES = (".npy", ".parquet")
_EMBED = (
    Option("run", Path, "FOLDER", "the finished run whose model makes the codes"),
    Option("model", Path, "FILE", "in its place: a checkpoint, or what likeness export wrote"),
    Option(
        "out", _suffix, "FILE", "codes.npy, with codes.csv beside it (path, label, home); or codes.parquet", None, True
    ),
    Option("home_pattern", str, "REGEX", "where a file name says the home"),
    Option("frozen", _switch, "false", "true gives the frozen features, without the head", False),
    Option(
        "on_bad_image",
        partial(_one_of, choices=("raise", "quarantine")),
        "raise",
        "or quarantine: go on without pictures that cannot be used",
        "raise",
    ),
    Option("store", str, "FOLDER", "of features; when left out the run's where it is here, else that of train.py"),
    Option("weights", str, "FILE", "where the backbone's weights are now, if not where training found them"),
)


def _add_embed(commands: Any) -> None:
    told = "The codes of pictures as a table. Their features are kept in the store: a second time, none is computed."
    brief, usage = (
        "codes of pictures as .npy or Parquet",
        "FOLDER|FILE... run=FOLDER|model=FILE out=FILE [NAME=VALUE ...]",
    )
    parser = _add_with_options(commands, _embed, brief, told, _EMBED, usage)
    parser.add_argument("words", nargs="+", metavar="FOLDER|FILE", help="pictures; and NAME=VALUE as above")


def _embed(given: argparse.Namespace) -> None:
    places, asked = _pictures_and_options("embed", _EMBED, given.words)
    faults = [] if places else ["FOLDER or FILE: missing, name pictures"]
    faults += [] if bool(asked.run) != bool(asked.model) else ["run, model: give one of them"]
    _refuse("embed", faults)

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
    _say(told)


_LABEL = (
    Option("run", Path, "FOLDER", "the finished run whose labelled pictures vote", needed=True),
    Option("out", Path, "FILE", "labels.csv: path, label, confidence, similarity, runner-up, neighbours", needed=True),
    Option("k", _count, "5", "nearest neighbours that vote", 5),
    Option(
        "weights",
        partial(_one_of, choices=("uniform", "similarity")),
        "uniform",
        "a vote each; or similarity: by their cosine",
        "uniform",
    ),
    Option("split", partial(_one_of, choices=_SPLITS), "train", "of the run's pictures that vote; or all", "train"),
    Option(
        "on_bad_image",
        partial(_one_of, choices=("raise", "quarantine")),
        "raise",
        "or quarantine: go on without pictures that cannot be used",
        "raise",
    ),
)


def _add_label(commands: Any) -> None:
    told = """Labels for pictures without any, by vote of their nearest neighbours in a run, least sure first.

How often votes of some confidence are right, evaluate.py run=FOLDER gallery=train says. A picture that is like none of
the run's gets a label all the same."""
    brief, usage = "labels for pictures, by vote of a run's", "FOLDER|FILE... run=FOLDER out=FILE [NAME=VALUE ...]"
    parser = _add_with_options(commands, _label, brief, told, _LABEL, usage)
    parser.add_argument("words", nargs="+", metavar="FOLDER|FILE", help="pictures; and NAME=VALUE as above")


def _label(given: argparse.Namespace) -> None:
    places, asked = _pictures_and_options("label", _LABEL, given.words)
    faults = [] if places else ["FOLDER or FILE: missing, name pictures"]
    _refuse("label", faults + ([f"out: {asked.out} is a folder, not a file"] if asked.out.is_dir() else []))

    from likeness import labelling

    options = {name: getattr(asked, name) for name in ("k", "weights", "split", "on_bad_image")}
    found = labelling.label(places, asked.run, **options)
    labelling.write_labels(found, asked.out)
    _say(labelling.told(found, asked.out))


_REPORT = (Option("out", Path, "FILE", "where to; when left out FOLDER/sweep.html, of several folders ./sweep.html"),)


def _add_report(commands: Any) -> None:
    told = "One page of all runs in these folders, sweeps' and single runs', to open in a browser without a network."
    brief, usage = "one page of a sweep, or of any runs", "FOLDER... [out=FILE]"
    parser = _add_with_options(commands, _report, brief, told, _REPORT, usage)
    parser.add_argument("words", nargs="+", metavar="FOLDER", help="of a sweep or of a run; and out=FILE as above")


def _report(given: argparse.Namespace) -> None:
    named = [word for word in given.words if "=" in word and not Path(word).is_dir()]
    asked = options_of("report", _REPORT, named)
    folders = [Path(word) for word in given.words if word not in named]
    _refuse("report", [] if folders else ["FOLDER: missing, name a sweep's or a run's"])
    path = asked.out or (folders[0] if len(folders) == 1 else Path()) / "sweep.html"
    _refuse("report", [f"out: {path} is a folder, not a file"] if path.is_dir() else [])

    from likeness.reports.page import write_page

    _say(write_page(folders, path))


_GALLERY = (
    Option("run", Path, "FOLDER", "the finished run", needed=True),
    Option("split", str, "test", "whose queries; when left out test, or the run's last where it has no test"),
    Option("out", Path, "FILE", "where to; when left out RUN/figures/gallery.html"),
    Option("most_mb", _megabytes, "8", "of pictures in the page; of more, those of the most telling queries", 8.0),
)


def _add_gallery(commands: Any) -> None:
    told = (
        "A run's queries beside their neighbours, the worst first, as one page to open in a browser without a network."
    )
    brief, usage = "one page of a run's queries and their neighbours", "run=FOLDER [NAME=VALUE ...]"
    parser = _add_with_options(commands, _gallery, brief, told, _GALLERY, usage)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE", help="as above")


def _gallery(given: argparse.Namespace) -> None:
    asked = options_of("gallery", _GALLERY, given.options)
    path = asked.out or asked.run / "figures" / "gallery.html"
    _refuse("gallery", [f"out: {path} is a folder, not a file"] if path.is_dir() else [])

    from likeness.reports.gallery_page import write_gallery

    written = write_gallery(asked.run, path, asked.split, round(1e6 * asked.most_mb))
    _say(written)


_DOCTOR = (
    Option("data", Path, "FOLDER", "pictures: layout, classes, copies, leaks between splits, every file decoded"),
    Option("home_pattern", str, "REGEX", "with data: where a file name says the home"),
    Option("store", Path, "FOLDER", "features: digests, leftovers, the file system; when left out that of train.py"),
    Option("run", Path, "FOLDER", "a run: its state, journal, checkpoints"),
)


def _add_doctor(commands: Any) -> None:
    told = "What is wrong, and what mends it. Nothing is changed. Without options: this machine and the store."
    brief, usage = "what is wrong with this machine, a store, pictures or a run", "[NAME=VALUE ...]"
    parser = _add_with_options(commands, _doctor, brief, told, _DOCTOR, usage)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE", help="as above")


def _doctor(given: argparse.Namespace) -> None:
    asked = options_of("doctor", _DOCTOR, given.options)

    from likeness import doctor
    from likeness.config import composed

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


def _add_serve(commands: Any) -> None:
    told = """A page to search an index by photo, on this machine. It needs the extra demo, and no network.

Whoever reaches another --host sees the pictures of the index: there is no password."""
    brief = "a page to search an index by photo"
    parser = commands.add_parser(
        "serve", help=brief, description=told, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", metavar="DIR", type=Path, required=True, help="the index, of likeness index")
    parser.add_argument("--compare", metavar="DIR", type=Path, help="another of the same pictures, to see side by side")
    parser.add_argument("--port", metavar="N", type=_port, default=7860, help="0 takes a free one (default: 7860)")
    parser.add_argument("--host", metavar="NAME", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.set_defaults(do=_serve)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 0 to {_HIGHEST_PORT}")
    return int(text)


def _serve(given: argparse.Namespace) -> None:
    from likeness.serving.server import serve

    serve(given.index, given.compare, given.host, given.port, browser=not given.no_browser)


def _add_sync(commands: Any) -> None:
    told = "Runs, rebuilt from their journals, to wandb: those that had no network, and those that never had wandb on."
    parser = commands.add_parser("sync", help="send runs to wandb that it does not have yet", description=told)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="a run's, a sweep's, or one with some")
    parser.add_argument("--project", metavar="NAME", help="wandb's project (default: as the run was configured)")
    parser.set_defaults(do=_sync)


def _sync(given: argparse.Namespace) -> None:
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


def _at_least(least: int, text: str) -> int:
    if (number := _number(int, text)) < least:
        raise ValueError(f"{number} is less than {least}")
    return number


_HOMES = (
    Option("run", Path, "FOLDER", "the finished run", needed=True),
    Option("data", Path, "FOLDER", "other pictures, a folder for each kind; when left out those of the run"),
    Option("home_pattern", str, "REGEX", "where a file name says the home; when left out as in training"),
    Option(
        "split",
        partial(_one_of, choices=_SPLITS),
        "test",
        "train, val, test or all; when left out test, of other pictures all",
    ),
    Option(
        "halves",
        partial(_values, read=partial(_one_of, choices=("random", "kinds"))),
        "random,kinds",
        "how a home's pictures are halved: by chance, or so that no kind is in both halves",
        ("random", "kinds"),
    ),
    Option(
        "seed",
        partial(_values, read=partial(_at_least, 0)),
        "0,1,2,3,4",
        "of the random halves, averaged",
        tuple(range(5)),
    ),
    Option("k", partial(_values, read=partial(_at_least, 1)), "1,5,10", "of the hits", (1, 5, 10)),
    Option("copies", _switch, "false", "true keeps all pictures of the same bytes, not the first alone", False),
    Option("out", Path, "FOLDER", "where to; when left out RUN/homes"),
    Option("debug", _switch, "false", "true shows where an error comes from", False),
)


def _add_homes(commands: Any) -> None:
    told = "How often the halves of a home's pictures find each other, by every rule that compares sets of pictures."
    brief, usage = "how well homes find homes", "run=FOLDER [NAME=VALUE ...]"
    parser = _add_with_options(commands, _homes, brief, told, _HOMES, usage)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE", help="as above")


def _homes(given: argparse.Namespace) -> None:
    asked = options_of("homes", _HOMES, given.options)

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


def _add_index(commands: Any) -> None:
    parts = commands.add_parser("index", help="a gallery that pictures enter and leave").add_subparsers(
        metavar="COMMAND", required=True
    )

    def part(do: Callable[..., None], told: str) -> argparse.ArgumentParser:
        found = parts.add_parser(do.__name__.removeprefix("_index_"), help=told, description=told)
        found.add_argument("index", metavar="DIR", type=Path, help="the index's folder")
        found.set_defaults(do=do)
        return found

    create = part(_index_create, "an empty index, bound to a run's model")
    create.add_argument("--run", metavar="RUN", type=Path, required=True, help="a finished run, or an exported model")
    create.add_argument("--frozen", action="store_true", help="of the features themselves, without the head")
    create.add_argument("--weights", metavar="FILE", help="where the backbone's weights are now")
    add = part(_index_add, "add pictures; FOLDER/KIND/... gives them their kind")
    _add_places(add, "*")
    add.add_argument("--label", metavar="NAME", help="the kind of all of them")
    add.add_argument("--home", metavar="NAME", help="the home of all of them")
    add.add_argument("--home-pattern", metavar="REGEX", help="or where each file name says its home")
    add.add_argument("--skip-present", action="store_true", help="pass over pictures that are in it already")
    add.add_argument("--run", metavar="RUN", type=Path, help="refuse unless this is the index's model")
    remove = part(_index_remove, "remove pictures")
    remove.add_argument("--ids", metavar="ID", nargs="+", type=int, default=[], help="of pictures")
    remove.add_argument("--home", metavar="NAME", nargs="+", default=[], help="all pictures of these homes")
    info = part(_index_info, "what is in it")
    info.add_argument("--json", action="store_true", help="for a script")
    verify = part(_index_verify, "read every byte of it and say what is damaged")
    verify.add_argument("--mend", action="store_true", help="go on without what is damaged")
    near = part(_index_duplicates, "pairs of pictures that look the same")
    near.add_argument("--above", metavar="COSINE", type=float, default=0.98, help="least similarity (default: 0.98)")
    gauge = part(_index_calibrate, "keep a threshold below which a query is like nothing in the index")
    _add_places(gauge, "+")
    gauge.add_argument(
        "--rate", type=float, default=0.05, help="share of pictures like these that may be rejected (default: 0.05)"
    )


def _add_places(parser: argparse.ArgumentParser, count: str) -> None:
    parser.add_argument("places", metavar="FOLDER|FILE", nargs=count, type=Path, help="pictures")
    parser.add_argument("--store", metavar="FOLDER", help="of features; when left out the run's where it is here")
    parser.add_argument(
        "--on-bad-image", choices=("raise", "quarantine"), default="raise", help="go on without them, or refuse"
    )


def _index_create(given: argparse.Namespace) -> None:
    from likeness.indexing import create

    index = create(given.index, given.run, frozen=given.frozen, weights=given.weights)
    _say(f"{given.index}: an empty index of {index.about['title']}, {index.width} numbers a code")


def _index_add(given: argparse.Namespace) -> None:
    _refuse("index add", list(_add_faults(given)))

    from likeness.indexing import NEAR, add, near_duplicates
    from likeness.retrieval.index import Index

    names = ("label", "home", "home_pattern", "skip_present", "on_bad_image", "store", "run")
    added = add(Index.open(given.index), given.places, **{name: getattr(given, name) for name in names})
    new = added.ids[added.new]
    _say(f"{len(new):,} pictures added, {len(added.ids) - len(new):,} were there; {len(added.generation):,} in all")
    if len(new):
        pairs = near_duplicates(added.generation, new)
        _say(*_pair_lines(added.generation, pairs, f"look like another (cosine of {NEAR} or more)"))


def _add_faults(given: argparse.Namespace) -> Iterator[str]:
    if not given.places:
        yield "FOLDER|FILE: missing, name pictures"
    if given.home and given.home_pattern:
        yield "--home, --home-pattern: give one of them"


def _pair_lines(generation: Any, pairs: Sequence[Any], told: str) -> Iterator[str]:
    if pairs:
        yield f"{len(pairs):,} pairs {told}:"
    for pair in pairs[:10]:
        one, other = (generation.path(int(row)) for row in generation.rows_of([pair.one, pair.other]))
        yield f"  {pair.similarity:.4f}  {pair.one} {one}  {pair.other} {other}"
    if len(pairs) > 10:
        yield f"  … and {len(pairs) - 10:,} more"


def _index_remove(given: argparse.Namespace) -> None:
    _refuse("index remove", [] if given.ids or given.home else ["--ids, --home: missing, name what is to leave"])

    from likeness.retrieval.index import Index

    index = Index.open(given.index)
    before = len(index.newest())
    after = len(index.remove(ids=given.ids, homes=given.home))
    _say(f"{before - after:,} pictures removed; {after:,} are left")


def _index_info(given: argparse.Namespace) -> None:
    from likeness.indexing import facts
    from likeness.retrieval.index import Index

    found = facts(Index.open(given.index))
    if given.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _say(*_info_lines(found))


def _info_lines(found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{kind} {count:,}" for kind, count in value.items())
        yield f"{name:<12} {'–' if value in (None, '') else value}"


def _index_verify(given: argparse.Namespace) -> None:
    from likeness.images.options import readable
    from likeness.indexing import gone
    from likeness.retrieval.index import Index

    index = Index.open(given.index)
    faults = list(index.verify())
    _say(*(f"damaged, {_cost(fault.rows)}: {fault.what}" for fault in faults))
    if faults and given.mend:
        generation, lost = index.mend()
        _say(f"mended: {lost:,} pictures are lost, {len(generation):,} are left; the damaged files were set aside")
        _say("likeness index add brings back those whose files are there")
    elif faults:
        _say(f"go on without what is damaged with likeness index verify {given.index} --mend")
        sys.exit(BAD_DATA)
    else:
        _say(f"{len(index.newest()):,} pictures, every byte as it was written")
        if missing := gone(index.newest()):
            _say(f"of {len(missing):,} the file is not where it was (first: {readable(missing[0])}); they are kept")


def _cost(rows: int | None) -> str:
    return "at an unknown cost" if rows is None else f"at the cost of {rows:,} pictures"


def _index_duplicates(given: argparse.Namespace) -> None:
    _refuse("index duplicates", [] if -1 <= given.above <= 1 else [f"--above: {given.above:g}, a cosine is -1 to 1"])

    from likeness.indexing import near_duplicates
    from likeness.retrieval.index import Index

    generation = Index.open(given.index).newest()
    pairs = near_duplicates(generation, above=given.above)
    told = f"look the same (cosine of {given.above:g} or more)"
    _say(*_pair_lines(generation, pairs, told) if pairs else [f"no pairs {told}"])


def _index_calibrate(given: argparse.Namespace) -> None:
    _refuse("index calibrate", [] if 0 < given.rate < 1 else [f"--rate: {given.rate:g} is not between 0 and 1"])

    from likeness.indexing import calibrated
    from likeness.retrieval.index import Index

    options = {name: getattr(given, name) for name in ("rate", "on_bad_image", "store")}
    threshold = calibrated(Index.open(given.index), given.places, **options)
    low, high = threshold.attained()
    _say(
        f"threshold {threshold.value:.4f}: of pictures like these {threshold.rate:.0%} or less are rejected "
        f"(by these {threshold.n:,}: {low:.1%} to {high:.1%})"
    )


def _add_query(commands: Any) -> None:
    told = "the pictures of an index that are most like one; of several, as one home, the homes"
    parser = commands.add_parser("query", help=told, description=told)
    parser.add_argument("pictures", metavar="IMAGE", nargs="+", help="one picture, or several of one home")
    parser.add_argument("--index", metavar="DIR", type=Path, required=True, help="the index")
    parser.add_argument("-k", type=int, default=5, help="how many to find (default: 5)")
    parser.add_argument("--homes", action="store_true", help="find homes, not pictures")
    parser.add_argument("--rule", choices=RULES, help="how --homes are compared (default: mean)")
    parser.add_argument("--engine", choices=("exact", "flat", "ivf", "hnsw"), default="exact", help="what searches")
    parser.add_argument("--label", nargs="+", default=[], help="only of these kinds")
    parser.add_argument("--home", nargs="+", default=[], help="only of these homes")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="for a script")
    shown.add_argument("--gallery", metavar="FILE.png", type=Path, help="as a picture too")
    parser.set_defaults(do=_query)


def _query(given: argparse.Namespace) -> None:
    _refuse("query", list(_query_faults(given)))

    from likeness.finding import Finder
    from likeness.querying import as_json, board, draw

    finder = Finder.open(given.index, given.engine)
    if given.homes:
        found = finder.find_homes(given.pictures, given.k, rule=given.rule or RULES[0], labels=given.label)
    else:
        found = finder.find(given.pictures, given.k, labels=given.label, homes=given.home)
    if given.json:
        sys.stdout.write(json.dumps(as_json(found), indent=2) + "\n")
        return

    from likeness.console import terminal

    terminal().print(board(found))
    if given.gallery:
        draw(found, given.pictures, finder, given.gallery)
        _say(given.gallery)


def _query_faults(given: argparse.Namespace) -> Iterator[str]:
    if given.k < 1:
        yield f"-k: {given.k}, at least 1"
    if given.gallery and given.gallery.suffix.lower() not in _DRAWN:
        yield f"--gallery: {given.gallery} ends in none of {', '.join(_DRAWN)}"
    if given.homes and given.home:
        yield "--home: only pictures are chosen by home, not --homes"
    if given.rule and not given.homes:
        yield "--rule: compares homes, give --homes too"


def _help(options: Sequence[Option]) -> Iterator[str]:
    width = max(len(f"{option.name}={option.shown}") for option in options)
    yield from (f"  {f'{option.name}={option.shown}':<{width}}  {option.told}" for option in options)


def options_of(command: str, options: Sequence[Option], words: Sequence[str]) -> SimpleNamespace:
    """The values that ``words``, each ``name=value``, give; defaults for the others.

    Raises:
        LikenessError: CONFIG with all faults at once.
    """
    values: dict[str, Any] = {}
    faults = []
    for word in words:
        try:
            name, value = _read(options, word)
            if name in values:
                faults.append(f"{name}: given more than once")
            values[name] = value
        except ValueError as error:
            faults.append(str(error))
    named = {word.partition("=")[0] for word in words}
    needed = [option for option in options if option.needed and option.name not in named]
    faults += [f"{option.name}: missing, give it with {option.name}={option.shown}" for option in needed]
    _refuse(command, faults)
    return SimpleNamespace(**{option.name: option.default for option in options} | values)


def _pictures_and_options(
    command: str, options: Sequence[Option], words: Sequence[str]
) -> tuple[list[Path], SimpleNamespace]:
    """What of ``words`` names pictures, and the values that the others give. A file may be called ``a=b.jpg``."""
    named = [word for word in words if "=" in word and not Path(word).exists()]
    return [Path(word) for word in words if word not in named], options_of(command, options, named)


def _read(options: Sequence[Option], word: str) -> tuple[str, Any]:
    name, _, text = word.partition("=")
    known = {option.name: option for option in options}
    if name not in known:
        takes = f" (it takes {', '.join(known)})"
        raise ValueError(f"{name}: unknown{_suggestion(name, known) or takes}")
    if not text:
        raise ValueError(f"{name}: has no value, give it with {name}={known[name].shown}")
    try:
        return name, known[name].read(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _suggestion(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _refuse(command: str, faults: Sequence[str]) -> None:
    if faults:
        raise LikenessError(
            "CONFIG",
            f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in the options.",
            where="\n".join(faults),
            kept="Nothing was opened or computed yet.",
            fix=f"Correct these options; likeness {command} --help shows all.",
        )


if __name__ == "__main__":
    main()
