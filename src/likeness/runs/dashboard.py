"""wandb's run of a folder: opened with its first value, caught up with the journal, closed within a minute.

``tracker.json`` keeps its id and what its server has: events of the journal, and whether pictures.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pytorch_lightning.loggers.logger import Logger

from likeness.files import write_json
from likeness.runs.journal import read

log = logging.getLogger(__name__)

Event = Mapping[str, Any]
Mode = Literal["online", "offline", "disabled"]

_TRACKER = "tracker.json"
_SECONDS_TO_OPEN, _SECONDS_TO_CLOSE = 60.0, 60.0
_SECONDS_TO_ANSWER, _SECONDS_BETWEEN_ASKING, _TIMES_ASKED = 10, 2.0, 4
_NOT_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_OPEN: list["WandbRun"] = []


class Media(NamedTuple):
    """What a dashboard shows beside numbers: a table, whose cells are numbers, texts or pictures, and image files."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    figures: Sequence[Path]


def read_tracker(folder: Path) -> dict[str, Any]:
    """What ``tracker.json`` says: ``wandb_id``, ``sent`` (events of the journal), ``media``; nothing without one."""
    try:
        return dict(json.loads((folder / _TRACKER).read_text()))
    except (OSError, ValueError):
        return {}


def kept_id(folder: Path) -> str:
    """The id of the folder's run on the server, the same for every process that ever writes to the run."""
    tracker = read_tracker(folder)
    if "wandb_id" not in tracker:
        tracker["wandb_id"] = secrets.token_hex(4)
        write_json(folder / _TRACKER, tracker)
    return str(tracker["wandb_id"])


def note_sent(folder: Path, events: int, media: bool) -> None:
    """Remember what the server has, so that it is not sent again."""
    write_json(folder / _TRACKER, {"wandb_id": kept_id(folder), "sent": events, "media": media})


def facts(events: Iterable[Event], event: str) -> dict[str, Any]:
    """All values of one kind of event, later ones over earlier ones, without their times."""
    found = [each for each in events if each["event"] == event]
    return {name: value for each in found for name, value in each.items() if name not in ("event", "time")}


def history(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Rows over epochs: each metrics event that has one, in order; a resumed run has some epochs twice."""
    return [
        {"_timestamp": each["time"], **_row(each, each.get("step"))}
        for each in events
        if each["event"] == "metrics" and "epoch" in each
    ]


def results(events: Iterable[Event]) -> dict[str, Any]:
    """The final values: those that were logged without an epoch."""
    found = facts([each for each in events if "epoch" not in each], "metrics")
    found.pop("step", None)
    return _numbers(found)


def _row(metrics: Mapping[str, Any], step: int | None) -> dict[str, Any]:
    values = {name: value for name, value in metrics.items() if name not in ("event", "time", "step")}
    return _numbers(values) | ({} if step is None else {"global_step": step})


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The journal has what is not finite as text."""
    return {name: _NOT_FINITE.get(value, value) if isinstance(value, str) else value for name, value in values.items()}


class WandbRun(Logger):
    """Metrics with an epoch are the run's history over that epoch; those without are its summary.

    wandb's own step is never given: wandb drops rows that are older than what it has, as after a resume. On opening
    online the server says how many rows it has, and gets those of the journal that it lacks.

    Args:
        folder: Has the journal, whose ``run`` event says group, name, job type and tags; gets wandb's own files.
        options: ``project``, ``group``, ``name``, ``job_type``, ``tags``: what is not None goes before the journal's.
        media: Whether pictures are sent where no figure was drawn.
        files: Where wandb writes when an earlier run is sent; nothing of this machine is then sent with it.

    ``rows`` counts what went into the history.
    """

    def __init__(
        self, folder: Path, options: Mapping[str, Any], mode: Mode, media: bool = False, files: Path | None = None
    ) -> None:
        super().__init__()
        self.folder, self.media = folder, media
        self._options, self._mode, self._files = options, mode, files
        self._run: Any = None
        self._has_results = self._has_media = False
        self.rows = 0

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return kept_id(self.folder)

    def open(self) -> Any:
        """wandb's run, begun or continued; a second call returns the same."""
        if self._run is None:
            events = read(self.folder / "journal.jsonl")
            given = {name: value for name, value in self._options.items() if value is not None}
            run_id, place = kept_id(self.folder), self._files or self.folder
            settings = _settings(replayed=self._files is not None)
            self._run = _begin(place, run_id, self._mode, facts(events, "run") | given, settings)
            _OPEN.append(self)
            if self._mode == "online":
                pictures = bool(read_tracker(self.folder).get("media"))  # they took a row of their own
                for row in history(events)[max(0, self._run.starting_step - pictures) :]:
                    self._log(row)
        return self._run

    def _log(self, row: dict[str, Any]) -> None:
        self._run.log(row)
        self.rows += 1

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.open().config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        run = self.open()
        if "epoch" in metrics:
            self._log(_row(metrics, step))
        else:
            run.summary.update(dict(metrics))
            self._has_results = True

    def log_media(self, media: Media) -> None:
        """The table as ``queries``, each figure under its file's name; once a run."""
        import wandb

        run = self.open()
        shown: dict[str, Any] = {f"figures/{path.stem}": wandb.Image(str(path)) for path in media.figures}
        if media.rows:
            cells = [[_cell(value) for value in row] for row in media.rows]
            shown["queries"] = wandb.Table(columns=list(media.columns), data=cells)
        if shown and not read_tracker(self.folder).get("media"):
            run.log(shown)
            self._has_media = True

    def close(self, exit_code: int = 0) -> None:
        """Send the rest, and remember it as sent where it all went.

        Raises:
            TimeoutError: When the server did not take everything within a minute, or refused some.
        """
        run, self._run = self._run, None
        if run is None:
            return
        _OPEN.remove(self)
        events = read(self.folder / "journal.jsonl")
        try:
            run.summary.update({f"seconds/{e['part']}": e["seconds"] for e in events if e["event"] == "ended"})
        finally:
            run.finish(exit_code)
        if self._mode == "online":
            _ask_whether_ended(run.path)
        if self._mode == "online" and self._has_results:
            note_sent(self.folder, len(events), self._has_media or bool(read_tracker(self.folder).get("media")))


def _settings(replayed: bool) -> dict[str, Any]:
    """wandb would copy uncommitted changes of the user's checkout, and wait for a dead server without end.

    How long it waits is as ``WANDB_INIT_TIMEOUT`` and ``WANDB_FINISH_TIMEOUT`` say, where they are set.
    """
    patience = {"init_timeout": _SECONDS_TO_OPEN, "finish_timeout": _SECONDS_TO_CLOSE}
    settings: dict[str, Any] = {name: s for name, s in patience.items() if f"WANDB_{name.upper()}" not in os.environ}
    settings |= {"finish_timeout_raises": True, "quiet": True}
    settings |= {"disable_git": True, "disable_code": True, "save_code": False}
    if replayed:
        settings |= {"silent": True, "console": "off", "x_disable_stats": True, "x_disable_meta": True}
        settings |= {"x_save_requirements": False}
    return settings


def _begin(files: Path, run_id: str, mode: Mode, options: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    import wandb

    files.mkdir(parents=True, exist_ok=True)
    known = {name: options.get(name) for name in ("project", "group", "name", "job_type", "tags")}
    run = wandb.init(dir=str(files), id=run_id, resume="allow", mode=mode, settings=wandb.Settings(**settings), **known)
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def _ask_whether_ended(path: str) -> None:
    """wandb gives up in silence where its server refuses; the server knows of a run's end only when all came before."""
    import wandb

    asked = wandb.Api(timeout=_SECONDS_TO_ANSWER)
    for _ in range(_TIMES_ASKED):
        if (state := asked.run(path).state) in ("finished", "failed"):
            return
        time.sleep(_SECONDS_BETWEEN_ASKING)
    raise TimeoutError(f"wandb's server did not take everything: it has the run as {state}")


def _cell(value: Any) -> Any:
    import wandb

    return value if value is None or isinstance(value, str | int | float) else wandb.Image(value, file_type="jpg")


def finish(exit_code: int = 0) -> None:
    """Close every run that is open: the next job in this process must not fall into it."""
    for each in list(_OPEN):
        try:
            each.close(exit_code)
        except Exception as error:
            told = "[TRACKER] wandb did not finish (%s); everything is in journal.jsonl; send it with: likeness sync %s"
            log.warning(told, error, each.folder)
