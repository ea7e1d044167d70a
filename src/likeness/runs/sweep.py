"""A sweep's jobs: what each of them is, where it lies and how it stands. Results are always read from disk."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
_SUBMITTED = "submitted.json"
UNFINISHED = ("failed", "lost", "interrupted", "preempted")


def identity(cfg: DictConfig) -> str:
    """What tells a job from every other: 12 hex digits of the SHA-256 of its resolved config.

    Paths, trackers, extraction and launcher are left out: they change no result. ``data.root`` is not among the paths.
    """
    chosen = [name for name in cfg if name not in _APART]
    try:
        plain = {name: _plain(cfg, name, resolve=True) for name in chosen}
    except OmegaConfBaseException:  # a config that cannot be resolved is refused later, in a folder of its own
        plain = {name: _plain(cfg, name, resolve=False) for name in chosen}
    text = OmegaConf.to_yaml(OmegaConf.create(plain), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _plain(cfg: DictConfig, name: Any, resolve: bool) -> Any:
    node = cfg._get_node(name) if not resolve or OmegaConf.is_missing(cfg, name) else cfg[name]
    return OmegaConf.to_container(node, resolve=resolve) if OmegaConf.is_config(node) else node


def sweep_name(words: Sequence[str]) -> str:
    """A name for the grid that a command line spells; new values of a swept option make it no other grid.

    >>> sweep_name(["-m", "noise=none,gaussian", "seed=0,1"]) == sweep_name(["-m", "seed=0,1,2", "noise=none,masking"])
    True
    """
    try:
        spelled = OverridesParser.create().parse_overrides([word for word in words if "=" in word and word[0] != "-"])
    except HydraException:  # Hydra itself says what is wrong with it
        return "refused"
    chosen = {key: each for each in spelled if (key := each.key_or_group).partition(".")[0] not in _APART}
    grids = {key: str(each.value()) for each in spelled if (key := each.key_or_group) == "sweep"}
    swept = sorted(key for key, each in chosen.items() if each.is_sweep_override())
    fixed = sorted(str(each.input_line) for key, each in chosen.items() if key not in swept)
    told = "-".join([*(grid.replace("/", "-") for grid in grids.values()), *(key.rpartition(".")[2] for key in swept)])
    return f"{told[:_LONGEST_NAME] or 'sweep'}-{digest([swept, fixed, sorted(grids.values())])[:8]}"


def read_status(folder: Path) -> dict[str, Any]:
    """What ``status.json`` says; nothing where it cannot be read."""
    try:
        status = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def standing(folder: Path, waiting: Mapping[str, str] | None = None, own_lock: bool = False) -> str:
    """How a job stands: new, queued, running, done, failed, preempted, interrupted, or lost.

    Lost is a job that is gone without a word (killed, its node down), or done without a result.

    Args:
        waiting: Of the jobs that a queue still knows, its number by the folder's name (:func:`queued_jobs`).
        own_lock: This process itself holds the folder.
    """
    state = str(read_status(folder).get("state", "new"))
    known = folder.name in (waiting or {})
    if state == "running" and (own_lock or not _is_written_by_another(folder)):
        return "queued" if known else "lost"
    if state == "queued":
        return "queued" if known else "new"
    if state == "done" and not (folder / "metrics.json").exists():
        return "lost"
    return "queued" if known and state in ("preempted", "interrupted") else state


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
    write_json(folder / "status.json", {"state": state, **facts})


def note_queued(folder: Path, facts: Mapping[str, Any]) -> None:
    """Queued, and what became of it before: by that the job knows whether it may go on where it was."""
    told = read_status(folder)
    earlier = told if told.get("state") != "queued" else {**told, "state": told.get("before")}
    note(folder, "queued", {**facts, "before": earlier.get("state"), "code": earlier.get("code")})


def note_submitted(sweep: Path, numbers: Mapping[str, str]) -> None:
    """Which job of a queue each folder is."""
    write_json(sweep / _SUBMITTED, {**_submitted(sweep), **numbers})


def _submitted(sweep: Path) -> dict[str, str]:
    try:
        return json.loads((sweep / _SUBMITTED).read_text())
    except (OSError, ValueError):
        return {}


def queued_jobs(sweep: Path) -> dict[str, str]:
    """Slurm's number by the folder's name, of the jobs that Slurm still holds: pending, running or requeued."""
    numbers = _submitted(sweep)
    if not numbers or shutil.which("squeue") is None:
        return {}
    asked = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.environ.get('USER') or os.getuid()}"],
        capture_output=True,
        text=True,
        check=False,
    )
    alive = set(asked.stdout.split())
    return {name: number for name, number in numbers.items() if number in alive}


def job_folders(sweep: Path) -> list[Path]:
    """The folders of a sweep's jobs, in the order of their numbers."""
    folders = [path.parent for path in sweep.glob("*/status.json")]
    return sorted(folders, key=lambda folder: (read_status(folder).get("job", 0), folder.name))


def command_of(sweep: Path) -> tuple[list[str], Path]:
    """The words after ``python`` that started a sweep, and the folder that it was started in.

    Raises:
        LikenessError: RUN-MISSING where Hydra left no note of it.
    """
    note = sweep / "multirun.yaml"
    if not note.is_file():
        raise _no_sweep(sweep)
    hydra = OmegaConf.load(note).hydra
    place = Path(hydra.runtime.cwd)
    (folder,) = (Path(each.path) for each in hydra.runtime.config_sources if each.provider == "main")
    told = [word for word in hydra.overrides.task if not word.startswith(("sweep.dry_run", "sweep.name="))]
    script = folder.parent / f"{hydra.job.name}.py"
    return [str(script), "-m", *told, *hydra.overrides.hydra, f"hydra.sweep.dir={sweep.absolute()}"], place


def remove_jobs(sweep: Path, finished: bool) -> int:
    """Remove the folders of unfinished jobs, and with ``finished`` of all and the sweep's own; how many jobs it were.

    Raises:
        LikenessError: RUN-MISSING, or RUN-DIR while a job is running; nothing is removed then.
    """
    folders = job_folders(sweep)
    if not folders:
        raise _no_sweep(sweep)
    waiting = queued_jobs(sweep)
    states = {folder: standing(folder, waiting) for folder in folders}
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


def _no_sweep(sweep: Path) -> LikenessError:
    return LikenessError(
        "RUN-MISSING",
        "there is no sweep in this folder.",
        where=str(sweep.absolute()),
        fix="Give the folder that train.py -m printed, outputs/sweep/NAME.",
    )


def counted(states: Iterable[str]) -> str:
    """``12 done, 2 failed``, in the order in which a job goes through them."""
    order = ("done", "running", "queued", "new", *UNFINISHED, "refused")
    seen = list(states)
    return ", ".join(f"{count} {state}" for state in order if (count := seen.count(state)))
