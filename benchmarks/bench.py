"""Every benchmark of a CPU, and what docs/ says of them: `make bench`.

    python benchmarks/bench.py [--parts start,retrieval,...] [--quick]

On two quiet cores it takes less than a quarter of an hour; what each part took stands in benchmarks/results/bench.json.
A part that fails, or takes three times as long as it should, loses itself alone, and is named at the end.
With --quick every part measures next to nothing, to see that it works: into a folder of its own, and no page is made.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import ROOT, environment, report
from running import Part, failures, run_all

PARTS = {  # the arguments, those of --quick, and about how many seconds on two quiet cores; {run} is what drawn makes
    "start": ("", "--repeats 1 --epochs 1 --pictures 100", 115),
    "retrieval": ("", "--rows 1000 --gallery 2000 --repeats 1 --threads 1", 140),
    "training": ("", "--repeats 1 --heads 1 --threads 1", 180),
    "seeds": ("", "--repeats 1 --epochs 1 --seeds 2 --threads 1", 50),
    "extraction": ("", "--network shufflenet_v2_x0_5 --pictures 32 --repeats 1 --threads 1", 140),
    "growth": ("", "--sizes 1000 --repeats 1", 90),
    "drawn": ("{run}", "{run}", 20),
    "finding": ("--run {run}", "--run {run} --sizes 1000 --repeats 1 --threads 1", 55),
    "index": ("", "--rows 12000 --repeats 1", 20),
    "votes": ("{run}", "{run}", 10),
    "export": ("--run {run}", "--run {run} --repeats 1", 15),
    "ring": ("--rows 20000", "--rows 1000 --repeats 1", 45),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    unknown = set(given.parts.split(",")) - set(PARTS)
    if unknown:
        raise SystemExit(f"there is no part {', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as place:
        elsewhere = {"BENCHMARK_RESULTS": f"{place}/results"} if given.quick else {}
        names = chosen(given.parts.split(","))
        rows = run_all([part(name, given.quick, Path(place) / "drawn") for name in names], elsewhere)
    if not given.quick:
        if given.parts == ",".join(PARTS):
            report("bench", rows, environment())
        import pages

        pages.remake()
    sys.exit(1 if failures(rows) else 0)


def chosen(asked: Sequence[str]) -> list[str]:
    """In order, with the run on drawn rooms where one of them uses it."""
    needed = "drawn" in asked or any("{run}" in PARTS[name][0] for name in asked)
    return [name for name in PARTS if name in asked or (name == "drawn" and needed)]


def part(name: str, quick: bool, run: Path) -> Part:
    usual, least, seconds = PARTS[name]
    words = (least if quick else usual).format(run=run).split()
    return Part(name, (f"{name}.py", *words), seconds, limit=3 * seconds + 120)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
