"""A sweep over the thesis' rows beside what the thesis published, row by row and measure by measure."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group
from rich.text import Text

from likeness.files import write_atomic
from likeness.reports import words
from likeness.reports.scoreboard import finished_metrics, of_each_seed
from likeness.reports.tables import table, titled

PROTOCOLS = ("as_published", "mended")
_EXPERIMENTS = "thesis/"
# Measure, and whether the published figure beside it is of the same measure.
_SAME_METRIC = {"hit@1": True, "published_top5": True, "hit@5": False}
_COLUMNS = (
    *("row", "table", "protocol", "split", "measure", "published", "measured", "low", "high", "same_metric"),
    *("backbone", "widths", "published_widths", "epochs", "published_epochs", "seed", "data", "folder"),
)
# What tells the jobs of one row and protocol apart.
_VARIANTS = ("backbone", "seed", "data")
_LEGEND = (
    "published: photos of Danish homes, which are private; measured: other photos, and where widths shrank another "
    "backbone. "
    "Same metric: hit@1 and ranks 2–6 (the published “top-5” left the nearest out); hit@5 is the true one."
)

Row = dict[str, Any]


@cache
def published() -> dict[str, Any]:
    """Every published figure with its source, by the name of its experiment."""
    return yaml.safe_load((files("likeness.reports") / "published.yaml").read_text("utf-8"))


def replication_rows(folder: Path) -> list[Row]:
    """What a sweep's finished jobs measured of the thesis' rows: a row each of job, split and measure.

    In the order of the thesis. ``published`` is None where the thesis has no figure; ``hit@5`` stands beside the
    published top-5, which is another measure (``same_metric`` is then False).
    """
    folders = sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name))
    jobs = [job for path in folders for job in _jobs(path)]
    order = list(published()["rows"])
    jobs.sort(key=lambda job: (order.index(job["row"]), PROTOCOLS.index(job["protocol"])))
    return [row for job in jobs for row in _measured(job)]


def _jobs(folder: Path) -> Iterator[Row]:
    """A job's facts and metrics, a row a seed, if it is done and one of the thesis' rows."""
    metrics = finished_metrics(folder) or {}
    options = metrics.get("options")
    if not isinstance(options, Mapping):
        return
    name = str(options.get("experiment")).removeprefix(_EXPERIMENTS)
    protocol = options.get("protocol") or "mended"
    if name in published()["rows"] and protocol in PROTOCOLS:
        for own in of_each_seed(metrics):
            yield {"row": name, "protocol": protocol, "metrics": own, "folder": folder.name}


def _measured(job: Row) -> Iterator[Row]:
    metrics, told = job["metrics"], published()["rows"][job["row"]]
    facts = {
        "row": job["row"],
        "table": told["table"],
        "protocol": job["protocol"],
        "backbone": metrics.get("backbone"),
        "widths": metrics.get("widths"),
        "published_widths": told["widths"],
        "epochs": metrics.get("epochs"),
        "published_epochs": told["epochs"],
        "seed": metrics.get("seed"),
        "data": _data(metrics.get("data") or {}),
        "folder": job["folder"],
    }
    for split, summary in metrics["splits"].items():
        for measure, same in _SAME_METRIC.items():
            figure = (told.get(split) or {}).get(measure if same else "published_top5")
            found = summary.get("head", {}).get(measure) or dict.fromkeys(("value", "low", "high"))
            value = {"measured": found["value"], "low": found["low"], "high": found["high"]}
            yield {**facts, "split": split, "measure": measure, "published": figure, **value, "same_metric": same}


def _data(node: Mapping[str, Any]) -> str | None:
    """The name of the folder or of the list of pictures."""
    place = node.get("root") or node.get("manifest")
    return Path(place).name if place else None


def write_replication(rows: Sequence[Row], folder: Path) -> Path:
    """``replication.csv``, every row; and ``replication.md``, the test split as a table for a report."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "replication.csv", text.getvalue().encode("utf-8", "surrogateescape"))
    write_atomic(folder / "replication.md", _markdown(rows).encode("utf-8", "surrogateescape"))
    return folder / "replication.csv"


def replication_table(rows: Sequence[Row], split: str = "test") -> Group:
    """Published beside measured, for the terminal: hit@1 and the published top-5, in percent with 95 % intervals."""
    heads = ["publ.\nhit@1", "as published\nhit@1", "mended\nhit@1", "publ.\n2–6", "as p.\n2–6", "mended\n2–6"]
    board = table(["row"], [*heads, "mended\nhit@5"])
    for cells in _lines(rows, split):
        board.add_row(*map(Text, cells))
    title = f"published beside measured, {split}"
    return Group(titled(title, ", percent with 95 % intervals", board), Text(_LEGEND, "dim"))


def _lines(rows: Sequence[Row], split: str) -> Iterator[list[str]]:
    """The cells of each of the thesis' rows that was measured."""
    for name, jobs in _variants(rows):
        told = published()["rows"][jobs[0]["row"]].get(split) or {}
        ours = {(row["protocol"], row["measure"]): row for row in jobs if row["split"] == split}
        yield [
            name,
            words.percent(told.get("hit@1")),
            *(_with_interval(ours.get((protocol, "hit@1"))) for protocol in PROTOCOLS),
            words.percent(told.get("published_top5")),
            *(_alone(ours.get((protocol, "published_top5"))) for protocol in PROTOCOLS),
            _alone(ours.get(("mended", "hit@5"))),
        ]


def _variants(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each row of the thesis; each seed, backbone and data apart, and named, where there are several."""
    for name in dict.fromkeys(row["row"] for row in rows):
        own = [row for row in rows if row["row"] == name]
        varying = [fact for fact in _VARIANTS if len({row[fact] for row in own}) > 1]
        apart: dict[str, list[Row]] = {}
        for row in own:
            told = ", ".join([name, *(f"{fact} {row[fact]}" for fact in varying)])
            apart.setdefault(told, []).append(row)
        yield from apart.items()


def _with_interval(row: Mapping[str, Any] | None) -> str:
    if row is None or row["measured"] is None:
        return words.NONE
    return f"{words.percent(row['measured'])} [{words.percent(row['low'])}–{words.percent(row['high'])}]"


def _alone(row: Mapping[str, Any] | None) -> str:
    return words.percent(row["measured"] if row else None)


def _markdown(rows: Sequence[Row]) -> str:
    heads = ["row", "widths", "published hit@1", "as published: hit@1", "mended: hit@1", "published ranks 2–6"]
    heads += ["as published: ranks 2–6", "mended: ranks 2–6", "mended: hit@5", "epochs"]
    lines = [heads, ["---"] * len(heads)]
    lines += [
        [cells[0], _widths(jobs), *cells[1:], _epochs(jobs)]
        for cells, (_, jobs) in zip(_lines(rows, "test"), _variants(rows), strict=True)
    ]
    shown = (" | ".join(cell.replace("|", r"\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in shown) + f"\n{_LEGEND}\n"


def _widths(jobs: Sequence[Row]) -> str:
    """``4096, 512 as 1024, 128`` where the widths shrank with the features."""
    told, ours = jobs[0]["published_widths"], jobs[0]["widths"]
    if not told:
        return words.NONE
    spelled = ", ".join(map(str, told))
    return spelled if ours in (told, None) else f"{spelled} as {', '.join(map(str, ours))}"


def _epochs(jobs: Sequence[Row]) -> str:
    """Published epochs, and those of each protocol."""
    ours = {row["protocol"]: row["epochs"] for row in jobs}
    told = jobs[0]["published_epochs"]
    return " · ".join(words.count(value) for value in (told, *(ours.get(protocol) for protocol in PROTOCOLS)))
