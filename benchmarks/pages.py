"""What docs/ says of speed and memory is made from benchmarks/results/*.json: `python benchmarks/pages.py`.

A page has `<!-- measured: NAME -->` and `<!-- end -->`; what stands between them is NAME's block below, and nobody's
hand. A result that is not there is said to be missing. The pictures of docs/ are drawn again as well.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, markdown, shown

from likeness.files import write_atomic

DOCS = ROOT / "docs"
MARKED = re.compile(r"(?<=<!-- measured: )(\S+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
UNQUIET, MUCH = 0.3, 0.05
TOLD_APART = ("date", "command", "cpu", "cores", "threads", "gpu", "python", "versions", "note")
TOLD_APART += ("load before", "load after", "others")
Row = Mapping[str, Any]
Result = Mapping[str, Any]


def remake() -> None:
    """Every page and picture from the results that there are; none where those of this run lie elsewhere."""
    if RESULTS != ROOT / "benchmarks" / "results":
        return
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        if (made := remade(text)) != text:
            write_atomic(page, made.encode())
    draw()


def remade(text: str) -> str:
    """The page with its blocks as the results say; a block of an unknown name raises KeyError."""
    return MARKED.sub(lambda found: f"{found[1]}{found[2]}\n{BLOCKS[found[1]]()}\n\n", text)


def result(name: str) -> Result | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def block(commands: Mapping[str, str], tables: Callable[[Sequence[Row]], Iterable[str]]) -> str:
    """Tables of the rows of these results, and when and where each was measured; or which command measures it."""
    found = {name: each for name in commands if (each := result(name))}
    rows = [row for each in found.values() for row in each["rows"]]
    lacking = [f"`python benchmarks/{commands[name]}`" for name in commands if name not in found]
    told = [f"Not measured yet: what {words} writes." for words in lacking]
    return "\n\n".join([*(tables(rows) if rows else ()), *map(origin, found.values()), *told])


def origin(found: Result) -> str:
    """One paragraph: command, date, machine, load, versions, spread, and what is missing."""
    where, rows = found["environment"], found["rows"]
    on = where["gpu"] if where["gpu"] != "none" else f"{where['cpu']}, {where['cores']} cores"
    load = " and ".join(f"{where[f'load {when}']} {when}" for when in ("before", "after") if f"load {when}" in where)
    others = [f"{name} {shown(each)}" for name, each in where.items() if name not in TOLD_APART]
    versions = [f"{name} {version}" for name, version in where["versions"].items() if version != "missing"]
    told = [
        f"`{where['command']}`",
        where["date"],
        on,
        f"threads {where['threads']}",
        *others,
        *([f"load {load}"] if load else []),
    ]
    disturbed = where.get("others", 0) > MUCH and any("seconds" in row for row in rows)
    sentences = [
        f"{', '.join(told)}; Python {where['python']}, {', '.join(versions)}.",
        spread_of(rows),
        where.get("note", "").strip(),
        missing_of(rows),
        f"**Other work had {where['others']:.0%} of the cores meanwhile.**" if disturbed else "",
    ]
    return " ".join(filter(None, sentences))


def missing_of(rows: Sequence[Row]) -> str:
    lacking = {f"{row.get('way') or row.get('what')} (no {row['missing']})" for row in rows if "missing" in row}
    return f"Missing: {', '.join(sorted(lacking))}." if lacking else ""


def spread_of(rows: Sequence[Row]) -> str:
    each = [row[name] for row in rows for name in ("spread", "most spread") if name in row]
    if not each:
        return ""
    rounds = [len(row["seconds"]) for row in rows if isinstance(row.get("seconds"), list)]
    least = f"Medians of at least {min(rounds)} rounds. " if rounds else ""
    wide = sum(one > UNQUIET for one in each)
    told = f"The slowest round is at most {max(each):.2f} of the median above the fastest"
    return f"{least}{told}; more than {UNQUIET} in {wide} of {len(each)} rows."


def columns(rows: Sequence[Row], *names: str) -> str:
    """These columns alone, without those that are empty."""
    kept = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    return markdown([{name: row.get(name) for name in kept} for row in rows])


def across(rows: Sequence[Row], down: str, over: str, cell: Callable[[Row], str]) -> str:
    """A row for each ``down``, a column for each ``over``."""
    heads = list(dict.fromkeys(row[over] for row in rows))
    found = {(row[down], row[over]): cell(row) for row in rows}
    names = dict.fromkeys(row[down] for row in rows)
    return markdown([{" ": name, **{str(head): found.get((name, head), "–") for head in heads}} for name in names])


def beside(row: Row, unit: str = "ms") -> str:
    """``12.3 ms, × 0.5``, and the peak memory where that was measured."""
    if "missing" in row:
        return "missing"
    told = [f"{shown(row[unit])} {unit}"] if unit in row else []
    told += [f"× {shown(row[name])}" for name in row if name.startswith("× ")]
    return ", ".join([*told, *([f"{shown(row['MiB'])} MiB"] if "MiB" in row else [])])


def retrieval(rows: Sequence[Row]) -> Iterator[str]:
    """Splits, queries to a gallery, and codes that are alike, each a table."""
    splits = [row for row in rows if ", k = " in row["task"]]
    asked = [row for row in rows if "quer" in row["task"]]
    alike = [row for row in rows if row not in splits and row not in asked]
    for some in filter(None, (splits, asked, alike)):
        yield across(some, "way", "task", beside)


def training(rows: Sequence[Row]) -> Iterator[str]:
    yield across(rows, "way", "head", beside)


def seeds(rows: Sequence[Row]) -> Iterator[str]:
    yield across(rows, "way", "head", partial(beside, unit="s"))


def start(rows: Sequence[Row]) -> Iterator[str]:
    yield columns(rows, "what", "s", "processor s", "spread", "aim")


def extraction(rows: Sequence[Row]) -> Iterator[str]:
    """Pictures a second, then what is not of pictures."""
    rates, others = [], []
    for row in rows:
        (others if "s" in row else rates).append(row)
    told = ("what", "pictures a second", "a second of the processor", "times", "that of", "spread", "MiB")
    yield columns(rates, *told, "missing")
    yield columns(others, "what", "s", "processor s", "spread")


def every_column(rows: Sequence[Row]) -> Iterator[str]:
    yield markdown(rows)


def growth(rows: Sequence[Row]) -> Iterator[str]:
    """What was measured, and what the largest of it comes to at 100 M."""
    yield markdown([{name: each for name, each in row.items() if name not in ("width", "most spread")} for row in rows])
    yield growing(rows)


GROWING = {  # what grows how, and by which power of the number of pictures; 0: not at all
    "table": ("N", 1),
    "writing": ("N (4 D + 36)", 1),
    "opening": ("N (4 D + 36)", 1),
    "PCA": ("N D²", 1),
    "default head": ("at most 8192 rows", 0),
    "hits": ("Q² C", 2),
    "neighbours": ("Q² C", 2),
    "scores": ("Q²", 2),
}
BEYOND = 100_000_000


def growing(rows: Sequence[Row]) -> str:
    """In seconds of the processor where they are known, and what that comes to at 100 M."""
    told = []
    for part, (law, power) in GROWING.items():
        row = max((row for row in rows if f"{part} s" in row), key=lambda row: row["pictures"])
        seconds = row.get("of the processor", {}).get(part, row[f"{part} s"])
        factor = (BEYOND // row["pictures"]) ** power
        measured = f"{duration(seconds)} at {row['pictures']:,}"
        told.append({"part": part, "grows as": law, "measured": measured, "at 100 M": duration(seconds * factor)})
    largest = max(rows, key=lambda row: row["pictures"])
    size = largest["store GB"] * (BEYOND // largest["pictures"])
    measured = f"{shown(largest['store GB'])} GB at {largest['pictures']:,}"
    told.append({"part": "store", "grows as": "N (4 D + 36)", "measured": measured, "at 100 M": f"{shown(size)} GB"})
    return markdown(told)


def duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{shown(seconds / size)} {unit}"
    return f"{shown(1000 * seconds)} ms"


def finding(rows: Sequence[Row]) -> Iterator[str]:
    """Single queries, 64 at once, what engines are made for, and one photo, against the size of the gallery."""
    for task in ("1 query", "64 queries"):
        some = [{**row, "rows": f"{row['rows']:,} rows"} for row in rows if row["task"].startswith(task)]
        yield f"{task}, ms:"
        yield across(some, "way", "rows", between)
    yield markdown([engine(row) for row in rows if "build s" in row and row["rows"] >= 100_000])
    yield "One photo, ms:"
    some = [{**row, "rows": f"{row['rows']:,} rows"} for row in rows if row["task"].startswith("one photo")]
    yield across(some, "way", "rows", between)


def between(row: Row) -> str:
    """The median, and the fastest and the slowest round."""
    if "missing" in row:
        return "missing"
    part = row["ms"] / sorted(row["seconds"])[len(row["seconds"]) // 2]
    return f"{shown(row['ms'])} ({shown(part * min(row['seconds']))}–{shown(part * max(row['seconds']))})"


def engine(row: Row) -> Row:
    told = {"engine": f"{row['way']}, {row['rows']:,} rows"}
    told |= {name: shown(row[name]) for name in ("build s", "peak MiB", "held MiB")}
    told["settings"] = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
    stated = row.get("stated")
    told["stated recall (95 %)"] = "{value:.3f} ({low:.3f}–{high:.3f})".format(**stated) if stated else "exact"
    return {**told, "of 512 new queries": f"{row['recall@10']:.3f}"}


def index(rows: Sequence[Row]) -> Iterator[str]:
    some = [{**row, "rows": f"{row['rows']:,} codes"} for row in rows]
    yield across(some, "what", "rows", lambda row: duration(row["s"]))


def export(rows: Sequence[Row]) -> Iterator[str]:
    told = ("what", "is", "a second", "a second of the processor", "s", "processor s", "spread", "MiB", "missing")
    yield columns(rows, *told)


def votes() -> str:
    """The head's plain votes, and what votes by similarity gain, in two collections."""
    found = {told: result(f"votes_{name}") for told, name in (("Houses", "houses"), ("six rooms", "rooms"))}
    table: dict[int, dict[str, Any]] = {}
    for told, each in found.items():
        for row in each["rows"] if each else ():
            if row["codes"] == "head" and row["votes"] in ("uniform", "similarity"):
                cells = table.setdefault(row["k"], {"k": row["k"]})
                plain = row["votes"] == "uniform"
                cells[f"{told}, {'plain' if plain else 'by similarity'}"] = (
                    f"{row['right']:.1f}" if plain else gain(row)
                )
    lacking = [f"Not measured yet: {told}." for told, each in found.items() if each is None]
    return "\n\n".join([markdown(list(table.values())), *(origin(each) for each in found.values() if each), *lacking])


def gain(row: Row) -> str:
    low, high, value = (f"{row[name]:+.1f}".replace("-", "−") for name in ("gain low", "gain high", "gain"))
    return f"{value} [{low}, {high}]"


def voted_kinds(rows: Sequence[Row]) -> Iterator[str]:
    """Rules down, methods across."""
    some = [
        {**row, "rule": row["rule"] + (f", {row['kinds']} kinds" if row["kinds"] != "none" else "")} for row in rows
    ]
    yield across(some, "rule", "codes", lambda row: f"{row['MRR']:.1f} [{row['low']:.1f}–{row['high']:.1f}]")
    right = {row["codes"]: f"{row['votes right']:.1f} %" for row in rows if row["votes right"] is not None}
    yield "Votes that are right: " + ", ".join(f"{value} ({name})" for name, value in right.items()) + "."


BLOCKS: dict[str, Callable[[], str]] = {
    "bench": partial(block, {"bench": "bench.py"}, every_column),
    "start": partial(block, {"start": "start.py"}, start),
    "retrieval": partial(block, {"retrieval": "retrieval.py"}, retrieval),
    "retrieval_large": partial(block, {"retrieval_large": "retrieval.py --large"}, retrieval),
    "training": partial(block, {"training": "training.py"}, training),
    "seeds": partial(block, {"seeds": "seeds.py"}, seeds),
    "extraction": partial(block, {"extraction_resnet50": "extraction.py"}, extraction),
    "growth": partial(block, {"growth": "growth.py", "growth_large": "growth.py --sizes 1000000 --repeats 1"}, growth),
    "ring": partial(block, {"ring": "ring.py"}, every_column),
    "finding": partial(block, {"finding": "finding.py", "finding_large": "finding.py --sizes 1000000"}, finding),
    "index": partial(block, {"index": "index.py", "index_large": "index.py --rows 1000000 --repeats 1"}, index),
    "export": partial(block, {"export": "export.py"}, export),
    "votes": votes,
    "voted_kinds": partial(block, {"voted_kinds_houses": "voted_kinds.py RUN"}, voted_kinds),
    "gpu_bench": partial(block, {"gpu_bench": "gpu.py"}, every_column),
    "gpu_retrieval": partial(block, {"gpu_retrieval": "gpu_retrieval.py"}, every_column),
    "gpu_training": partial(block, {"gpu_training": "gpu_training.py"}, every_column),
    "gpu_extraction": partial(block, {"gpu_extraction": "gpu_extraction.py"}, every_column),
}


def draw() -> None:
    """The pictures of the pages; what they need is imported here, for a page alone needs none of it."""
    import finding as of_finding
    import growth as of_growth

    pictures: dict[str, tuple[tuple[str, str], Callable[[Sequence[Row], int, Path], None]]] = {
        "growth.png": (("growth", "growth_large"), of_growth.draw),
        "finding_time.png": (("finding", "finding_large"), lambda rows, _, path: of_finding.draw(rows, path)),
    }
    for picture, (names, drawn) in pictures.items():
        found = [each for name in names if (each := result(name))]
        if found:
            rows = [row for each in found for row in each["rows"]]
            drawn(rows, found[0]["environment"]["threads"], DOCS / picture)


if __name__ == "__main__":
    remake()
