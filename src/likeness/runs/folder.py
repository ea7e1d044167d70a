"""A run's folder: its journal, and the seconds that its parts took."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning.loggers.logger import Logger

from likeness.files import write_atomic
from likeness.runs.checkpoint import newest_checkpoint
from likeness.runs.journal import Journal, JournalLogger


class RunFolder:
    """Where a run writes. ``seconds`` holds what each timed part took, in order; ``loggers`` get what it logs.

    ``resume_from`` is the checkpoint that training goes on from, None for a run that starts anew: then whatever lay in
    the folder was set aside before.

    Args:
        path: The folder.
        config: What the run does, resolved; kept as ``config.yaml``.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = path, config
        write_atomic(path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))).encode())
        self.journal = Journal(path / "journal.jsonl")
        self.loggers: list[Logger] = [JournalLogger(self.journal)]  # the journal first: trackers mirror it
        self.seconds: dict[str, float] = {}
        self.resume_from = newest_checkpoint(path / "checkpoints")

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Time a part of the run, and say in the journal when it started and ended."""
        started = time.monotonic()
        self.journal.write("started", part=part)
        yield
        self.seconds[part] = round(time.monotonic() - started, 3)
        self.journal.write("ended", part=part, seconds=self.seconds[part])
        self.journal.sync()
