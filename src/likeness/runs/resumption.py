"""Whether a run that starts in a folder goes on with the unfinished one that lies there."""

import logging
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from likeness.errors import listed
from likeness.files import alive, sweep_temporary
from likeness.runs.sweep import read_status

log = logging.getLogger(__name__)

# Options that change no number: where things lie, what is shown, how fast, how often it is saved.
_INDIFFERENT = ("paths", "logger", "figures", "extraction", "sweep", "debug", "callbacks.resume")
_ENDED_BY_THE_DISK = ("DISK", "CKPT")


def resume(folder: Path, cfg: DictConfig, locked: bool) -> bool:
    """Whether the run of ``cfg`` goes on in ``folder``; says from which step, or why it starts anew.

    Args:
        locked: The folder's lock is held, so whoever wrote "running" there is gone.
    """
    if not _unfinished(folder, locked):
        return False
    if changed := _changed(folder, cfg):
        log.warning("[RESUME] fresh start: the run in this folder had other options\n%s", listed(changed))
        return False
    from likeness.runs.checkpoint import newest_checkpoint, step_of  # torch is slow to import
    from likeness.runs.journal import Journal

    found = newest_checkpoint(folder / "checkpoints")
    step = step_of(found) if found else 0
    log.info("[RESUME] found step %d", step) if found else log.info("[RESUME] fresh start: no step was saved")
    if found is None and ((folder / "checkpoints").exists() or (folder / "metrics.json").exists()):
        return False
    sweep_temporary(folder / "checkpoints")
    Journal(folder / "journal.jsonl").write("resumed_from", step=step)
    return True


def forget(folder: Path) -> None:
    """A finished run needs no checkpoints to go on from."""
    for path in (folder / "checkpoints").glob("resume-*.ckpt"):
        path.unlink()


def _unfinished(folder: Path, locked: bool) -> bool:
    """Whether ``status.json`` tells of a run that was preempted, interrupted, lost, or stopped by a full disk."""
    status = read_status(folder)
    state = status.get("before") if status.get("state") == "queued" else status.get("state")
    if state in ("running", "lost"):
        pid = status.get("pid")
        return locked or (status.get("host") == socket.gethostname() and isinstance(pid, int) and not alive(pid))
    return state in ("preempted", "interrupted") or (state == "failed" and status.get("code") in _ENDED_BY_THE_DISK)


def _changed(folder: Path, cfg: DictConfig) -> list[str]:
    """Options that differ from those in the folder's ``config.yaml``, with both values."""
    try:
        now = dict(_options(OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))))
        before = dict(_options(OmegaConf.load(folder / "config.yaml")))
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        return [f"they cannot be compared: {error}"]
    names = [name for name in now | before if not f"{name}.".startswith(tuple(f"{each}." for each in _INDIFFERENT))]
    return [f"{n}: {before.get(n)!r}, now {now.get(n)!r}" for n in names if before.get(n) != now.get(n)]


def _options(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a config by its dotted path."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node)
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _options(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, node
