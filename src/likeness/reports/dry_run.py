"""What a sweep would do, before it does anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from likeness.errors import LikenessError
from likeness.reports import words
from likeness.reports.tables import table, titled
from likeness.runs.sweep import counted

if TYPE_CHECKING:  # slow to import, and a grid without pictures does without
    from likeness.features.extraction import Cost

_MOST_JOBS = 200
_WORD = {"new": "to run", "failed": "failed, to run again"}


def dry_run_table(
    jobs: Sequence[tuple[int, Sequence[str], str]],
    costs: Sequence[tuple["Cost", int]],
    refused: Sequence[tuple[int, LikenessError]],
    folder: Path,
) -> Group:
    """Every job with its state, what the store lacks, and the jobs that would be refused.

    Args:
        jobs: Number, overrides and state.
        costs: Of each distinct extractor, and how many jobs share it.
        refused: Number of a job, and why.
    """
    common = set.intersection(*(set(overrides) for _, overrides, _ in jobs)) if len(jobs) > 1 else set()
    board = table(["job", "what differs"], ["state"])
    for number, overrides, state in jobs[:_MOST_JOBS]:
        told = " ".join(word for word in overrides if word not in common)
        board.add_row(str(number), Text(told or words.NONE), _WORD.get(state, state))
    parts: list[Group | Text] = [
        titled("dry run", f", {counted(state for *_, state in jobs)}; nothing was started", board)
    ]
    if len(jobs) > _MOST_JOBS:
        parts += [Text(f"… and {len(jobs) - _MOST_JOBS:,} more jobs")]
    parts += [Text(), _features(costs)] if costs else []
    parts += [Text(f"job {number} is refused: {fault}", "red") for number, fault in refused]
    return Group(*parts, Text(f"\nthe jobs' folders: {folder}", "dim"))


def _features(costs: Sequence[tuple["Cost", int]]) -> Group:
    board = table(["network"], ["extractor", "jobs", "images", "missing", "seconds", "MB"])
    for found, jobs in costs:
        if found.fault:
            board.add_row(found.network, words.NONE, str(jobs), *[words.NONE] * 4)
            continue
        spent = words.NONE if found.seconds is None else f"{found.seconds:,.0f}"
        figures = (words.count(found.images), words.count(found.missing), spent, f"{found.bytes / 1e6:,.1f}")
        board.add_row(found.network, found.fingerprint, str(jobs), *figures)
    why = [Text(f"{found.network}: {found.fault}", "yellow") for found, _ in costs if found.fault]
    return Group(titled("features", ", computed once for all jobs; seconds by the pace of a few pictures", board), *why)
