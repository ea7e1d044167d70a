"""What a run logs, on its own disk before any tracker sees it: one JSON object a line."""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from likeness.errors import LikenessError
from likeness.files import unwritten

_SECONDS_BETWEEN_SYNCS = 5.0


class Journal:
    """Appends events to a file, which is open only while it writes; a power cut costs at most 5 s, a kill nothing."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._synced = time.monotonic()
        self._ends_the_line = "\n" if _is_cut(path) else ""  # of a writer that was killed, or whose disk was full

    def write(self, event: str, **values: Any) -> None:
        """Append one event.

        Raises:
            LikenessError: DISK when the disk is full or fails.
        """
        self._append(json.dumps({"time": round(time.time(), 3), "event": event, **_finite(values)}) + "\n")

    def sync(self) -> None:
        """What is written so far survives a power cut."""
        self._synced = -math.inf
        self._append("")

    def _append(self, text: str) -> None:
        try:
            with open(self.path, "a") as file:
                file.write(self._ends_the_line + text)
                self._ends_the_line = ""
                if time.monotonic() - self._synced >= _SECONDS_BETWEEN_SYNCS:
                    file.flush()
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
        except OSError as error:
            raise LikenessError(
                "DISK",
                "the journal could not be written.",
                where=str(self.path.absolute()),
                cause=unwritten(self.path, error).cause,
                kept="Everything up to the event before.",
                fix="Free some space, or choose another folder with hydra.run.dir=; then run the same again.",
            ) from error


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN or infinity: they are written as text."""
    return {k: repr(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _is_cut(path: Path) -> bool:
    """Whether the last line has no end."""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)  # fails in an empty one
        return file.read(1) != b"\n"
    return False


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a journal, in order; lines that were cut or damaged are left out."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [event for event in map(_event, lines) if event is not None]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and _is_one_of_ours(event) else None


def _is_one_of_ours(event: Mapping[str, Any]) -> bool:
    """Whether an event has its name, and what is logged a step and an epoch that can be such."""
    name, step, epoch = event.get("event"), event.get("step"), event.get("epoch", 0)
    if name == "metrics":
        return isinstance(step, int | None) and isinstance(epoch, int | float) and 0 <= epoch < math.inf
    return isinstance(step, int) if name == "resumed_from" else isinstance(name, str)


def logged(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The metrics that count: those after the step that a run was resumed from were, or will be, logged again."""
    kept: list[Mapping[str, Any]] = []
    for event in events:
        if event["event"] == "metrics":
            kept.append(event)
        elif event["event"] == "resumed_from":
            kept = [one for one in kept if one.get("step") is not None and one["step"] < event["step"]]
    return kept


def epochs(events: Iterable[Mapping[str, Any]]) -> list[dict[str, float | int]]:
    """One mapping an epoch: what was logged in it, under its own names."""
    merged: dict[int, dict[str, float | int]] = {}
    for event in events:
        if event["event"] == "metrics" and "epoch" in event:
            values = {k: v for k, v in event.items() if isinstance(v, int | float) and k not in ("time", "step")}
            merged.setdefault(int(event["epoch"]), {}).update(values)
    return [merged[epoch] for epoch in sorted(merged)]


class JournalLogger(Logger):
    """Lightning's metrics, into the journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal

    @property
    def name(self) -> str:
        return "journal"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.journal.write("metrics", step=step, **metrics)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.journal.write("config", **params)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.journal.sync()
