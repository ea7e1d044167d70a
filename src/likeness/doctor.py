"""What is wrong with this machine, a store, a folder of pictures or a run, and what mends it. Nothing is changed."""

import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from packaging.requirements import Requirement

from likeness.console import progress
from likeness.errors import LikenessError, listed
from likeness.features.store import inspect
from likeness.files import write_atomic
from likeness.images.decoding import BadImage, Decoder, white_share
from likeness.images.folder import ImageFolder, digests, report_duplicates
from likeness.images.options import readable
from likeness.images.splits import SPLITS
from likeness.images.table import ImageTable
from likeness.runs.checkpoint import CARD, newest_checkpoint, open_checkpoint
from likeness.runs.journal import epochs, read
from likeness.runs.sweep import read_status, standing
from likeness.runs.trackers import why_offline

_MOSTLY_WHITE = 0.69  # what the thesis left out
_CLOCK_SKEW_S = 2.0
_OLD_S = 24 * 3600.0
_MENDS = {
    "DATA-LEAK": "Leave the copies, or the pictures of these homes, in one split only.",
    "DATA-CLASS": "Give the class more pictures, in train too, or leave it out.",
    "DATA-LAYOUT": "Move them into the folder of their class.",
    "DATA-SPECIAL": "Remove them, or put the files themselves in their place.",
    "DATA-HOMES": "Change home_pattern so that it is found in each file name.",
}


class Finding(NamedTuple):
    """``state`` is fine, note or fault; a fault comes with what mends it."""

    state: str
    what: str
    mend: str = ""


def machine() -> Iterator[Finding]:
    """Versions, processor, GPU, compiler, wandb and Slurm."""
    yield Finding("fine", f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, torch {torch.__version__}")
    yield from _packages()
    yield from _processors()
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        yield Finding("note", "no C++ compiler: compile_optimizer=true is not possible", "apt-get install g++")
    if not _is_installed("wandb"):
        yield Finding("note", "wandb is not installed: logger=wandb is not possible", 'pip install "likeness[wandb]"')
    elif cause := why_offline():
        yield Finding("note", f"wandb would be offline: {cause}", "wandb login; runs are sent later with likeness sync")
    else:
        yield Finding("fine", "wandb: the server answers, and there is a key")
    yield _slurm()


def _packages() -> Iterator[Finding]:
    """Every requirement of this package that is not met; of an extra's, only where another version is there."""
    absent: dict[str, list[str]] = defaultdict(list)
    met = 0
    for need in map(Requirement, importlib.metadata.requires("likeness") or []):
        extra = str(need.marker).partition("extra == ")[2].strip("\"' ") if need.marker else ""
        found = importlib.metadata.version(need.name) if _is_installed(need.name) else None
        if found and need.specifier.contains(found, prereleases=True):
            met += 1
        elif found:
            yield Finding("fault", f"{need.name} is {found}", f'pip install "{need.name}{need.specifier}"')
        elif extra:
            absent[extra].append(need.name)
        else:
            yield Finding("fault", f"{need.name} is missing", f'pip install "{need.name}{need.specifier}"')
    yield Finding("fine", f"{met} packages are of a version that is tested")
    if absent := {extra: names for extra, names in absent.items() if extra != "dev"}:
        yield Finding("note", f"extras that are not installed: {', '.join(absent)}", 'pip install "likeness[NAME]"')


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _processors() -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield Finding("fine", f"GPU {index}: {found.name}, {found.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        mend = "Install a driver that is as new as this torch, or a torch for this driver (nvidia-smi says which)."
        yield Finding("fault", f"there is a GPU's driver, and torch (CUDA {torch.version.cuda}) cannot use it", mend)
    elif not torch.cuda.is_available():
        quick = "multiplies" if torch.cpu._is_avx512_bf16_supported() else "does not multiply"
        yield Finding("note", f"no GPU; the processor {quick} bfloat16 in hardware")


def _slurm() -> Finding:
    if shutil.which("sbatch") is None:
        return Finding("note", "no Slurm here: launcher=slurm is not possible, launcher=slurm_local and joblib are")
    try:
        told = subprocess.run(["sinfo", "-h", "-o", "%P %a"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("fault", f"Slurm does not answer: {error}", "Ask its administrator; sinfo must answer.")
    if told.returncode:
        return Finding(
            "fault", f"Slurm does not answer: {told.stderr.strip()}", "sinfo must answer; is SLURM_CONF right?"
        )
    return Finding("fine", f"Slurm: partitions {', '.join(told.stdout.split()[::2])}")


def store(folder: Path) -> Iterator[Finding]:
    """A store of features: its file system, every shard's digests, and what killed writers left."""
    if not folder.is_dir():
        yield Finding("note", f"no store of features yet in {folder}")
        return
    free = shutil.disk_usage(folder).free
    yield Finding("fine" if free > 2**30 else "fault", f"{free / 2**30:,.1f} GiB are free", "Free some space.")
    yield from _file_system(folder)
    for shelf in sorted(path for path in folder.iterdir() if len(path.name) == 16 and path.is_dir()):
        found = inspect(shelf)
        yield Finding("fine", f"{shelf.name}: {found.rows:,} rows, {found.bytes / 2**20:,.0f} MiB, digests are right")
        mend = f"Nothing: the next run sets it aside and computes its rows again. By hand: rm {shelf}/FILE"
        yield from (Finding("fault", f"{shelf.name}: {fault}", mend) for fault in found.faults)
        aside = sorted(shelf.glob("*.corrupt-*"))
        if aside:
            yield Finding(
                "note", f"{shelf.name}: {len(aside)} damaged shards were set aside", f"rm {shelf}/*.corrupt-*"
            )
        if old := [path for path in shelf.glob(".tmp-*") if time.time() - path.stat().st_mtime > _OLD_S]:
            yield Finding("note", f"{shelf.name}: {len(old)} files of writers that died", f"rm {shelf}/.tmp-*")


def _file_system(folder: Path) -> Iterator[Finding]:
    """Whether locks lock, renames replace, and the clock is this machine's, all tried in the folder itself."""
    trial = folder / f".doctor-{os.getpid()}"
    try:
        write_atomic(trial, b"one")
        write_atomic(trial, b"two")
        if trial.read_bytes() != b"two":
            yield Finding("fault", f"a rename in {folder} does not replace", "Take another disk with paths.store=.")
        if abs(trial.stat().st_mtime - time.time()) > _CLOCK_SKEW_S:
            yield Finding("note", f"the clock of {folder} is not this machine's; nothing depends on it")
        yield _locks(trial)
    except LikenessError as error:
        yield Finding("fault", f"{folder} cannot be written: {error.cause}", "Ask for access, or give paths.store=.")
    finally:
        for path in (trial, trial.with_suffix(".lock")):
            path.unlink(missing_ok=True)


def _locks(trial: Path) -> Finding:
    place = trial.with_suffix(".lock")
    what = "; jobs that start together may do some work twice, and none of it wrong"
    mend = "Take another disk with paths.store=, or fill the store with one job first."
    try:
        with FileLock(place, timeout=0), FileLock(place, timeout=0):
            return Finding("fault", f"locks in {trial.parent} lock nothing{what}", mend)
    except Timeout:
        return Finding("fine", "files are replaced at once, and locks lock")
    except (OSError, NotImplementedError) as error:
        return Finding("fault", f"there are no locks in {trial.parent} ({error}){what}", mend)


def dataset(root: Path, home_pattern: str | None = None) -> Iterator[Finding]:
    """A folder of pictures: its layout, classes, copies, leaks between splits, and every file decoded.

    Raises:
        LikenessError: DATA-MISSING, DATA-LAYOUT or DATA-HOMES where there is nothing to look at.
    """
    workers = os.cpu_count() or 1
    with _warnings() as told:
        table = ImageFolder(str(root), home_pattern).table()
        contents = digests(table.files(), workers)
        report_duplicates(table, contents)
    yield Finding("fine", f"{len(table):,} pictures of {len(table.classes)} classes")
    yield from (Finding("note", line) for line in _counts(table))
    if copies := len(contents) - len(np.unique(contents, axis=0)):
        yield Finding("note", f"{copies:,} pictures have the bytes of another")
    for code, text in told:
        yield Finding("fault", text, _MENDS[code])
    yield from _pictures(table, workers)


@contextmanager
def _warnings() -> Iterator[list[tuple[str, str]]]:
    """Code and text of the warnings that the images' room gives within; they are not shown."""
    found: list[tuple[str, str]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            code, _, text = record.getMessage().lstrip("[").partition("] ")
            if code in _MENDS:
                found.append((code, text))

    room, handler = logging.getLogger("likeness.images"), Kept()
    room.addHandler(handler)
    was, room.propagate = room.propagate, False
    try:
        yield found
    finally:
        room.removeHandler(handler)
        room.propagate = was


def _counts(table: ImageTable) -> Iterator[str]:
    for split in SPLITS:
        labels = table.of_split(split).labels
        of_class = np.bincount(labels[labels >= 0], minlength=len(table.classes))
        named = zip(table.classes, of_class.tolist(), strict=True)
        yield f"{split}: " + ", ".join(f"{readable(name)} {count:,}" for name, count in named)


def _pictures(table: ImageTable, workers: int) -> Iterator[Finding]:
    decoder = Decoder()
    bad: dict[str, list[str]] = defaultdict(list)
    notes: Counter[str] = Counter()
    white = []

    def looked_at(row: int) -> tuple[BadImage | None, frozenset[str], float]:
        try:
            image, found = decoder.decode(table.path(row).read_bytes())
        except BadImage as error:
            return error, frozenset(), 0.0
        except OSError as error:
            return BadImage("IMG-TRUNCATED", str(error)), frozenset(), 0.0
        return None, found, white_share(image)

    with ThreadPoolExecutor(workers) as pool, progress("decoding", len(table)) as advance:
        for row, (error, found, share) in enumerate(pool.map(looked_at, range(len(table)))):
            advance()
            notes.update(found)
            if error:
                bad[error.code].append(f"{readable(table.paths[row])}: {error.cause}")
            elif share > _MOSTLY_WHITE:
                white.append(readable(table.paths[row]))
    yield from (Finding("note", f"{count:,} pictures: {rule}") for rule, count in sorted(notes.items()))
    mend = "Mend or remove them, or leave them out with data.on_bad_image=quarantine."
    for code, paths in sorted(bad.items()):
        yield Finding("fault", f"{len(paths):,} pictures [{code}]\n{listed(paths, 5)}", mend)
    if white:
        mend = f"data.mostly_white={_MOSTLY_WHITE} leaves them out."
        yield Finding("note", f"{len(white):,} pictures are mostly white, as plans are\n{listed(white, 3)}", mend)
    if not bad:
        yield Finding("fine", "every picture can be decoded")


def run(folder: Path) -> Iterator[Finding]:
    """A run's folder: how it stands, its journal, its checkpoints, and whether its features and pictures are there.

    Raises:
        LikenessError: RUN-MISSING where there is no run.
    """
    if not read_status(folder):
        raise LikenessError(
            "RUN-MISSING",
            f"there is no run in {folder}.",
            where=str(folder.absolute()),
            fix="Give the folder that train.py printed.",
        )
    state = standing(folder)
    again = f"Run the same command again, with hydra.run.dir={folder}"
    yield Finding("fine" if state in ("done", "running") else "fault", f"it is {state}", again)
    events = read(folder / "journal.jsonl")
    yield Finding(
        "fine" if events else "fault", f"the journal has {len(events):,} events, {len(epochs(events))} epochs", again
    )
    checkpoints: Sequence[Path] = sorted((folder / "checkpoints").glob("*.ckpt"))
    for path in checkpoints:
        try:
            content = open_checkpoint(path)
        except LikenessError as error:
            yield Finding("fault", f"{path.name}: {error.what} {error.cause}", f"rm {path}, and the same command again")
        else:
            yield Finding("fine", f"{path.name} opens, and its checksums are right")
            if path.name == "best.ckpt":
                yield from _what_it_needs(content[CARD])
    if state != "done" and checkpoints and newest_checkpoint(folder / "checkpoints") is None:
        yield Finding("note", "no checkpoint to go on from: it would start anew", again)


def _what_it_needs(card: dict) -> Iterator[Finding]:
    shelf = Path(str(card.get("store")), str(card.get("fingerprint"))[:16])
    if not shelf.is_dir():
        mend = "likeness extract with the run's options, or paths.store= where they are"
        yield Finding("note", f"its features are not in {shelf}: an evaluation computes them again", mend)
    root = (card.get("data") or {}).get("root")
    if root and not Path(root).is_dir():
        yield Finding("note", f"its pictures are not in {root}", "python evaluate.py run=FOLDER data.root=PHOTOS")
