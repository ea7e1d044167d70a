"""Numbers for a person: one run in one table, a sweep as a csv file and as a ranking."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from likeness.errors import LikenessError
from likeness.files import write_atomic
from likeness.reports import words
from likeness.reports.tables import brief, table, titled
from likeness.runs.sweep import counted, queued_jobs, standing

Row = dict[str, Any]

_LEVEL = 0.05
_MOST_JOBS = 20
_IDENTITY = ("job", "folder", "state")
_FIGURES = ("hit@1", "hit@1_low", "hit@1_high", "hit@5", "hit@5_low", "hit@5_high")
_GAINS = ("gain_over_frozen", "p_over_frozen", "gain_over_pca", "p_over_pca")
_COSTS = ("code_width", "parameters", "seconds.fit")
_FIXED = (*_IDENTITY, *(f"{split}/{name}" for split in ("val", "test") for name in _FIGURES + _GAINS), *_COSTS, "error")


def run_table(metrics: Mapping) -> Group:
    """One run, or one evaluation, at a glance: every method, every comparison, and what it cost.

    Args:
        metrics: The content of a ``metrics.json``. What is null or absent is shown as ``–``.

    A difference is better or worse when its interval leaves zero out and its p is below 0.05, and inside the noise
    otherwise. Comparisons are of hit@1 on the last split. Of several seeds the methods are those of the first, and the
    comparisons are of the hits averaged over seeds.
    """
    seeds: list[Group | Text] = [_seeds(metrics), Text()] if "over_seeds" in metrics else []
    return Group(_methods(metrics), Text(), *seeds, _comparisons(metrics), Text(), _costs(metrics), *_left_out(metrics))


def _methods(metrics: Mapping) -> Group:
    splits = metrics["splits"]
    hits = {split: [*(at(found, "chance") or ("hit@1",))][:2] for split, found in splits.items()}
    columns = [(split, hit) for split in splits for hit in hits[split]] + [(list(splits)[-1], "map@r")]
    board = table([""], [f"{split}\n{measure}" for split, measure in columns])
    cells = {method: [_shown(splits, split, method, measure) for split, measure in columns] for method in words.METHODS}
    best = [max(_numbers(column), default=None) for column in zip(*cells.values(), strict=True)]
    for method, row in cells.items():
        shown = [interval_cell(cell, number(cell) == top) for cell, top in zip(row, best, strict=True)]
        board.add_row(words.METHODS[method], *shown)
    chance = [interval_cell(_shown(splits, split, "chance", measure)) for split, measure in columns]
    board.add_row("chance", *chance, style="dim")
    network, head = (metrics.get(key) or words.NONE for key in ("backbone", "head"))
    first = f", seed {metrics['seed']}" if "over_seeds" in metrics else ""
    return titled(f"{network} → {head}{first}", ", percent with 95 % intervals", board)


def _seeds(metrics: Mapping) -> Group:
    """The head's hit@1 of each seed on each split, above the mean with half the width of Student's interval."""
    splits, seeds = list(metrics["splits"]), metrics["seeds"]
    board = table(["seed"], [*(f"{split}\nhit@1" for split in splits), "\nepochs"])
    for seed in seeds:
        hits = (words.percent(number(at(seed, "splits", split, "head", "hit@1"))) for split in splits)
        board.add_row(str(seed["seed"]), *hits, words.count(seed["epochs"]))
    board.add_row("mean", *(_mean(metrics, split) for split in splits), style="bold")
    return titled(f"head, {len(seeds)} seeds", ", percent, mean with Student's 95 % interval", board)


def _mean(metrics: Mapping, split: str) -> str:
    found = at(metrics, "over_seeds", split, "head", "hit@1")
    return words.spread(number(found), number(at(found, "high")))


def _shown(splits: Mapping, split: str, method: str, measure: str) -> Any:
    """An interval for a hit; for map@r, the fifth column of a page's hundred characters, the number alone."""
    found = at(splits, split, method, measure)
    return number(found) if measure == "map@r" else found


def _comparisons(metrics: Mapping) -> Group:
    """One line a pair, e.g. ``head − frozen  +1.2 points  [−0.4, +2.8]  p = 0.14  → inside the noise``."""
    split = list(metrics["splits"])[-1]
    averaged = ", averaged over seeds" if "over_seeds" in metrics else ""
    paired = (at(_final(metrics), split, "paired") or {}).items()
    board = differences((words.pair(pair), at(measures, "hit@1")) for pair, measures in paired)
    return titled(f"{split} hit@1{averaged}", ", query by query", board)


def _final(metrics: Mapping) -> Mapping:
    """By split, what the job came to: the means of several seeds."""
    return metrics.get("over_seeds") or metrics["splits"]


def differences(rows: Iterable[tuple[str, Any]]) -> Table:
    """A line for each name and its paired difference: the interval, the p and what to call it."""
    board = Table.grid(padding=(0, 2, 0, 0))
    for name, found in rows:
        board.add_row(Text(name), *_difference_cells(found))
    return board


def _difference_cells(found: Any) -> list[Text]:
    """A paired difference, its interval, its p and what to call it, a cell each."""
    difference, low, high, p = (number(at(found, key)) for key in ("difference", "low", "high", "p"))
    if difference is None:
        return [Text(words.NONE)]
    verdict, look = _verdict(difference, low, high, p)
    return [
        Text(f"{words.points(difference)} points", justify="right"),
        Text(f"[{words.points(low)}, {words.points(high)}]"),
        Text(words.p_value(p)),
        Text(f"→ {verdict}", look),
    ]


def _verdict(difference: float, low: float | None, high: float | None, p: float | None) -> tuple[str, str]:
    """What to call a difference, and its look. Only an interval and a p that are both there can leave the noise."""
    if low is None or high is None or p is None:
        return "no interval", "dim"
    if p >= _LEVEL or low <= 0 <= high:
        return "inside the noise", "yellow"
    return ("better", "bold green") if difference > 0 else ("worse", "bold red")


def _costs(metrics: Mapping) -> Text:
    queries = ", ".join(f"{name} {_counted(split, 'n')}" for name, split in metrics["splits"].items())
    spent = (f"{name} {value:.1f}" for name, value in (metrics.get("seconds") or {}).items() if value is not None)
    width, parameters, epochs = (_counted(metrics, key) for key in ("code_width", "parameters", "epochs"))
    reused, computed = (_counted(metrics, "features", key) for key in ("reused", "computed"))
    return Text(
        f"n: {queries} · code width {width} · {parameters} parameters · {epochs} epochs\n"
        f"rows: {reused} reused, {computed} computed · seconds: {', '.join(spent) or words.NONE}",
        "dim",
    )


def _left_out(metrics: Mapping) -> Iterator[Text]:
    """A line for every kind of query or code that the figures do not count."""
    for name, split in metrics["splits"].items():
        if skipped := number(at(split, "skipped")):
            yield Text(f"{name}: {skipped:,} queries skipped, as none of their candidates has their class", "yellow")
        for method, rows in (at(split, "zero") or {}).items():
            if rows:
                yield Text(f"{name}: {rows:,} codes of {words.METHODS.get(method, method)} are zero", "yellow")


def run_line(metrics: Mapping) -> Text:
    """One run in one line: the head's hit@1 on each split, and its gain over the frozen features on the last.

    Of several seeds it is their means.
    """
    splits = _final(metrics)
    hits = (f"{split} hit@1 {_alone_or_mean(metrics, split)}" for split in splits)
    *_, last = splits
    gain = number(at(splits, last, "paired", "head-frozen", "hit@1", "difference"))
    seeds = f", {len(metrics['seeds'])} seeds" if "over_seeds" in metrics else ""
    return Text(f"{', '.join(hits)}, {words.points(gain)} points over frozen{seeds}")


def _alone_or_mean(metrics: Mapping, split: str) -> str:
    if "over_seeds" in metrics:
        return _mean(metrics, split)
    return words.percent(number(_shown(metrics["splits"], split, "head", "hit@1")))


def sweep_rows(folder: Path) -> list[Row]:
    """Every job of a sweep as a flat row, best validation hit@1 first, jobs without a result last.

    A job is a sub-folder with a ``status.json`` or a ``metrics.json``; one of several seeds has a row for each, as if
    each had been a job. A row has job, folder, state, a key for each overridden option, the figures of val and test as
    fractions, costs, and the first line of its error; what is not known is None. The state is ``lost`` where a job says
    it is done but has no readable ``metrics.json``.

    Raises:
        LikenessError: RUN-MISSING when there is no such folder.
    """
    return best_first(row for path in _job_folders(folder) for row in run_rows(path))


def _job_folders(sweep: Path) -> list[Path]:
    if not sweep.is_dir():
        raise LikenessError("RUN-MISSING", "there is no such sweep.", where=str(sweep), fix="Give the sweep's folder.")
    jobs = (path for path in sweep.iterdir() if (path / "status.json").exists() or (path / "metrics.json").exists())
    return sorted(jobs, key=lambda path: (len(path.name), path.name))


def standing_table(folder: Path) -> Group:
    """How every job of a sweep stands: its number, folder, overrides, state, and the first line of its error.

    Raises:
        LikenessError: RUN-MISSING when there is no such sweep.
    """
    waiting = queued_jobs(folder)
    rows = sorted(map(run_row, _job_folders(folder)), key=lambda row: (str(row["job"]).zfill(9), row["folder"]))
    states = [standing(folder / row["folder"], waiting) for row in rows]
    varying = varying_options(rows)
    board = table(["job", "folder", *brief(varying)], ["state"])
    for row, state in zip(rows, states, strict=True):
        look = {"done": "green", "failed": "bold red", "lost": "bold red", "running": "cyan"}.get(state, "")
        board.add_row(str(row["job"]), row["folder"], *(_option(row, name) for name in varying), Text(state, look))
    failed = [_unfinished(row) for row, state in zip(rows, states, strict=True) if state == "failed"]
    return Group(titled(str(folder), f": {counted(states)}", board), *failed)


def finished_metrics(folder: Path) -> Mapping | None:
    """The metrics of a job that is done; None of any other, and where they cannot be read."""
    metrics = read_object(folder / "metrics.json")
    return metrics if _state(read_object(folder / "status.json"), metrics) == "done" else None


def of_each_seed(metrics: Mapping) -> list[Mapping]:
    """The metrics of each head of a job of several seeds, as if it had been a job; a single one's as they are."""
    seeds = metrics.get("seeds")
    if not isinstance(seeds, list):
        return [metrics]
    return [{**metrics, **own, "splits": _splits(metrics, own)} for own in seeds if isinstance(own, Mapping)]


def _splits(metrics: Mapping, own: Mapping) -> dict[str, Any]:
    """What a seed has of its own, beside what is the same for all."""
    return {split: {**(at(metrics, "splits", split) or {}), **found} for split, found in own["splits"].items()}


def run_row(folder: Path) -> Row:
    """One run as a row of :func:`sweep_rows`; of several seeds as it was called, with the first seed's figures."""
    status, metrics = read_object(folder / "status.json"), read_object(folder / "metrics.json")
    state = _state(status, metrics)
    job = at(status, "job")
    overrides = at(status, "overrides")
    return {
        "job": folder.name if job is None else job,
        "folder": folder.name,
        "state": state,
        **dict(_overridden(text) for text in (overrides if isinstance(overrides, list) else [])),
        **_results(metrics if state == "done" else None),
        "error": _first_line(at(status, "error")),
    }


def run_rows(folder: Path) -> list[Row]:
    """One run as its rows of :func:`sweep_rows`: one, or one a seed with the options that would train it alone."""
    row, metrics = run_row(folder), finished_metrics(folder)
    if metrics is None or "over_seeds" not in metrics:
        return [row]
    alone = {name: value for name, value in row.items() if name != "seeds"}
    return [alone | {"seed": str(own["seed"])} | _results(own) for own in of_each_seed(metrics)]


def _state(status: Mapping | None, metrics: Mapping | None) -> str:
    named = at(status, "state") or "done"
    return "lost" if named == "done" and not isinstance(at(metrics, "splits"), Mapping) else str(named)


def _overridden(text: str) -> tuple[str, str]:
    """``+a.b=1`` as ``("a.b", "1")``; a name that a row needs for itself is set apart."""
    key, _, value = str(text).lstrip("+~").partition("=")
    return (f"override {key}" if key in _FIXED else key), value


def _results(metrics: Mapping | None) -> Row:
    row: Row = {}
    for split in ("val", "test"):
        for measure in ("hit@1", "hit@5"):
            found = at(metrics, "splits", split, "head", measure)
            row[f"{split}/{measure}"] = number(found)
            row |= {f"{split}/{measure}_{end}": number(at(found, end)) for end in ("low", "high")}
        for method in ("frozen", "pca"):
            found = at(metrics, "splits", split, "paired", f"head-{method}", "hit@1")
            row[f"{split}/gain_over_{method}"] = number(at(found, "difference"))
            row[f"{split}/p_over_{method}"] = number(at(found, "p"))
    row |= {key: number(at(metrics, *key.split("."))) for key in _COSTS}
    return row


def best_first(rows: Iterable[Row]) -> list[Row]:
    """By validation hit@1; equals stay in the order of jobs. The test split has no say."""
    return sorted(rows, key=by_validation)


def by_validation(row: Row) -> tuple[bool, bool, float | int]:
    """Sorts rows best first, those without a result last."""
    return row["state"] != "done", row["val/hit@1"] is None, -(row["val/hit@1"] or 0)


def write_scoreboard(folder: Path) -> Path:
    """Write the rows of :func:`sweep_rows` to ``scoreboard.csv`` in the sweep's folder, atomically.

    Raises:
        LikenessError: RUN-MISSING when there is no such folder; otherwise as ``write_atomic``.
    """
    rows = sweep_rows(folder)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*_IDENTITY, *options_of(rows), *_FIXED[len(_IDENTITY) :]], restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "scoreboard.csv", text.getvalue().encode("utf-8", "surrogateescape"))
    return folder / "scoreboard.csv"


def sweep_table(rows: Sequence[Row]) -> Group:
    """A sweep as a ranking by validation hit@1, and the jobs without a result.

    Args:
        rows: From :func:`sweep_rows`.

    Only overridden options that differ between jobs have a column.
    """
    done = [row for row in best_first(rows) if row["state"] == "done"]
    unfinished = [row for row in rows if row["state"] != "done"]
    jobs = len({row["folder"] for row in rows})
    parts: list[Group | Text] = [_ranking(done), _choice(jobs, done)] if done else [Text("No result yet.")]
    parts += [_unfinished(row) for row in unfinished[:_MOST_JOBS]]
    if len(unfinished) > _MOST_JOBS:
        parts += [Text(f"… and {len(unfinished) - _MOST_JOBS} more jobs without a result")]
    return Group(*parts)


def _ranking(done: Sequence[Row]) -> Group:
    varying = varying_options(done)
    figures = ["val\nhit@1", "test\nhit@1", "test\n− frozen", "\np", "test\n− PCA"]
    board = table(["job", *brief(varying)], figures)
    for rank, row in enumerate(done[:_MOST_JOBS]):
        board.add_row(
            Text(str(row["job"])),
            *(_option(row, name) for name in varying),
            *(interval_cell(_stored(row, f"{split}/hit@1")) for split in ("val", "test")),
            words.points(row["test/gain_over_frozen"]),
            words.p_value(row["test/p_over_frozen"]).removeprefix("p ").removeprefix("= "),
            words.points(row["test/gain_over_pca"]),
            style="" if rank else "bold",
        )
    shown = f", {min(len(done), _MOST_JOBS)} of {len(done)}, percent with 95 % intervals"
    return titled("best by val hit@1", shown, board)


def _choice(jobs: int, done: Sequence[Row]) -> Text:
    chosen = f"Job {done[0]['job']} was chosen on val, which flatters its val figure; test had no say."
    if len(done) == 1 or done[0]["val/hit@1"] is None:
        chosen = "There was nothing to choose on val."
    return Text(f"\n{jobs} jobs, {len(done)} heads tried. {chosen}\n")


def _unfinished(row: Row) -> Text:
    reason = row["error"] or ("no readable metrics.json" if row["state"] == "lost" else "")
    look = "red" if row["state"] in ("failed", "lost") else "yellow"
    return Text.assemble(f"job {row['job']} ", (row["state"], look), f": {reason}" if reason else "")


def options_of(rows: Iterable[Row]) -> list[str]:
    """The options that any of these jobs overrode."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in _FIXED))


def varying_options(rows: Sequence[Row]) -> list[str]:
    """The overridden options that differ between these jobs."""
    return [name for name in options_of(rows) if len({row.get(name) for row in rows}) > 1]


def _option(row: Row, name: str) -> Text:
    return Text(words.shortened(row.get(name, words.NONE), 24))


def _stored(row: Row, key: str) -> dict[str, float | None]:
    return {"value": row[key], "low": row[f"{key}_low"], "high": row[f"{key}_high"]}


def interval_cell(found: Any, best: bool = False) -> Text:
    """``58.2 [55.1–61.2]``: a fraction or ``{"value", "low", "high"}`` in percent."""
    value, low, high = number(found), number(at(found, "low")), number(at(found, "high"))
    if value is None:
        return Text(words.NONE)
    between = "" if low is None or high is None else f" [{words.percent(low)}–{words.percent(high)}]"
    return Text.assemble((words.percent(value), "bold" if best else ""), (between, "dim"))


def at(found: Any, *keys: str) -> Any:
    """What lies under ``keys``; None where the way there is missing or null."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def number(found: Any) -> float | int | None:
    """A finite number as it is, or the value of ``{"value", "low", "high"}``; None for all else."""
    found = at(found, "value") if isinstance(found, Mapping) else found
    return found if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) else None


def _counted(found: Any, *keys: str) -> str:
    return words.count(number(at(found, *keys)))


def _numbers(found: Iterable[Any]) -> list[float | int]:
    return [number for number in map(number, found) if number is not None]


def read_object(path: Path) -> Mapping | None:
    """A JSON object, None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, Mapping) else None


def _first_line(text: Any) -> str:
    lines = str(text or "").strip().splitlines()
    return lines[0] if lines else ""
