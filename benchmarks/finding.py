"""How long finding takes: each search engine against the size of the gallery, and one photo from file to neighbours.

    python benchmarks/finding.py [--photos PHOTOS] [--run RUN] [--sizes 1000,10000,100000] [--repeats 5] [--threads 2]
    python benchmarks/finding.py --sizes 1000000

Each gallery is in a process of its own, so that memory is its own too. Their codes are drawn around those of the
photos: a home is a photo's code and a step, its 20 rows the home and half as long a step. Queries are rows more of
these homes. What is timed takes turns; a build, with the tuning of what is tuned, is timed once. Without ``--run`` the
default model is trained on drawn rooms first, and without ``--photos`` its photos are drawn rooms. Qdrant is its own
local mode, a loop in Python, and meets galleries up to 20,000 alone. Writes benchmarks/results/finding.{json,md}, or
with sizes above 100,000 finding_large.{json,md}.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import drawn
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator
from measuring import environment, figures, interleaved, peak_memory_of, report
from torch import Tensor

from likeness.images.listing import list_pictures
from likeness.model import Model, load
from likeness.reports import style
from likeness.retrieval.engines import Engine, build
from likeness.retrieval.qdrant_engine import MEMORY, Points, Qdrant, connect

OF_A_HOME, K, ASKED, DRAWN = 20, 10, 64, 512
LARGEST_OF_ALL_DAYS, LARGEST_IN_QDRANT = 100_000, 20_000
ENGINES = {"exact": "exact", "flat": "FAISS flat", "ivf": "FAISS IVF", "hnsw": "FAISS HNSW"}
STEPS = ("decoding", "preprocessing", "network", "head")
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14)}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photos that are looked at")
    parser.add_argument("--run", type=Path, help="folder of a finished run, whose model looks at them")
    parser.add_argument("--sizes", default="1000,10000,100000", help="rows of the galleries")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        torch.set_num_threads(given.threads)
        rows = of_a_size(given.only, load(given.run), some_photos(given.photos), given.repeats)
        sys.stdout.write(json.dumps([*rows]))
        return
    torch.set_num_threads(given.threads)  # as the report says
    sizes = [int(size) for size in given.sizes.split(",")]
    name = "finding" if max(sizes) <= LARGEST_OF_ALL_DAYS else "finding_large"
    with tempfile.TemporaryDirectory() as place:
        run = given.run or drawn.trained(Path(place) / "run")
        photos = given.photos or drawn.rooms(Path(place) / "rooms")
        words = ["--repeats", str(given.repeats), "--threads", str(given.threads)]
        rows = [row for size in sizes for row in in_a_process(size, run, photos, words)]
    sys.stdout.write(report(name, rows, environment(("faiss-cpu", "qdrant-client", "numpy"))))


def in_a_process(size: int, run: Path, photos: Path, words: Sequence[str]) -> list[Row]:
    command = [sys.executable, __file__, "--only", str(size), "--run", str(run), "--photos", str(photos), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def some_photos(folder: Path, most: int = 64) -> list[Path]:
    """Of all folders alike: every so manieth of the photos in order."""
    table = list_pictures([folder])
    return [table.root / path for path in table.paths[:: max(1, len(table.paths) // most)][:most]]


def of_a_size(size: int, model: Model, photos: Sequence[Path], repeats: int) -> Iterator[Row]:
    seen = torch.from_numpy(model.encode(photos))
    codes, queries = drawn_codes(seen, size)
    engines, builds = built(codes)
    recalls = recall_of_each(engines, queries)
    for asked in (1, 64):
        task = f"{asked} {'query' if asked == 1 else 'queries'}, {size:,} rows"
        for row in timed(task, searches(engines, queries[:ASKED], asked), repeats, "exact", ASKED // asked):
            yield {**row, "rows": size, **({**builds[row["way"]], **recalls[row["way"]]} if asked == 1 else {})}
    steps = photo_steps(model, photos)
    steps |= {f"search: {told}": by_photo(engines[name], seen) for name, told in ENGINES.items()}
    steps["all, searching exactly"] = partial(whole, model, photos, engines["exact"])
    for row in timed(f"one photo, {size:,} rows", steps, repeats, "all, searching exactly", len(photos)):
        yield {**row, "rows": size}


def drawn_codes(seen: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """A gallery and queries that are no rows of it; steps are as the spread of the photos' codes."""
    generator = torch.Generator().manual_seed(0)
    spread_d = seen.std(0)
    homes = seen[torch.randint(len(seen), (-(-rows // OF_A_HOME),), generator=generator)]
    homes = homes + spread_d * torch.randn(homes.shape, generator=generator)
    home = torch.cat([torch.arange(rows) // OF_A_HOME, torch.randint(len(homes), (DRAWN,), generator=generator)])
    codes = homes[home] + 0.5 * spread_d * torch.randn(len(home), seen.shape[1], generator=generator)
    return codes[:rows], codes[rows:]


def built(codes: Tensor) -> tuple[dict[str, Engine], dict[str, Row]]:
    """Every engine, and what making it took: seconds, memory at the peak and memory held, and what it states."""
    ids, engines = torch.arange(len(codes)), {}
    calls: dict[str, Callable[[], Engine]] = {name: partial(build, name, codes, ids) for name in ENGINES}
    if len(codes) <= LARGEST_IN_QDRANT:
        calls["qdrant"] = partial(in_qdrant, codes, ids)
    facts: dict[str, Row] = {}
    for name, call in calls.items():
        made: list[tuple[Engine, float]] = []
        peak = peak_memory_of(lambda call=call, made=made: made.append(clocked(call)))
        (engines[name], seconds), own = made[0], made[0][0].facts
        facts[name] = {"build s": seconds}
        facts[name] |= {"peak MiB": peak and peak / 2**20, "held MiB": own.bytes / 2**20, "settings": own.settings}
        if own.recall is not None:
            facts[name] |= {"stated recall": own.recall.interval.value, "stated": own.recall.interval._asdict()}
    return engines, facts


def clocked(call: Callable[[], Engine]) -> tuple[Engine, float]:
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def in_qdrant(codes: Tensor, ids: Tensor) -> Engine:
    nothing = [""] * len(ids)
    return Qdrant(connect(MEMORY), "homes", Points(1, "drawn", codes, ids, nothing, nothing, nothing))


def recall_of_each(engines: Mapping[str, Engine], queries: Tensor) -> dict[str, Row]:
    """Of queries that no engine knows; found is what is as near as the last true neighbour."""
    least = engines["exact"].search(queries, K).similarities[:, -1:]
    found = {name: engine.search(queries, K).similarities >= least for name, engine in engines.items()}
    return {name: {"recall@10": hits.float().mean().item()} for name, hits in found.items()}


def searches(engines: Mapping[str, Engine], queries: Tensor, asked: int) -> dict[str, Callable[[], object]]:
    def search_all(engine: Engine) -> None:
        for part in queries.split(asked):
            engine.search(part, K)

    return {name: partial(search_all, engine) for name, engine in engines.items()}


def photo_steps(model: Model, photos: Sequence[Path]) -> dict[str, Callable[[], object]]:
    """Each step alone, photo by photo, with what the step before gives."""
    extractor, files = model.extractor, [photo.read_bytes() for photo in photos]
    images = [extractor.decoder.decode(file).image for file in files]
    pixels = [model.pixels([image]) for image in images]
    features = [extractor(one).cpu() for one in pixels]
    each = {
        "decoding": (lambda photo: extractor.decoder.decode(photo.read_bytes()), photos),
        "preprocessing": (lambda image: model.pixels([image]), images),
        "network": (lambda one: extractor(one).cpu(), pixels),
        "head": (model.codes, features),
    }
    return {name: partial(one_by_one, call, inputs) for name, (call, inputs) in each.items()}


def by_photo(engine: Engine, seen: Tensor) -> Callable[[], object]:
    return partial(one_by_one, lambda code: engine.search(code, K), seen.split(1))


def one_by_one(call: Callable[[Any], object], inputs: Sequence[Any]) -> None:
    for one in inputs:
        call(one)


def whole(model: Model, photos: Sequence[Path], engine: Engine) -> None:
    for photo in photos:
        engine.search(torch.from_numpy(model.encode([photo])), K)


def timed(
    task: str, calls_of: Mapping[str, Callable[[], object]], repeats: int, base: str, calls: int
) -> Iterator[Row]:
    """A row a way: milliseconds of one of its ``calls`` in the median round, and how many times ``base``'s."""
    seconds = interleaved(calls_of, repeats)
    for way in seconds:
        yield {"task": task, "way": way, **figures(seconds, way, "ms", calls, (base, base))}


def draw(rows: Sequence[Row], path: Path) -> None:
    figure = style.new_figure(10, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_photo(left, [row for row in rows if row["task"].startswith("one photo")])
    draw_search(right, [row for row in rows if row["task"].startswith("1 query")])
    style.save(figure, path)


def draw_photo(axes: Axes, rows: Sequence[Row]) -> None:
    """A bar for each gallery and engine; the first four steps are the same in all bars of a gallery."""
    sizes = sorted({row["rows"] for row in rows})
    ms = {(row["rows"], row["way"]): row["ms"] for row in rows}
    width = 0.8 / len(ENGINES)
    for place, size in enumerate(sizes):
        for number, engine in enumerate(ENGINES.values()):
            at, bottom = place + (number - (len(ENGINES) - 1) / 2) * width, 0.0
            for step, colour in zip((*STEPS, f"search: {engine}"), style.COLOURS, strict=False):
                axes.bar(at, ms[size, step], 0.9 * width, bottom, color=colour)
                bottom += ms[size, step]
            name = engine.removeprefix("FAISS ")
            at_top = {"xy": (at, bottom), "xytext": (0, 2), "textcoords": "offset points"}
            axes.annotate(name, **at_top, ha="center", va="bottom", rotation=90, fontsize=7, color=style.FAINT)
    for step, colour in zip((*STEPS, "search"), style.COLOURS, strict=False):
        axes.bar(0, 0, color=colour, label=step)
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axes.margins(y=0.12)
    axes.set_xlabel("rows of the gallery", fontsize=style.SMALL)
    axes.set_ylabel("milliseconds", fontsize=style.SMALL)
    axes.legend(fontsize=style.SMALL, frameon=False, ncols=len(STEPS) + 1, **BELOW)
    style.quiet(axes, "y")
    style.headline(axes, "One photo, from its file to ten neighbours")


def draw_search(axes: Axes, rows: Sequence[Row]) -> None:
    looks = zip({**ENGINES, "qdrant": "Qdrant, local"}.items(), style.COLOURS, style.MARKERS, strict=False)
    for (way, told), colour, marker in looks:
        own = [row for row in rows if row["way"] == way]
        axes.plot([row["rows"] for row in own], [row["ms"] for row in own], color=colour, marker=marker, label=told)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.set_xlabel("rows of the gallery", fontsize=style.SMALL)
    axes.legend(fontsize=style.SMALL, frameon=False, ncols=3, **BELOW)
    style.quiet(axes, "y")
    style.headline(axes, "The search alone, milliseconds")


if __name__ == "__main__":
    main()
