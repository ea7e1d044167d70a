"""What a command costs before it does any work: start-up, the first training step, the next job, a grid of 24 heads.

    python benchmarks/start.py [--repeats 5] [--epochs 10] [--pictures 3210] [--parts start,first,second,grid]

Every row of features is in the store before. Commands and the bare imports that they are compared with take turns, each
in a fresh process; beside the seconds of the clock stand those of the processor, which other work on the machine moves
less. The grid runs once, in one process as `train.py -m` does; its parts are what no sweep could leave out: fits
(training, baselines) and scores (neighbours, intervals), timed within that very process. What it takes with the 60
epochs that are the default is reckoned from the epochs that were run.
"""

import argparse
import contextlib
import io
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import measuring  # which imports nothing that torch would not
import numpy as np
from measuring import ROOT

HEADS, DEFAULT_EPOCHS = 24, 60
TRAIN, EVALUATE = str(ROOT / "train.py"), str(ROOT / "evaluate.py")
BARE = "import torch, torchvision, pytorch_lightning, torchmetrics, hydra"
GRID = [
    "architecture.widths=[64],[128],[256],[512]",
    "noise=none,gaussian,masking,salt_and_pepper,gaussian_as_published,thesis_gaussian",
]
PARTS = {  # of a sweep's work
    "training": ("likeness.assembly", "training", "fit_heads"),
    "baselines": ("likeness.assembly", "baselines", "fit_methods"),
    "neighbours": ("likeness.assembly", "scoring", "score_splits"),
    "intervals and tests": ("likeness.assembly", "reporting", "compare"),
}
OTHERS = {  # what is done around it
    "reading the grid": ("likeness", "grid", "read_grid"),
    "finding the features": ("likeness.assembly", "extracting", "find_features"),
    "results, intervals within": ("likeness.assembly", "reporting", "write_results"),
    "tables at the end": ("likeness.reports.sweep", "EndOfSweep", "on_multirun_end"),
}
Seconds = tuple[float, float]  # of the clock, of the processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10, help="of each of the 24 heads")
    parser.add_argument("--pictures", type=int, default=3210)
    parser.add_argument("--parts", default="start,first,second,grid")
    parser.add_argument("--inside", choices=("first", "second", "grid"), help=argparse.SUPPRESS)
    given, words = parser.parse_known_args()
    if given.inside:
        _INSIDE[given.inside](words)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_measured(given, Path(folder)))
    peers = ("torchvision", "pytorch-lightning", "torchmetrics", "hydra-core")
    sys.stdout.write(measuring.report("start", rows, measuring.environment(peers)))


def _measured(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    parts = given.parts.split(",")
    if "start" in parts:
        yield from _start(given.repeats, folder)
    if set(parts) - {"start"}:
        _fill(folder, given.pictures)
    if "first" in parts:
        yield from _first_step(given.repeats, folder)
    if "second" in parts:
        yield from _second_job(given.repeats, folder)
    if "grid" in parts:
        yield from _grid(given.epochs, folder)


def _start(repeats: int, folder: Path) -> Iterator[dict[str, Any]]:
    extract = "from likeness.app import main; main()"
    commands = {
        "train.py --help": [TRAIN, "--help"],
        "train.py --cfg job": [TRAIN, "--cfg", "job"],
        "evaluate.py --help": [EVALUATE, "--help"],
        "likeness --help": ["-c", extract, "--help"],
        "likeness extract --cfg job": ["-c", extract, "extract", "--cfg", "job"],
    }
    taken = _in_turns({name: lambda words=words: _whole(words, folder) for name, words in commands.items()}, repeats)
    for name, seconds in taken.items():
        yield _row(name, seconds, "at most 0.5 s")


def _first_step(repeats: int, folder: Path) -> Iterator[dict[str, Any]]:
    calls = {
        "bare imports": lambda: _told([sys.executable, "-c", f"{BARE}{_SAY}"], folder)[0],
        "train.py to its first step": lambda: _told(_again("first", *_options(folder)), folder)[0],
    }
    taken = _in_turns(calls, repeats)
    bare, first = taken
    ratios = [measuring.ratio(each, first, bare) for each in (taken, {k: v.processor for k, v in taken.items()})]
    yield _row(bare, taken[bare])
    told = f"at most 1.2 of the bare imports; was {ratios[0]:.2f} by the clock, {ratios[1]:.2f} of the processor"
    yield _row(first, taken[first], told)


def _second_job(repeats: int, folder: Path) -> Iterator[dict[str, Any]]:
    seeds = ",".join(map(str, range(repeats + 1)))
    words = ["-m", *_options(folder), f"seed={seeds}", "trainer.max_epochs=1"]
    each = _told(_again("second", *words), folder)[1:]
    yield _row("a next job to its first step", measuring.Rounds(*zip(*each, strict=True)), "at most 0.3 s")


def _grid(epochs: int, folder: Path) -> Iterator[dict[str, Any]]:
    words = ["-m", *_options(folder), *GRID, f"trainer.max_epochs={epochs}"]
    (clock, processor), *named = _told(_again("grid", *words), folder)
    whole, each = np.array([clock, processor]), dict(zip([*PARTS, *OTHERS], map(np.array, named), strict=True))
    yield _once(f"{HEADS} heads of {epochs} epochs", whole)
    for name, seconds in each.items():
        yield _once(f"{HEADS} heads, {name}", seconds)
    parts = sum(each[name] for name in PARTS)
    more = each["training"] * (DEFAULT_EPOCHS / epochs - 1)
    ratio, reckoned = whole / parts, (whole + more) / (parts + more)
    told = f"whole to parts: at most 1.1; was {ratio[0]:.3f} by the clock, {ratio[1]:.3f} of the processor; "
    told += f"with {DEFAULT_EPOCHS} epochs reckoned as {reckoned[0]:.3f} and {reckoned[1]:.3f}"
    yield _once(f"{HEADS} heads, sum of the parts", parts, told)
    yield _once("a job of them, around its parts", (whole - parts) / HEADS)


def _row(what: str, taken: measuring.Rounds, aim: str = "") -> dict[str, Any]:
    return {"what": what, **measuring.figures({what: taken}, what), "aim": aim}


def _once(what: str, seconds: np.ndarray, aim: str = "") -> dict[str, Any]:
    return {"what": what, "s": float(seconds[0]), "processor s": float(seconds[1]), "aim": aim}


def _in_turns(calls: dict[str, Callable[[], Seconds]], repeats: int) -> dict[str, measuring.Rounds]:
    """As ``measuring.interleaved``, of calls that time themselves: another process's processor is not this one's."""
    taken = {name: measuring.Rounds() for name in calls}
    for round_ in range(repeats + 1):
        for name, call in calls.items():
            clock, processor = call()
            if round_:
                taken[name].append(clock)
                taken[name].processor.append(processor)
    return taken


def _whole(words: list[str], folder: Path) -> Seconds:
    """From a process's start to its end."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *words], cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, used


_SAY = "; import os, sys, time; sys.stderr.write(f'\\ntaken {time.time()} {time.process_time()}\\n'); os._exit(0)"


def _told(command: list[str], folder: Path) -> list[Seconds]:
    """What a process says of itself in lines ``taken CLOCK PROCESSOR``; the first is of its start, on its clock."""
    started = time.time()
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
    lines = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("taken ")]
    assert lines, done.stderr[-3000:]
    taken = [(float(clock), float(processor)) for clock, processor in lines]
    return [(taken[0][0] - started if taken[0][0] > 1e9 else taken[0][0], taken[0][1]), *taken[1:]]


def _again(inside: str, *words: str) -> list[str]:
    return [sys.executable, __file__, "--inside", inside, *words]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def _options(folder: Path) -> list[str]:
    return ["data=folder", f"data.root={folder / 'photos'}", f"paths.store={folder / 'store'}", "architecture=dense"]


def _fill(folder: Path, pictures: int) -> None:
    """Files of the size of small photographs, never decoded, and drawn features of 1024 numbers for each."""
    from likeness.assembly import building, extracting
    from likeness.config.checking import checked
    from likeness.config.composing import composed
    from likeness.features.store import Shelf
    from likeness.images.folder import digests

    rng = np.random.default_rng(0)
    for number in range(pictures):
        path = folder / "photos" / f"room{number % 5}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(1 << 16))
    config = checked(composed(_options(folder)))
    extractor, table = extracting.build_extractor(config), building.build(config["data"]).table()
    centres = rng.standard_normal((5, *extractor.feature_shape()))
    rows = 0.1 * centres[table.labels] + rng.standard_normal((pictures, *extractor.feature_shape()))
    keys, white = digests(table.files(), 2), np.zeros(pictures, np.float32)
    Shelf(folder / "store", extractor.identity()).add(keys, rows.astype(np.float32), white)


def _inside_first(words: list[str]) -> None:
    """train.py, until its first training step; nothing is imported that it would not import then itself."""

    def stop(*given: Any) -> None:
        exec(_SAY.removeprefix("; "))

    _run(words, lambda: _patch("likeness.heads.autoencoder", "Autoencoder", "training_step", lambda step: stop))


def _inside_second(words: list[str]) -> None:
    """Every job's way from the launcher to its first step; the first job's is told with the others."""
    began: list[Seconds] = []

    def launching(launch: Callable) -> Callable:
        def started(*given: Any) -> Any:
            began.append(_now())
            return launch(*given)

        return started

    def stepping(step: Callable) -> Callable:
        def stepped(*given: Any) -> Any:
            if began:
                _say(began.pop())
            return step(*given)

        return stepped

    def patch() -> None:
        launchers = sys.modules["hydra_plugins.likeness_launchers"]
        launchers.run_job = launching(launchers.run_job)
        _patch("likeness.heads.autoencoder", "Autoencoder", "training_step", stepping)

    _run(words, patch)


def _inside_grid(words: list[str]) -> None:
    """The multirun from its first config to its last table, imports done, and how long the parts of its jobs took."""
    from likeness.runs import launch

    with launch.importing():  # as the command itself does
        from likeness.assembly import reporting, training  # noqa: F401

    spent = {name: np.zeros(2) for name in (*PARTS, *OTHERS)}

    def timed(name: str, call: Callable) -> Callable:
        def measured(*given: Any, **options: Any) -> Any:
            started = np.array(_now())
            try:
                return call(*given, **options)
            finally:
                spent[name] += np.array(_now()) - started

        return measured

    for name, place in (PARTS | OTHERS).items():
        _patch(*place, partial(timed, name))
    began = _now()
    _run(words, lambda: None)
    _say(began)
    for clock, processor in spent.values():
        sys.stderr.write(f"taken {clock} {processor}\n")


def _run(words: list[str], patch: Callable[[], None]) -> None:
    """train.py with these words; ``patch`` is called once, when all is imported."""
    from likeness.runs import launch

    real, patched = launch.importing, []

    @contextmanager
    def importing() -> Iterator[None]:
        with real():
            yield
        if not patched:
            patched.append(True)
            patch()

    launch.importing = importing
    sys.argv = [TRAIN, *words]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(TRAIN, run_name="__main__")


def _patch(module: str, owner: str, name: str, wrap: Callable[[Callable], Callable]) -> None:
    holder = getattr(__import__(module, fromlist=[owner]), owner)
    setattr(holder, name, wrap(getattr(holder, name)))


def _now() -> Seconds:
    return time.perf_counter(), time.process_time()


def _say(since: Seconds) -> None:
    clock, processor = _now()
    sys.stderr.write(f"\ntaken {clock - since[0]} {processor - since[1]}\n")


_INSIDE = {"first": _inside_first, "second": _inside_second, "grid": _inside_grid}


if __name__ == "__main__":
    main()
