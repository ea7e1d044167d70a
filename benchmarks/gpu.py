"""Every benchmark of a GPU, its correctness tests first, and what docs/ says of them: `make bench-gpu`.

    python benchmarks/gpu.py [--parts tests,retrieval,training,extraction]

Each part is a process of its own with a limit; all limits together are 25 minutes. Where the tests fail nothing is
timed. Writes benchmarks/results/gpu_NAME.{json,md}; BENCHMARK_RESULTS names another folder for them. Without a GPU it
says so and measures nothing. Not yet run on a GPU.
"""

import argparse
import os
import sys

import torch
from measuring import ROOT, environment, report
from running import Part, failures, run_all

PARTS = (
    Part("tests", ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"), 120, 360),
    Part("retrieval", ("gpu_retrieval.py",), 240, 420),
    Part("training", ("gpu_training.py",), 300, 420),
    Part("extraction", ("gpu_extraction.py",), 120, 300),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(part.name for part in PARTS))
    names = parser.parse_args().parts.split(",")
    unknown = set(names) - {part.name for part in PARTS}
    if unknown:
        raise SystemExit(f"there is no part {', '.join(sorted(unknown))}")
    if not torch.cuda.is_available():
        sys.stdout.write("no GPU: torch sees no CUDA device here, so no test was run and nothing was measured\n")
        return
    seen = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES") or "0"}  # the tests hide it unless told
    chosen = [part for part in PARTS if part.name in names]
    rows = run_all([part for part in chosen if part.name == "tests"], seen)
    if failures(rows):
        raise SystemExit("the correctness tests failed on this GPU: nothing was timed")
    rows += run_all([part for part in chosen if part.name != "tests"], seen)
    report("gpu_bench", rows, environment())

    import pages

    pages.remake()
    sys.exit(1 if failures(rows) else 0)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
