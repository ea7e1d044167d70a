"""What a person sees while they wait."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

_WIDTH_OF_A_FILE = 110  # characters; a terminal has its own width
_SECONDS_BETWEEN_LINES = 10.0


def terminal() -> Console:
    """Where tables go: as wide as the terminal, and wide enough for a table when the output is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_A_FILE)


@runtime_checkable
class Advance(Protocol):
    def __call__(self, count: int = 1) -> None:
        """Say that ``count`` more items are done."""


@contextmanager
def progress(task: str, total: int, unit: str = "images", after: float = 0.0) -> Iterator[Advance]:
    """Shows ``done/total``, items a second and time left: a bar in a terminal, a line every 10 s in a log.

    Args:
        after: Seconds that must have passed before a bar is shown: what is soon done needs none.
    """
    with _bar(task, total, unit, after) if Console().is_terminal else _lines(task, total, unit) as advance:
        yield advance


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says every 10 s, in a log line, what is waited for and how long already."""
    over, started = threading.Event(), time.monotonic()

    def say() -> None:
        while not over.wait(_SECONDS_BETWEEN_LINES):
            log.info("waiting for %s, %.0f s", what, time.monotonic() - started)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _bar(task: str, total: int, unit: str, after: float) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar, started = Progress(*columns, transient=True), time.monotonic()
    shown = bar.add_task(task, total=total, rate="")
    with ExitStack() as showing:

        def show() -> None:
            if not bar.live.is_started and time.monotonic() - started >= after:
                showing.enter_context(bar)

        def advance(count: int = 1) -> None:
            show()
            speed = bar.tasks[shown].speed
            bar.update(shown, advance=count, rate=f"{speed:,.0f} {unit}/s" if speed else "")

        show()
        yield advance


@contextmanager
def _lines(task: str, total: int, unit: str) -> Iterator[Advance]:
    started = said = time.monotonic()
    done = 0

    def advance(count: int = 1) -> None:
        nonlocal done, said
        done += count
        now = time.monotonic()
        if done and now - said >= _SECONDS_BETWEEN_LINES:
            said = now
            rate = done / (now - started)
            shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
            log.info("%s: %s of %s, %s %s/s, %.0f s left", task, done, total, shown, unit, (total - done) / rate)

    yield advance
