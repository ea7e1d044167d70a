"""Jobs that differ by their seed alone, taken together and compared query by query with their baselines."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from rich.console import Group
from rich.text import Text

from likeness.files import write_atomic
from likeness.reports import words
from likeness.reports.scoreboard import options_of, varying_options
from likeness.reports.tables import brief, table, titled
from likeness.retrieval.comparison import paired_over_seeds
from likeness.retrieval.significance import holm, seeds_interval

Row = dict[str, Any]
BASELINES = tuple(name for name in words.METHODS if name != "head")


class Hits(NamedTuple):
    """hit@1 of each counted query by method, as 0 or 1; the path of each, and its home, -1 if unknown."""

    by_method: Mapping[str, Float[np.ndarray, " q"]]
    paths: Sequence[str]
    homes: Int[np.ndarray, " q"]


def read_hits(path: Path, split: str) -> Hits | None:
    """The hits of one split from a run's ``queries.csv``; None where it has no counted query of that split."""
    if not path.exists():
        return None
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split and row["skipped"] == "0"]
    if not rows:
        return None
    columns = {"head": "rank"} | {name: f"{name}_rank" for name in BASELINES if f"{name}_rank" in rows[0]}
    hits = {method: np.array([row[column] == "1" for row in rows], float) for method, column in columns.items()}
    names = {home: index for index, home in enumerate(sorted({row["home"] for row in rows} - {""}))}
    return Hits(hits, [row["path"] for row in rows], np.array([names.get(row["home"], -1) for row in rows]))


def compared_seeds(folder: Path, jobs: Sequence[Row], splits: Sequence[str] = ("val", "test")) -> list[Row]:
    """A row for each split and each group of jobs that differ by their seed alone, best mean on val first.

    Args:
        folder: Of the sweep.
        jobs: As ``scoreboard.sweep_rows`` gives them.

    A row has ``options`` (those that tell the groups apart), ``hit@1`` over seeds with Student's interval, and for each
    baseline the difference of hit@1: every query's hits are averaged over the seeds, then both are compared query by
    query (by home where homes are known). ``p_holm`` is adjusted for the number of groups (Holm 1979): the heads that
    were tried. Empty when no job has a sibling of another seed.
    """
    groups = _groups([job for job in jobs if job["state"] == "done"])
    varying = [name for name in varying_options([job for group in groups for job in group]) if name != "seed"]
    return [row for split in splits for row in _adjusted(folder, groups, varying, split)]


def _groups(jobs: Sequence[Row]) -> list[list[Row]]:
    """A job a seed; jobs with the same seed and options are one."""
    groups: dict[tuple, dict[str, Row]] = {}
    for job in jobs:
        if job.get("seed") is not None and job["val/hit@1"] is not None:
            same = tuple(job.get(name) for name in options_of(jobs) if name != "seed")
            groups.setdefault(same, {}).setdefault(job["seed"], job)
    if all(len(seeds) < 2 for seeds in groups.values()):
        return []
    jobs_of = (list(seeds.values()) for seeds in groups.values())
    return sorted(jobs_of, key=lambda group: -fmean(job["val/hit@1"] for job in group))


def _adjusted(folder: Path, groups: Sequence[Sequence[Row]], varying: Sequence[str], split: str) -> list[Row]:
    rows = []
    for group in groups:
        runs = [hits for job in group if (hits := read_hits(queries_path(folder / job["folder"], job["seed"]), split))]
        if runs:
            options = {name: group[0].get(name, words.NONE) for name in varying}
            costs = {name: group[0][name] for name in ("code_width", "parameters")}
            rows.append({"options": options, "split": split, **costs, **_compared(runs)})
    for name in BASELINES:
        compared = [row for row in rows if f"p_{name}" in row]
        for row, p in zip(compared, holm([row[f"p_{name}"] for row in compared]), strict=True):
            row[f"p_holm_{name}"] = float(p)
    return rows


def queries_path(folder: Path, seed: str | None) -> Path:
    """Where a run keeps the queries of this seed: a job of several has a file for each but the first."""
    own = folder / f"queries-seed-{seed}.csv"
    return own if own.exists() else folder / "queries.csv"


def _compared(runs: Sequence[Hits]) -> Row:
    mean, low, high = seeds_interval([run.by_method["head"].mean() for run in runs])
    row = {"seeds": len(runs), "queries": len(runs[0].homes), "hit@1": mean, "hit@1_low": low, "hit@1_high": high}
    for name in BASELINES:
        row |= dict(_difference(runs, name))
    return row


def _difference(runs: Sequence[Hits], baseline: str) -> Iterator[tuple[str, float]]:
    """The head against one baseline, both averaged over the seeds.

    Nothing where a run lacks the baseline, or where the runs asked other queries (a split that follows the seed).
    """
    if all(baseline in run.by_method and run.paths == runs[0].paths for run in runs):
        head, other = ([run.by_method[name] for run in runs] for name in ("head", baseline))
        homes = runs[0].homes if (runs[0].homes >= 0).any() else None
        found = paired_over_seeds(head, other, homes)
        yield baseline, float(np.mean(other))
        yield f"over_{baseline}", found.difference
        yield from ((f"{bound}_over_{baseline}", getattr(found, bound)) for bound in ("low", "high"))
        yield f"p_{baseline}", found.p


def seeds_table(rows: Sequence[Row]) -> Group:
    """Means over seeds and the gains over the baselines, for the terminal; rows of :func:`compared_seeds`."""
    board = table(brief(list(rows[0]["options"])), ["split", "seeds", "hit@1", "− frozen", "p", "− PCA", "p"])
    board.columns[-4].no_wrap = board.columns[-2].no_wrap = False  # folded in a narrow terminal rather than cut
    for row in rows:
        facts = [*row["options"].values(), row["split"], row["seeds"]]
        gains = (cell for name in ("frozen", "pca") for cell in (_difference_of(row, name), _p_of(row, name)))
        board.add_row(*(Text(str(fact)) for fact in facts), spread(row), *gains)
    return titled("means over seeds", ", percent and points with 95 % intervals, p by Holm", board)


def write_seeds(rows: Sequence[Row], folder: Path) -> Path:
    """``seeds.csv``, everything; and ``seeds.md``, a table for a report. Rows of :func:`compared_seeds`."""
    flat = [{**row["options"], **{name: value for name, value in row.items() if name != "options"}} for row in rows]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in flat for name in row)), restval="")
    writer.writeheader()
    writer.writerows(flat)
    write_atomic(folder / "seeds.csv", text.getvalue().encode("utf-8", "surrogateescape"))
    write_atomic(folder / "seeds.md", _markdown(rows).encode("utf-8", "surrogateescape"))
    return folder / "seeds.csv"


def _markdown(rows: Sequence[Row]) -> str:
    heads = [*rows[0]["options"], "split", "seeds", "code", "hit@1"]
    heads += [f"− {words.METHODS[name]}" for name in BASELINES]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        facts = [*row["options"].values(), row["split"], row["seeds"], words.count(row["code_width"]), spread(row)]
        lines.append([*map(str, facts), *(gain(row, name) for name in BASELINES)])
    shown = (" | ".join(cell.replace("|", r"\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in shown)


def spread(row: Row) -> str:
    """Mean over seeds and, where there are several, half the width of Student's interval: ``57.9 ± 0.4``."""
    return words.spread(row["hit@1"], row["hit@1_high"])


def gain(row: Row, baseline: str) -> str:
    """``+1.2 [−0.1, +2.4], p = 0.08``: a difference in points, its interval, if there is one, and its adjusted p."""
    if f"over_{baseline}" not in row:
        return words.NONE
    return f"{_difference_of(row, baseline)}, {words.p_value(row[f'p_holm_{baseline}'])}"


def _difference_of(row: Row, baseline: str) -> str:
    if f"over_{baseline}" not in row:
        return words.NONE
    low, high = (row[f"{bound}_over_{baseline}"] for bound in ("low", "high"))
    between = "" if np.isnan(low) else f" [{words.points(low)}, {words.points(high)}]"
    return words.points(row[f"over_{baseline}"]) + between


def _p_of(row: Row, baseline: str) -> str:
    return words.p_value(row.get(f"p_holm_{baseline}")).removeprefix("p ").removeprefix("= ")
