"""An index of drawn codes on disk: what adding, removing, opening and asking cost, and the space it takes.

    python benchmarks/index.py [--rows 100000] [--repeats 5]
    python benchmarks/index.py --rows 1000000 --repeats 1

Each round in a fresh folder, and in each everything once but asking, which is the median of eleven. Codes are drawn,
without pictures. Writes benchmarks/results/index.{json,md}, or with more than 100,000 rows index_large.{json,md}.
"""

import argparse
import resource
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Rounds, environment, figures, note, report

from likeness.retrieval.engines import Exact
from likeness.retrieval.generation import Entries
from likeness.retrieval.index import Index

MODEL = {"extractor": "0" * 64, "head": "1" * 64}
WIDTH, BATCH, A_HOME = 128, 50_000, 4
LARGEST_OF_ALL_DAYS = 100_000
KINDS = ("bathroom", "bedroom", "kitchen", "living_room")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=LARGEST_OF_ALL_DAYS)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    taken: dict[str, Rounds] = defaultdict(Rounds)
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as place:
            facts = measured(Path(place) / "index", given.rows, taken)
    rows: list[dict[str, Any]] = [{"what": name, "rows": given.rows, **figures(taken, name)} for name in taken]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    name = "index" if given.rows <= LARGEST_OF_ALL_DAYS else "index_large"
    sys.stdout.write(report(name, rows, {**environment(("numpy",)), **facts, "peak GiB": round(peak, 2)}))


def measured(folder: Path, rows: int, taken: dict[str, Rounds]) -> dict[str, Any]:
    """One round; returns what the index then is."""

    def timed(name: str, work: Callable[[], object]) -> None:
        note(taken[name], work)

    index = Index.create(folder, MODEL, WIDTH)
    timed(f"add all, in batches of {BATCH:,}", lambda: index.add(batches(0, rows), MODEL))
    timed("add 1", lambda: index.add([entries(rows, 1)], MODEL))
    timed("add 1,000", lambda: index.add([entries(rows + 1, 1000)], MODEL))
    timed("remove 1,000 by id", lambda: index.remove(ids=list(range(0, 10 * 1000, 10))))
    timed("remove a home by name", lambda: index.remove(homes=["home7"]))
    found = index.newest()
    timed("open, all codes read and verified", lambda: index.newest().codes)
    timed("verify every byte", lambda: list(index.verify()))
    engine = Exact(found.codes, torch.from_numpy(found.ids))
    for count, told in ((1, "ask with 1 code"), (64, "ask with 64 codes")):
        query = found.codes[:count] + 0.01
        for _ in range(11):
            timed(told, partial(engine.search, query, 10))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"rows": len(found), "segments": len(found.parts), "GB on disk": round(size / 1e9, 2)}


def batches(first: int, rows: int) -> Iterator[Entries]:
    for start in range(first, first + rows, BATCH):
        yield entries(start, min(BATCH, first + rows - start))


def entries(first: int, rows: int) -> Entries:
    rng = np.random.default_rng(first)
    numbers = range(first, first + rows)
    return Entries(
        rng.standard_normal((rows, WIDTH), np.float32),
        rng.integers(0, 256, (rows, 32), np.uint8),
        [f"/photos/{number:09d}.jpg" for number in numbers],
        [KINDS[number % A_HOME] for number in numbers],
        [f"home{number // A_HOME}" for number in numbers],
        [b""] * rows,
    )


if __name__ == "__main__":
    main()
