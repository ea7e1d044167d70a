"""A sweep's jobs: what each of them is, where it lies and how it stands. Results are always read from disk."""

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from likeness.errors import LikenessError, listed
from likeness.files import digest, write_json

# Where a job runs, where its files go and who is told: the same job whatever they say.
_APART = {"hydra", "paths", "logger", "extraction", "launcher", "sweeper", "sweep", "debug"}
_DIGITS = 12
_LONGEST_NAME = 60
_NOTE, _SUBMITTED = "sweep.json", "submitted.json"
_SECONDS_FOR_AN_ANSWER = 60
UNFINISHED = ("failed", "lost", "interrupted", "preempted")


def identity(cfg: DictConfig) -> str:
    """What tells a job from every other: 12 hex digits of the SHA-256 of its resolved config.

    Paths, trackers, extraction and launcher are left out: they change no result. ``data.root`` is not among the paths,
    and counts as it is spelled; what refers to a path counts as if that were called by its own name.
    """
    bare = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name not in ("hydra", "logger")])
    for path in bare.get("paths", ()):
        bare.paths[path] = path
    try:
        plain = OmegaConf.to_container(bare, resolve=True)
    except OmegaConfBaseException:  # a config that cannot be resolved is refused later, in a folder of its own
        plain = OmegaConf.to_container(bare)
    assert isinstance(plain, dict)
    text = OmegaConf.to_yaml({name: value for name, value in plain.items() if name not in _APART}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def sweep_name(words: Sequence[str]) -> str:
    """A name for the grid that a command line spells; new values of a swept option make it no other grid.

    >>> sweep_name(["-m", "noise=none,gaussian", "seed=0,1"]) == sweep_name(["-m", "seed=0,1,2", "noise=none,masking"])
    True
    """
    try:
        spelled = OverridesParser.create().parse_overrides([word for word in words if "=" in word and word[0] != "-"])
    except HydraException:  # Hydra itself says what is wrong with it
        return "refused"
    chosen = {key: each for each in spelled if not _is_apart(key := each.key_or_group)}
    grids = [str(each.value()) for each in spelled if each.key_or_group == "sweep"]
    swept = sorted(key for key, each in chosen.items() if each.is_sweep_override())
    fixed = sorted(str(each.input_line) for key, each in chosen.items() if key not in swept)
    told = "-".join([*grids, *(key.rpartition(".")[2] for key in swept)])
    told = re.sub(r"[^\w-]+", "-", told)[:_LONGEST_NAME].strip("-")
    return f"{told or 'sweep'}-{digest([swept, fixed, grids])[:8]}"


def typed(words: Any) -> list[str]:
    """Hydra's list of overrides as they were typed: what they refer to, such as the environment, is not followed."""
    return [str(word) for word in cast(list[Any], OmegaConf.to_container(words))]


def options_of_a_job(words: Iterable[str]) -> list[str]:
    """A job's overrides without those that change no result, which would tell apart in a table what is the same."""
    return [word for word in words if word.startswith("sweep=") or not _is_apart(word.lstrip("+~"))]


def _is_apart(option: str) -> bool:
    return re.split(r"[./@=]", option)[0] in _APART


def read_status(folder: Path) -> dict[str, Any]:
    """What ``status.json`` says; nothing where it cannot be read."""
    return _read(folder / "status.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_done(folder: Path) -> bool:
    """Whether a job says that it is done, and has its results."""
    return read_status(folder).get("state") == "done" and (folder / "metrics.json").exists()


def standing(folder: Path, waiting: Collection[str] = ()) -> str:
    """How a job stands: new, queued, running, done, failed, preempted, interrupted, or lost.

    Lost is a job that is gone without a word (killed, its node down), or done without a result.

    Args:
        waiting: Names of the folders whose jobs a queue still holds (:func:`queued_jobs`).
    """
    state = str(read_status(folder).get("state", "new"))
    if state == "done":
        return "done" if is_done(folder) else "lost"
    if state == "running" and _is_written_by_another(folder):
        return "running"
    if state != "failed" and folder.name in waiting:
        return "queued"
    return {"running": "lost", "queued": "new"}.get(state, state)


def _is_written_by_another(folder: Path) -> bool:
    """Whether a process holds the folder's lock; where locks do not work, whether the process is there."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        status = read_status(folder)
        return status.get("host") != socket.gethostname() or Path(f"/proc/{status.get('pid')}").exists()


def note(folder: Path, state: str, facts: Mapping[str, Any]) -> None:
    """What a sweep says of a job that does not speak for itself yet."""
    write_json(folder / "status.json", {**facts, "state": state})


def note_lost(folder: Path) -> None:
    """What a job can no longer say itself."""
    note(folder, "lost", {**read_status(folder), "error": "gone without a word: killed, or its machine went down"})


def note_queued(folder: Path, facts: Mapping[str, Any]) -> None:
    """Queued, and what became of it before: by that the job knows whether it may go on where it was."""
    told = read_status(folder)
    earlier = told if told.get("state") != "queued" else {**told, "state": told.get("before")}
    note(folder, "queued", {**facts, "before": earlier.get("state"), "code": earlier.get("code")})


def note_submitted(sweep: Path, numbers: Mapping[str, str]) -> None:
    """Which job of a queue each folder is."""
    write_json(sweep / _SUBMITTED, {**_read(sweep / _SUBMITTED), **numbers})


def queued_jobs(sweep: Path) -> dict[str, str]:
    """Slurm's number by the folder's name, of the jobs that Slurm still holds: pending, running or requeued.

    Raises:
        LikenessError: QUEUE when Slurm does not answer: a job that is taken for gone would be started twice.
    """
    numbers = {name: number for name, number in _read(sweep / _SUBMITTED).items() if not is_done(sweep / name)}
    if not numbers or shutil.which("squeue") is None:
        return {}
    asked = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_SECONDS_FOR_AN_ANSWER).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise LikenessError(
            "QUEUE",
            "Slurm does not say which jobs it holds.",
            where=shlex.join(asked),
            cause=str(getattr(error, "stderr", "") or error).strip(),
            kept="All of it: nothing was started.",
            fix="Run the same command again when Slurm answers.",
        ) from error
    alive = set(told.split())
    return {name: number for name, number in numbers.items() if number in alive}


def job_folders(sweep: Path) -> list[Path]:
    """The folders of a sweep's jobs, in the order of their numbers."""
    folders = [path.parent for path in sweep.glob("*/status.json")]
    return sorted(folders, key=lambda folder: (read_status(folder).get("job", 0), folder.name))


def note_command(sweep: Path, words: Sequence[str], jobs: Iterable[str], first: bool) -> None:
    """What started a sweep, where, and its jobs' folders: added to those noted before unless these are the first."""
    known = [] if first else _read(sweep / _NOTE).get("jobs", [])
    script, *options = words
    command = [str(Path(script).absolute()), *options]
    write_json(sweep / _NOTE, {"command": command, "place": os.getcwd(), "jobs": sorted({*known, *jobs})})


def command_of(sweep: Path) -> tuple[list[str], Path]:
    """The words after ``python`` that start a sweep again, wherever its folder is now, and where to start it.

    Raises:
        LikenessError: RUN-MISSING where no sweep left a note.
    """
    noted = _noted(sweep)
    folder = str(sweep.absolute()).replace("'", r"\'")
    return [*noted["command"], f"hydra.sweep.dir='{folder}'"], Path(noted["place"])


def asked_jobs(sweep: Path) -> list[str]:
    """The folders' names of the jobs of the last command, all where that is not known; others are of earlier ones."""
    return list(_read(sweep / _NOTE).get("jobs", [folder.name for folder in job_folders(sweep)]))


def _noted(sweep: Path) -> dict[str, Any]:
    if not (noted := _read(sweep / _NOTE)):
        raise LikenessError(
            "RUN-MISSING",
            "there is no sweep in this folder.",
            where=str(sweep.absolute()),
            fix="Give the folder that train.py -m named, outputs/sweep/NAME.",
        )
    return noted


def remove_jobs(sweep: Path, finished: bool) -> int:
    """Remove the folders of unfinished jobs, and with ``finished`` of all and the sweep's own; how many jobs it were.

    Raises:
        LikenessError: RUN-MISSING, or RUN-DIR while a job is running; nothing is removed then.
    """
    _noted(sweep)  # whatever else lies there, it is not ours to remove
    waiting = queued_jobs(sweep)
    states = {folder: standing(folder, waiting) for folder in job_folders(sweep)}
    busy = [folder.name for folder, state in states.items() if state in ("running", "queued")]
    if busy:
        raise LikenessError(
            "RUN-DIR",
            f"{len(busy)} jobs of the sweep are running or queued.",
            where=f"{sweep.absolute()}\n{listed(busy, 5)}",
            kept="All of it: nothing was removed.",
            fix="Wait for them, or end them first (scancel, Ctrl-C).",
        )
    chosen = [folder for folder, state in states.items() if finished or state in (*UNFINISHED, "new")]
    for folder in [sweep] if finished else chosen:
        shutil.rmtree(folder)
    return len(chosen)


def counted(states: Iterable[str]) -> str:
    """``12 done, 2 failed``, in the order in which a job goes through them."""
    order = ("done", "running", "queued", "new", *UNFINISHED, "refused")
    seen = list(states)
    return ", ".join(f"{count} {state}" for state in order if (count := seen.count(state)))
