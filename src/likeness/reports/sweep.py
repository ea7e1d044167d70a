"""The end of a multirun: one table of all jobs, read from disk, whatever became of each."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

log = logging.getLogger(__name__)


class EndOfSweep(Callback):
    """Hydra calls it once after all jobs; it writes ``scoreboard.csv`` and prints it, best first, and ``sweep.html``.

    The tables are of all jobs in the folder, those of earlier commands too: they differ in swept values alone. The exit
    code is of this command's jobs. Where jobs are rows of the thesis, what was published stands beside them.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from likeness.console import terminal
        from likeness.reports.gains import draw_gains, draw_widths
        from likeness.reports.replication import replication_rows, replication_table, write_replication
        from likeness.reports.scoreboard import sweep_rows, sweep_table, write_scoreboard
        from likeness.reports.seeds import compared_seeds, seeds_table, write_seeds
        from likeness.runs.sweep import asked_jobs

        folder = Path(config.hydra.sweep.dir)
        rows = sweep_rows(folder)
        board = write_scoreboard(folder)
        console = terminal()
        console.print(sweep_table(rows))
        if seeds := compared_seeds(folder, rows):
            console.print("", seeds_table(seeds))
            console.print(f"\nmeans over seeds: {write_seeds(seeds, folder)}", soft_wrap=True)
            test = [row for row in seeds if row["split"] == seeds[-1]["split"]]
            draw_gains(test, folder / "gains.png")
            draw_widths(test, folder / "widths.png")
        if thesis := replication_rows(folder):
            console.print("", replication_table(thesis))
            console.print(f"\npublished beside measured: {write_replication(thesis, folder)}", soft_wrap=True)
        console.print(f"\nall jobs: {board}", soft_wrap=True)
        if page := _page(folder, seeds):
            console.print(f"the page: {page}", soft_wrap=True)
        asked = set(asked_jobs(folder))
        if others := len({row["folder"] for row in rows} - asked):
            console.print(f"{others} of these jobs are of earlier commands in this folder", soft_wrap=True)
        if any(row["state"] != "done" for row in rows if row["folder"] in asked):
            sys.exit(1)


def _page(folder: Path, seeds: Sequence[dict[str, Any]]) -> Path | None:
    """Where the page is; None, and a warning, where it cannot be made: a page must not cost a sweep its result."""
    try:
        from likeness.reports.page import write_page

        return write_page([folder], folder / "sweep.html", seeds)
    except Exception as error:
        log.warning("[PAGE] no sweep.html: %r; try again with: likeness report %s", error, folder)
        return None
