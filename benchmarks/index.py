"""An index of drawn codes on disk: what adding, removing, opening and asking cost, and the space it takes.

python benchmarks/index.py --rows 1000000

Each is done once in a fresh folder, except asking (median of eleven). Codes are drawn, without pictures.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from likeness.retrieval.engines import Exact
from likeness.retrieval.generation import Entries
from likeness.retrieval.index import Index

MODEL = {"extractor": "0" * 64, "head": "1" * 64}
WIDTH, BATCH, A_HOME = 128, 50_000, 4
KINDS = ("bathroom", "bedroom", "kitchen", "living_room")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as place:
        index = Index.create(Path(place) / "index", MODEL, WIDTH)
        tell("add all", lambda: index.add(batches(0, rows), MODEL), f"{rows:,} rows in batches of {BATCH:,}")
        tell("add 1", lambda: index.add([entries(rows, 1)], MODEL))
        tell("add 1000", lambda: index.add([entries(rows + 1, 1000)], MODEL))
        tell("remove 1000", lambda: index.remove(ids=list(range(0, 10 * 1000, 10))))
        tell("remove a home", lambda: index.remove(homes=["home7"]))
        found = index.newest()
        tell("open", lambda: index.newest().codes, "codes read and verified")
        tell("verify", lambda: list(index.verify()), "every byte")
        engine = Exact(found.codes, torch.from_numpy(found.ids))
        for count in (1, 64):
            query = found.codes[:count] + 0.01
            seconds = [timed(lambda query=query: engine.search(query, 10)) for _ in range(11)]
            say(f"ask {count}", median(seconds), f"{min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f} ms")
        size = sum(path.stat().st_size for path in index.folder.iterdir())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        sys.stdout.write(
            f"{len(found):,} rows, {len(found.parts)} segments, {size / 1e9:.2f} GB, {peak:.1f} GiB peak\n"
        )


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


def tell(task: str, work: Callable[[], object], note: str = "") -> None:
    say(task, timed(work), note)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def say(task: str, seconds: float, note: str = "") -> None:
    sys.stdout.write(f"{task:<14} {seconds:9.4f} s  {note}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
