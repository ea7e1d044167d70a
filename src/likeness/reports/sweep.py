"""The end of a multirun: one table of all jobs, read from disk, whatever became of each."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class EndOfSweep(Callback):
    """Hydra calls it once after all jobs; it writes ``scoreboard.csv`` and prints it, best first."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from likeness.console import terminal
        from likeness.reports.scoreboard import sweep_rows, sweep_table, write_scoreboard

        folder = Path(config.hydra.sweep.dir)
        rows = sweep_rows(folder)
        board = write_scoreboard(folder)
        console = terminal()
        console.print(sweep_table(rows))
        console.print(f"\nall jobs: {board}", soft_wrap=True)
        if any(row["state"] != "done" for row in rows):
            sys.exit(1)
