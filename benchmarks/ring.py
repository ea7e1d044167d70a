"""Exact retrieval by several processes beside one process: seconds, and each process's peak memory.

    python benchmarks/ring.py [--rows 10000,50000] [--processes 2] [--repeats 5]

Drawn codes of 512 dimensions in ten overlapping classes, in even shares; one thread a process, over gloo. In every
round one process alone finds hits and neighbours of all rows while the others wait, then all do together. Seconds are
the slowest process's, by the clock and of the processor; memory is what the process that needs most needs beside its
own codes, of which a share is as small a part as it is of the rows.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter, process_time
from typing import Any

import measuring
import torch
import torch.distributed as dist
from retrieval import drawn

from likeness.console import terminal
from likeness.retrieval.facts import Facts
from likeness.retrieval.ring import ALONE, Ring, known, neighbours, ring_of, rivals_above

K = 10


def hits(ring: Ring, codes: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> None:
    facts = Facts(ids, labels, -torch.ones_like(ids), torch.ones_like(ids), torch.ones_like(ids))
    rivals_above(known(ring, codes, facts, exclude_group=False), K)


def nearest(ring: Ring, codes: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> None:
    neighbours(ring, codes, ids, K)


def process(rank: int, world: int, sizes: list[int], repeats: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    ring, rows = ring_of(), []
    for size in sizes:
        codes, labels = drawn(size)
        mine = torch.arange(size).tensor_split(world)[rank]
        shares = {1: (codes, labels, torch.arange(size)), world: (codes[mine], labels[mine], mine)}
        for task, find in {"hits": hits, "neighbours": nearest}.items():
            alone = partial(find, ALONE, *shares[1]) if rank == 0 else int  # the others wait
            ways = {1: alone, world: partial(find, ring, *shares[world])}
            rows += measured(ring, f"{size:,} rows, {task}", ways, repeats)
    if rank == 0:
        environment = measuring.environment() | {"processes": world}
        terminal().print(measuring.report("ring", rows, environment), markup=False, soft_wrap=True)


def measured(ring: Ring, task: str, ways: dict[int, Callable[[], Any]], repeats: int) -> list[dict[str, Any]]:
    seconds: dict[str, list[float]] = {str(world): [] for world in ways}
    processor: dict[str, list[float]] = {str(world): [] for world in ways}
    peaks = {world: max(ring.told(measuring.peak_memory_of(find) or 0)) for world, find in ways.items()}
    for _ in range(repeats):
        for world, find in ways.items():
            dist.barrier()
            started, worked = perf_counter(), process_time()
            find()
            clock, own = zip(*ring.told((perf_counter() - started, process_time() - worked)), strict=True)
            seconds[str(world)].append(max(clock))
            processor[str(world)].append(max(own))
    return [
        {
            "task": task,
            "processes": int(world),
            "s": median(each),
            "× one": measuring.ratio(seconds, world, "1"),
            "processor s": median(processor[world]),
            "spread": measuring.spread(each),
            "MiB": peaks[int(world)] / 2**20,
            "seconds": each,
        }
        for world, each in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,50000")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    sizes = [int(size) for size in given.rows.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        context = torch.multiprocessing.get_context("fork")  # after the imports
        ranks = [
            context.Process(target=process, args=(rank, given.processes, sizes, given.repeats, folder))
            for rank in range(given.processes)
        ]
        for each in ranks:
            each.start()
        for each in ranks:
            each.join()
    sys.exit(max(abs(each.exitcode or 0) for each in ranks))


if __name__ == "__main__":
    main()
