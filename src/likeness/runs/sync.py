"""Sends runs to wandb later, rebuilt from their journals; a run that never had a tracker is sent as well."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from likeness.console import progress
from likeness.errors import LikenessError, listed
from likeness.runs.dashboard import Media, WandbRun, facts, note_sent, read_tracker, results
from likeness.runs.journal import read
from likeness.runs.sweep import read_status
from likeness.runs.trackers import need, why_offline

log = logging.getLogger(__name__)

PROJECT = "likeness"
_JOURNAL = "journal.jsonl"
_NO_MEDIA = Media((), (), ())


class Sent(NamedTuple):
    """What became of one run: rows of its history and pictures that were sent, and where the run is seen."""

    folder: Path
    rows: int
    pictures: int
    told: str


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Every folder with a journal in or below ``folders``, once, job 9 before job 10; not what a later run set aside.

    Raises:
        LikenessError: RUN-MISSING when a folder has none.
    """
    found = {folder: [path.parent for path in folder.rglob(_JOURNAL) if not _set_aside(path)] for folder in folders}
    if empty := [folder for folder, runs in found.items() if not runs]:
        raise LikenessError(
            "RUN-MISSING",
            "there is no run to send.",
            where=listed(folder.absolute() for folder in empty),
            fix="Give the folder of a run, of a sweep, or one that holds some (outputs/train, outputs/sweep).",
        )
    return sorted({run for runs in found.values() for run in runs}, key=_by_number)


def _set_aside(journal: Path) -> bool:
    return journal.parent.name.startswith("earlier-")


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", str(path))]


def send_runs(folders: Sequence[Path], media_of: Callable[[Path], Media], project: str | None = None) -> Iterator[Sent]:
    """Send what wandb lacks of every run of ``folders``; a run is given back when it is whole there.

    Args:
        media_of: A run's table and figures.
        project: Where to; None is as the run's own config says.

    Raises:
        LikenessError: RUN-MISSING; NET when there is no key or no network, before or in the midst of it.
    """
    need("wandb")
    import wandb

    runs = find_runs(folders)
    if any(_unsent(run) for run in runs) and (cause := why_offline()):
        raise _unavailable(runs, cause)
    with progress("sending", len(runs), "runs") as advance:
        for index, run in enumerate(runs):
            try:
                yield _send_unless_running(run, media_of, project)
            except (wandb.Error, OSError, SystemExit) as error:
                raise _unavailable(runs[index:], str(error) or type(error).__name__) from error
            advance()


def _unsent(run: Path) -> int:
    """Events that the server is not known to have."""
    return len(read(run / _JOURNAL)) - int(read_tracker(run).get("sent", 0))


def _unavailable(runs: Sequence[Path], cause: str) -> LikenessError:
    return LikenessError(
        "NET",
        f"{len(runs)} {'run is' if len(runs) == 1 else 'runs are'} not sent to wandb.",
        where=listed(run.absolute() for run in runs),
        cause=cause,
        kept="Every value is in the runs' journals; what was sent is remembered and not sent twice.",
        fix="wandb login, or WANDB_API_KEY=…, on a machine with network (or WANDB_BASE_URL=… of your own server); "
        "then the same command again.",
    )


def _send_unless_running(run: Path, media_of: Callable[[Path], Media], project: str | None) -> Sent:
    try:
        with FileLock(run / ".lock", timeout=0):
            return _send(run, media_of, project) if _unsent(run) else Sent(run, 0, 0, "nothing new")
    except Timeout:
        return Sent(run, 0, 0, "still running, left for later")


def _send(folder: Path, media_of: Callable[[Path], Media], project: str | None) -> Sent:
    events = read(folder / _JOURNAL)
    options = _options(folder) | ({} if project is None else {"project": project})
    wanted, known = _wants_media(folder, options), bool(read_tracker(folder).get("media"))
    media = _made(media_of, folder) if wanted and not known else _NO_MEDIA
    with TemporaryDirectory(prefix="likeness-sync-") as files:  # the journal is the copy to keep
        run = WandbRun(folder, options, "online", files=Path(files))
        try:
            run.log_hyperparams(facts(events, "config"))
            run.log_metrics(results(events))
            run.log_media(media)
            address = str(run.open().url)
        finally:
            run.close(0 if read_status(folder).get("state", "done") == "done" else 1)
    note_sent(folder, len(events), known or bool(media.rows or media.figures))
    return Sent(folder, run.rows, sum(map(_pictures, media.rows)) + len(media.figures), address)


def _made(media_of: Callable[[Path], Media], folder: Path) -> Media:
    try:
        return media_of(folder)
    except Exception as error:  # pictures never stand in the way of numbers
        log.warning("[TRACKER] the pictures of %s are not sent (%s)", folder, error)
        return _NO_MEDIA


def _pictures(row: Sequence[Any]) -> int:
    return sum(not (cell is None or isinstance(cell, str | int | float)) for cell in row)


def _options(folder: Path) -> dict[str, Any]:
    """What the run's own config asks of wandb, where it asks anything."""
    path = folder / "config.yaml"
    config: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {}
    asked = ((config or {}).get("logger") or {}).get("wandb") or {}
    return {"project": PROJECT, "name": folder.name} | facts(read(folder / _JOURNAL), "run") | _given(asked)


def _given(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if value is not None}


def _wants_media(folder: Path, options: dict[str, Any]) -> bool:
    return (folder / "figures").is_dir() or bool(options.get("media"))
