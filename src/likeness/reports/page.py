"""A sweep, or any set of runs, as one page that opens from disk without a network.

The page is hand-written HTML with a few hundred lines of JavaScript that draw SVG: a library of charts would be fifteen
times all the rest and would have to be kept from the network. Everything that comes from files goes in as JSON.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from likeness.files import write_atomic
from likeness.reports import words
from likeness.reports.disagreement import disagreement
from likeness.reports.jobs import BASELINES, Figures, Head, Job, Row, find_jobs, job_gain, job_hits, tried_heads
from likeness.reports.scoreboard import at, number, options_of, varying_options
from likeness.reports.seeds import compared_seeds, read_hits
from likeness.reports.tables import brief
from likeness.reports.template import filled
from likeness.retrieval.significance import mean_interval
from likeness.runs import journal

_SCRIPTS = ("jobs", "head", "table", "figures", "classes", "compare", "page")  # one script, in this order
_LEVEL = 0.05
_BASELINE_NAMES = {"frozen": "the frozen features", "pca": "PCA"}
_CLAUSES = {
    "better": "it beats {} beyond the noise",
    "worse": "it is worse than {} beyond the noise",
    "noise": "against {} the difference is inside the noise",
    "unknown": "against {} there is no comparison",
}
_COSTS = ("code_width", "parameters", "epochs", "seconds")
_MOST_POINTS = 12_000  # of all learning curves
_FEWEST, _MOST = 12, 60  # points of one curve
_MOST_JOURNAL = 32_000_000  # bytes
_MOST_HEADS, _MOST_CLASSES = 40, 60  # of the map of classes
_MOST_TRACES, _MOST_TRACE = 200, 4_000  # tracebacks; characters of one, its end
_MOST_NAMED = 3  # folders, in the title
_MOST_VALUES = 12  # of an option, in the page's head


def write_page(folders: Sequence[Path], path: Path, seeds: Sequence[Row] | None = None) -> Path:
    """Write the page of all jobs in ``folders``, sweeps' and single runs' alike, to ``path``; one file, atomically.

    Args:
        folders: As :func:`likeness.reports.jobs.find_jobs` takes them.
        path: Where to; what is there is replaced.
        seeds: Of ``seeds.compared_seeds`` for these jobs, where it is at hand; it takes longer than all the rest.

    Raises:
        LikenessError: RUN-MISSING as ``find_jobs``; otherwise as ``write_atomic``.
    """
    jobs = find_jobs(folders)
    if seeds is None:
        seeds = compared_seeds(Path(), [job.row for job in jobs])
    content = page_content(jobs, seeds)
    content |= {"title": _title(folders), "folders": [str(folder.absolute()) for folder in folders]}
    write_atomic(path, filled("page", "jobs", _SCRIPTS, content))
    return path


def _title(folders: Sequence[Path]) -> str:
    more = f" and {len(folders) - _MOST_NAMED} more" if len(folders) > _MOST_NAMED else ""
    return ", ".join(folder.absolute().name for folder in folders[:_MOST_NAMED]) + more


def page_content(jobs: Sequence[Job], seeds: Sequence[Row]) -> dict[str, Any]:
    """Everything that the page shows, as plain values; fractions as fractions.

    Args:
        jobs: Of ``find_jobs``.
        seeds: Of ``compared_seeds``; empty where no job has a sibling of another seed.
    """
    heads = tried_heads(jobs, seeds)
    place = {job.name: index for index, job in enumerate(jobs)}
    options = [name for name in varying_options([job.row for job in jobs]) if not (seeds and name == "seed")]
    traces: dict[str, int] = {}
    return {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "swept": _swept(jobs),
        "counts": _counts(jobs, heads),
        "facts": _facts(heads),
        "winner": _winner(heads, place) if heads else None,
        "options": [{"name": name, "label": label} for name, label in zip(options, brief(options), strict=True)],
        "jobs": [_job(job, options, traces, len(jobs)) for job in jobs],
        "traces": list(traces),
        "heads": [_head(head, place) for head in heads],
        "frozen": _frozen(heads),
        "classes": _classes(heads, place),
        "compare": disagreement(jobs, heads[0].best) if heads else None,
    }


def _swept(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Every option that was given, what differs first, with its values in the order of the jobs' numbers."""
    rows = sorted((job.row for job in jobs), key=lambda row: (len(str(row["job"])), str(row["job"])))
    options = options_of(rows)
    swept = []
    for name, label in zip(options, brief(options), strict=True):
        values = list(dict.fromkeys(str(row.get(name, words.NONE)) for row in rows))
        swept.append({"label": label, "values": values[:_MOST_VALUES], "more": max(0, len(values) - _MOST_VALUES)})
    return sorted(swept, key=lambda option: len(option["values"]) == 1)


def _counts(jobs: Sequence[Job], heads: Sequence[Head]) -> dict[str, Any]:
    states = Counter(job.row["state"] for job in jobs)
    return {
        "jobs": len(jobs),
        "heads": len(heads),
        "seeds": len({job.row["seed"] for job in jobs if job.row.get("seed") is not None}),
        "states": dict(states.most_common()),
    }


def _facts(heads: Sequence[Head]) -> dict[str, Any]:
    metrics = [job.metrics for head in heads for job in head.jobs]
    return {
        "backbones": sorted({str(found["backbone"]) for found in metrics if found.get("backbone")}),
        "data": sorted({str(root) for found in metrics if (root := _place(found))}),
        "queries": {split: at(metrics[0], "splits", split, "n") if metrics else None for split in ("val", "test")},
    }


def _place(metrics: Mapping[str, Any]) -> Any:
    return at(metrics, "data", "manifest") or at(metrics, "data", "root")


def _job(job: Job, options: Sequence[str], traces: dict[str, int], jobs: int) -> dict[str, Any]:
    row = job.row
    plain = {"name": job.name, "state": row["state"], "options": [str(row.get(name, words.NONE)) for name in options]}
    plain |= {"seed": row.get("seed")}
    if row["state"] != "done":
        return plain | {"error": _last_words(job), "trace": _trace(job, traces)}
    plain |= {split: _rounded(job_hits(job, split)) for split in ("val", "test")}
    plain |= {name: _rounded(job_gain(job, name)) for name in BASELINES}
    plain |= {name: job.cost(name) for name in _COSTS}
    return plain | {"curve": _curve(job, min(_MOST, max(_FEWEST, _MOST_POINTS // jobs)))}


def _rounded(values: Iterable[float | int | None]) -> Figures:
    return [None if value is None else round(value, 6) for value in values]


def _last_words(job: Job) -> str:
    """What went wrong in one line: the first of a message of ours, which starts with its code; else the last."""
    told = str(job.status.get("error") or "")
    if told.startswith("["):
        return told.splitlines()[0]
    lines = (str(job.status.get("traceback") or "") or told).strip().splitlines()
    return lines[-1] if lines else "no readable metrics.json" * (job.row["state"] == "lost")


def _trace(job: Job, traces: dict[str, int]) -> int | None:
    """Its place in ``traces``; jobs mostly fail alike."""
    whole = str(job.status.get("traceback") or job.status.get("error") or "")
    text = whole if len(whole) <= _MOST_TRACE else f"…{whole[-_MOST_TRACE:]}"
    if not text or (text not in traces and len(traces) >= _MOST_TRACES):
        return None
    return traces.setdefault(text, len(traces))


def _curve(job: Job, most: int) -> list[list[Any]] | None:
    """Epochs, and val hit@1 and val loss of each; thinned evenly, with the first, the best and the last."""
    path = job.folder / "journal.jsonl"
    try:
        found = journal.epochs(journal.read(path)) if path.stat().st_size <= _MOST_JOURNAL else []
    except (OSError, ValueError, LookupError, TypeError):
        return None
    names = ("epoch", f"{job.logged_as}val/hit@1", f"{job.logged_as}val/loss")
    points = [[number(epoch.get(name)) for name in names] for epoch in found]
    points = [point for point in points if point[0] is not None and point[1:] != [None, None]]
    if not points:
        return None
    best = max(range(len(points)), key=lambda index: points[index][1] or 0)
    even = np.linspace(0, len(points) - 1, min(most, len(points))).round().astype(int).tolist()
    thin = [points[index] for index in sorted({*even, best})]
    return [[point[0] for point in thin], *([_short(point[i]) for point in thin] for i in (1, 2))]


def _short(value: float | int | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _head(head: Head, place: Mapping[str, int]) -> dict[str, Any]:
    return {
        "jobs": [place[job.name] for job in head.jobs],
        **{split: _rounded(head.hits[split]) for split in ("val", "test")},
        **{name: _rounded(head.gains[name]) for name in BASELINES},
        **{name: head.cost(name) for name in _COSTS},
    }


def _winner(heads: Sequence[Head], place: Mapping[str, int]) -> dict[str, Any]:
    head = heads[0]
    ties = sum(math.isclose(other.val, head.val) for other in heads) - 1
    return {
        "job": place[head.best.name],
        "seeds": len(head.jobs),
        "val": _rounded(head.hits["val"]),
        "test": _rounded(_over_queries(head)),
        "gains": {name: _rounded(head.gains[name]) for name in BASELINES},
        "ties": ties,
        "verdict": verdict(head.gains),
    }


def _over_queries(head: Head) -> Figures:
    """Its hit@1 on test with the interval over queries, by home where homes are known, of hits averaged over seeds.

    What seeds differ by says nothing of how many queries were asked.
    """
    found = (read_hits(job.queries, "test") for job in head.jobs)
    runs = [hits for hits in found if hits]
    if len(runs) < 2 or any(run.paths != runs[0].paths for run in runs):
        return head.hits["test"]
    homes = runs[0].homes if (runs[0].homes >= 0).any() else None
    interval = mean_interval(np.mean([run.by_method["head"] for run in runs], axis=0), homes)
    return [number(value) for value in interval]


def verdict(gains: Mapping[str, Figures]) -> str:
    """In plain words whether the winner beats its baselines beyond the noise.

    >>> verdict({"frozen": [0.03, 0.01, 0.05, 0.02], "pca": [0.01, -0.01, 0.03, 0.4]})
    'It beats the frozen features beyond the noise; against PCA the difference is inside the noise.'
    """
    kinds: dict[str, list[str]] = {}
    for name, label in _BASELINE_NAMES.items():
        kinds.setdefault(_kind(gains[name]), []).append(label)
    if len(kinds.get("noise", [])) == len(_BASELINE_NAMES):
        return f"It beats neither {' nor '.join(kinds['noise'])} beyond the noise."
    clauses = [said.format(" and ".join(kinds[kind])) for kind, said in _CLAUSES.items() if kind in kinds]
    told = "; ".join(clauses)
    return f"{told[0].upper()}{told[1:]}."


def _kind(gain: Figures) -> str:
    difference, low, high, p = gain
    if difference is None or low is None or high is None or p is None:
        return "unknown"
    if p >= _LEVEL or low <= 0 <= high:
        return "noise"
    return "better" if difference > 0 else "worse"


def _frozen(heads: Sequence[Head]) -> list[float]:
    """What the frozen features have on val; several values where backbones or data differ."""
    found = (number(at(job.metrics, "splits", "val", "frozen", "hit@1")) for head in heads for job in head.jobs)
    return sorted({round(value, 6) for value in found if value is not None})


def _classes(heads: Sequence[Head], place: Mapping[str, int]) -> dict[str, Any] | None:
    """hit@1 of each class on test: the winner's baselines first, then the best heads, averaged over seeds.

    Of many classes those on which the heads differ most.
    """
    shown = heads[:_MOST_HEADS]
    runs = [[_by_class(heads[0].best, name)] for name in BASELINES if heads]
    runs += [[_by_class(job, "head") for job in head.jobs] for head in shown]
    names = sorted({name for same in runs for run in same for name in run if run[name] is not None})
    values = np.array([[_mean(run.get(name) for run in same) for name in names] for same in runs], float)
    if not names:
        return None
    spread = np.nanmax(values, axis=0) - np.nanmin(values, axis=0)
    kept = sorted(np.argsort(-spread, kind="stable")[:_MOST_CLASSES].tolist())
    rows: list[dict[str, Any]] = [{"name": words.METHODS[name], "job": None} for name in BASELINES]
    rows += [{"name": head.best.name, "job": place[head.best.name]} for head in shown]
    counts = at(heads[0].best.metrics, "splits", "test", "per_class", "head") or {}
    return {
        "names": [names[index] for index in kept],
        "counts": [at(counts, names[index], "n") for index in kept],
        "rows": rows,
        "values": [_rounded(number(value) for value in row[kept].tolist()) for row in values],
        "left_out": {"classes": len(names) - len(kept), "heads": max(0, len(heads) - _MOST_HEADS)},
    }


def _by_class(job: Job, method: str) -> dict[str, float | int | None]:
    found = at(job.metrics, "splits", "test", "per_class", method) or {}
    return {name: number(at(cell, "hit@1")) for name, cell in found.items()}


def _mean(values: Iterable[float | int | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan
