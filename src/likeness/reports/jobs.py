"""The runs of any set of folders, and the heads that they tried: jobs that differ by their seed alone are one head."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from likeness.errors import LikenessError
from likeness.reports import words
from likeness.reports.scoreboard import (
    at,
    by_validation,
    finished_metrics,
    number,
    of_each_seed,
    options_of,
    read_object,
    run_rows,
    sweep_rows,
)
from likeness.reports.seeds import queries_path
from likeness.retrieval.significance import holm

Row = dict[str, Any]
Figures = list[float | int | None]
Place = tuple[Path, str | None]  # a folder, and a seed of those trained there
BASELINES = ("frozen", "pca")
_ENDS = ("hit@1", "hit@1_low", "hit@1_high")


@dataclass(frozen=True)
class Job:
    """A run: its folder, its row as the scoreboard has it, and what it wrote (metrics only where it is done).

    Of several seeds each is a job.
    """

    name: str
    folder: Path
    row: Row
    status: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def queries(self) -> Path:
        return queries_path(self.folder, self.row.get("seed"))

    @property
    def logged_as(self) -> str:
        """What precedes the names of its figures in the journal, where other seeds have theirs beside it."""
        return f"seed-{self.row['seed']}/" if "over_seeds" in self.metrics else ""

    def cost(self, name: str) -> float | int | None:
        """``seconds`` are those of the fit."""
        return number(at(self.metrics, "seconds", "fit") if name == "seconds" else at(self.metrics, name))


@dataclass(frozen=True)
class Head:
    """Jobs that differ by their seed alone, and what they come to together.

    Attributes:
        jobs: Best on val first.
        hits: By split: hit@1, low and high; over seeds with Student's interval, of a single job with Wilson's.
        gains: By baseline, on test: difference of hit@1, low, high, and p adjusted for the number of heads (Holm 1979).
    """

    jobs: Sequence[Job]
    hits: Mapping[str, Figures]
    gains: Mapping[str, Figures]

    @property
    def best(self) -> Job:
        return self.jobs[0]

    @property
    def val(self) -> float:
        """What heads are chosen by."""
        return fmean(job.row["val/hit@1"] for job in self.jobs)

    def cost(self, name: str) -> float | None:
        """The mean over the jobs."""
        known = [cost for job in self.jobs if (cost := job.cost(name)) is not None]
        return fmean(known) if known else None


def find_jobs(folders: Sequence[Path]) -> list[Job]:
    """Every job of sweeps' folders and of single runs' folders, best val hit@1 first, each folder once.

    Raises:
        LikenessError: RUN-MISSING when a folder is not there, or is neither a run nor a sweep.
    """
    found = [((folder / row["folder"]).resolve(), row) for folder in folders for row in _rows(folder)]
    rows: dict[Place, Row] = {(path, row.get("seed")): row for path, row in found}
    names = _names(rows, len(folders))
    jobs = [_job(place[0], row, names[place]) for place, row in rows.items()]
    _fill_in(jobs)
    return sorted(jobs, key=lambda job: by_validation(job.row))


def _rows(folder: Path) -> list[Row]:
    if any((folder / name).exists() for name in ("status.json", "metrics.json")):
        return [row | {"folder": "."} for row in run_rows(folder)]
    if rows := sweep_rows(folder):
        return rows
    raise LikenessError(
        "RUN-MISSING",
        "this is neither a run nor a sweep.",
        where=str(folder),
        cause="It has no status.json or metrics.json, and no folder in it has one.",
        fix="Give the folder of a sweep, or folders of runs.",
    )


def _names(rows: Mapping[Place, Row], given: int) -> dict[Place, str]:
    """A sweep's own numbers; where there are several sweeps or runs, paths below what all have in common."""
    seeds = Counter(path for path, _ in rows)
    names = {path: str(row["job"]) for (path, _), row in rows.items()}
    if given > 1 or len(set(names.values())) < len(names):
        top = os.path.commonpath([path.parent for path in names])
        names = {path: os.path.relpath(path, top) for path in names}
    return {(path, seed): f"{names[path]} seed {seed}" if seeds[path] > 1 else names[path] for path, seed in rows}


def _job(folder: Path, row: Row, name: str) -> Job:
    status, metrics = read_object(folder / "status.json") or {}, finished_metrics(folder) or {}
    if "over_seeds" in metrics:
        metrics = next(own for own in of_each_seed(metrics) if str(own["seed"]) == row["seed"])
    return Job(name, folder, row | {"folder": str(folder)}, status, metrics)


def _fill_in(jobs: Sequence[Job]) -> None:
    """An option that some jobs were given and others left at its default, where the run says what that was."""
    given = options_of(job.row for job in jobs)
    for job in jobs:
        said = {**(at(job.metrics, "options") or {}), "seed": at(job.metrics, "seed")}
        known = {name: str(said[name]) for name in given if said.get(name) is not None}
        job.row.update({name: value for name, value in known.items() if name not in job.row})


def tried_heads(jobs: Sequence[Job], seeds: Sequence[Row]) -> list[Head]:
    """The heads of the jobs that are done, best mean on val first; equals stay in the jobs' order.

    Args:
        jobs: Of :func:`find_jobs`.
        seeds: Of ``seeds.compared_seeds`` for the same jobs; empty where no job has a sibling of another seed.
    """
    done = [job for job in jobs if job.row["state"] == "done" and job.row["val/hit@1"] is not None]
    options = [name for name in options_of(job.row for job in jobs) if name != "seed"]
    groups: dict[Any, list[Job]] = {}
    for job in done:
        same = tuple(job.row.get(name) for name in options) if seeds else job.name
        groups.setdefault(same, []).append(job)
    heads = [_head(group, [row for row in seeds if _is_of(row, group[0])]) for group in groups.values()]
    return _adjusted(sorted(heads, key=lambda head: -head.val))


def _is_of(row: Row, job: Job) -> bool:
    return all(job.row.get(name, words.NONE) == value for name, value in row["options"].items())


def _head(jobs: Sequence[Job], means: Sequence[Row]) -> Head:
    hits = {split: job_hits(jobs[0], split) for split in ("val", "test")}
    gains = {name: job_gain(jobs[0], name) for name in BASELINES}
    for row in means:
        hits[row["split"]] = [number(row[end]) for end in _ENDS]
        if row["split"] == "test":
            keys = {name: (f"over_{name}", f"low_over_{name}", f"high_over_{name}", f"p_{name}") for name in BASELINES}
            gains = {name: [number(row.get(key)) for key in keys[name]] for name in BASELINES}
    return Head(jobs, hits, gains)


def job_hits(job: Job, split: str) -> Figures:
    """Of one job: hit@1, low and high."""
    return [job.row[f"{split}/{end}"] for end in _ENDS]


def job_gain(job: Job, baseline: str) -> Figures:
    """Of one job's hit@1 on test: difference, low, high, and p as it is."""
    found = at(job.metrics, "splits", "test", "paired", f"head-{baseline}", "hit@1")
    return [number(at(found, key)) for key in ("difference", "low", "high", "p")]


def _adjusted(heads: Sequence[Head]) -> list[Head]:
    """Each p for the number of heads that were compared with the baseline."""
    given = {name: [p for head in heads if (p := head.gains[name][3]) is not None] for name in BASELINES}
    left = {name: iter(holm(values).tolist()) for name, values in given.items()}
    return [replace(head, gains={name: _with_p(head.gains[name], left[name]) for name in BASELINES}) for head in heads]


def _with_p(gain: Figures, adjusted: Any) -> Figures:
    return gain if gain[3] is None else [*gain[:3], next(adjusted)]
