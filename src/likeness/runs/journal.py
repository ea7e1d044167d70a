"""What a run logs, on its own disk before any tracker sees it: one JSON object a line."""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

_SECONDS_BETWEEN_SYNCS = 5.0


class Journal:
    """Appends events to a file; a kill loses at most the last line, a power cut at most 5 s."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - open for as long as the run
        self._synced = time.monotonic()

    def write(self, event: str, **values: Any) -> None:
        self._file.write(json.dumps({"time": round(time.time(), 3), "event": event, **_finite(values)}) + "\n")
        if time.monotonic() - self._synced >= _SECONDS_BETWEEN_SYNCS:
            self.sync()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN or infinity: they are written as text."""
    return {k: repr(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a journal, in order; a last line that was cut is left out."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def epochs(events: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """One mapping an epoch: what was logged in it, under its own names."""
    merged: dict[int, dict[str, float]] = {}
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
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        self.journal.write("config", **params)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.journal.sync()
