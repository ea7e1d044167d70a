"""Exact retrieval beside what else there is: hits and neighbours within one split, and queries against a gallery.

    python benchmarks/retrieval.py [--rows 10000,50000] [--threads 2] [--repeats 5]

Drawn codes of 512 dimensions in ten overlapping classes. Every round calls each way once, so that what else the machine
does falls on all; ratios are medians over the rounds. The peers are faiss-cpu, pytorch-metric-learning and scikit-learn
(`pip install -e '.[bench]'`); the slow ones meet the smallest set alone. The floor is the matrix product in float32.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import measuring
import torch
from torch import Tensor

from likeness.console import terminal
from likeness.retrieval.hits import rivals_above
from likeness.retrieval.neighbours import Gallery, neighbours, rank_keys
from likeness.retrieval.rows import comparable, similarity

WIDTH, CLASSES = 512, 10
PEERS = ("faiss-cpu", "pytorch-metric-learning", "scikit-learn")
HARD = {
    "alike within 1e-4": lambda codes: 1 + 0.01 * codes,
    "all the same": torch.ones_like,
    "each ten times": lambda codes: codes[torch.arange(len(codes)) % (len(codes) // 10)],
    "clusters within rounding": lambda codes: (
        torch.nn.functional.normalize(codes[torch.arange(len(codes)) % 50]) + 1e-8 * codes
    ),
}

Ways = dict[str, Callable[[], object]]


def drawn(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % CLASSES
    centres = 0.25 * torch.randn(CLASSES, WIDTH, generator=generator)
    return torch.nn.functional.normalize(torch.randn(rows, WIDTH, generator=generator) + centres[labels]), labels


def hits(codes: Tensor, labels: Tensor, k: int) -> Tensor:
    rows = comparable(codes, torch.arange(len(codes)))
    return rivals_above(rows, labels, rows, labels, k)


def within(codes: Tensor, k: int) -> Tensor:
    ids = torch.arange(len(codes))
    return neighbours(codes, codes, k, query_ids=ids, gallery_ids=ids).indices


def faiss_within(codes: Tensor, k: int) -> object:
    import faiss

    index = faiss.IndexFlatIP(WIDTH)
    index.add(codes.numpy())
    return index.search(codes.numpy(), k + 1)


def torch_chunks(codes: Tensor, k: int) -> list[Tensor]:
    return [(part @ codes.T).topk(k + 1).indices for part in codes.split(1024)]


def every_pair(codes: Tensor, k: int) -> list[Tensor]:
    """All pairs in float64 and one key a pair, with nothing left out before."""
    unit = comparable(codes, torch.arange(len(codes))).unit()
    return [rank_keys(similarity(part, unit)).topk(k).indices for part in unit.split(256)]


def product(codes: Tensor) -> None:
    for part in codes.split(1024):
        part @ codes.T


def metric_learning(codes: Tensor, labels: Tensor) -> object:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    return AccuracyCalculator(include=("precision_at_1",), k=1).get_accuracy(codes, labels)


def scikit(codes: Tensor, k: int) -> object:
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=k + 1, metric="cosine", algorithm="brute").fit(codes.numpy())
    return found.kneighbors(codes.numpy(), return_distance=False)


def one_split(rows: int, k: int, all_peers: bool) -> tuple[Ways, Tensor, Tensor]:
    codes, labels = drawn(rows)
    ways: Ways = {"faiss IndexFlatIP": partial(faiss_within, codes, k)}
    ways["likeness, neighbours"] = partial(within, codes, k)
    ways["likeness, hits"] = partial(hits, codes, labels, k)
    ways["torch, chunks and topk"] = partial(torch_chunks, codes, k)
    ways["floor: float32 product"] = partial(product, codes)
    if all_peers:
        ways["floor: bfloat16 product"] = partial(product, codes.bfloat16())
        ways["pytorch-metric-learning, k = 1"] = partial(metric_learning, codes, labels)
        ways["scikit-learn, brute"] = partial(scikit, codes, k)
    return ways, codes, labels


def against_gallery(rows: int, queries: int, k: int) -> Ways:
    import faiss

    codes, _ = drawn(rows)
    asked = drawn(queries + 1)[0][:queries]
    index = faiss.IndexFlatIP(WIDTH)
    index.add(codes.numpy())
    kept = Gallery(codes, torch.arange(rows))
    return {
        "faiss IndexFlatIP": partial(index.search, asked.numpy(), k),
        "likeness, Gallery": partial(kept.neighbours, asked, k),
    }


def hard(rows: int, k: int) -> dict[str, Ways]:
    codes, _ = drawn(rows)
    found: dict[str, Ways] = {}
    for kind, make in HARD.items():
        bad = make(codes)
        found[kind] = {"faiss IndexFlatIP": partial(faiss_within, bad, k)}
        found[kind] |= {"likeness, neighbours": partial(within, bad, k), "every pair": partial(every_pair, bad, k)}
    return found


def measured(task: str, ways: Ways, repeats: int, memory: bool = False) -> list[dict[str, object]]:
    present: Ways = {}
    for name, call in ways.items():
        try:
            call()
            present[name] = call
        except ImportError as error:
            terminal().print(f"{task}: {name} is missing ({error})")
    seconds = measuring.interleaved(present, repeats)
    rows = []
    for name, each in seconds.items():
        row: dict[str, object] = {"task": task, "way": name, "ms": 1e3 * median(each)}
        row["× faiss"] = measuring.ratio(seconds, name, "faiss IndexFlatIP")
        row["spread"] = measuring.spread(each)
        if memory and (peak := measuring.peak_memory_of(present[name])) is not None:
            row["MiB"] = peak / 2**20
        rows.append({**row, "seconds": each})
    return rows


def large(rows: int, k: int) -> dict[str, object]:
    """The memory beside the codes that a split takes which no float64 copy would fit."""
    codes, _ = drawn(rows)
    peak = measuring.peak_memory_of(partial(within, codes, k))
    return {
        "task": f"{rows:,} rows, k = {k}",
        "way": "likeness, neighbours",
        "MiB": None if peak is None else peak / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,50000", help="of the splits")
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--largest", type=int, help="rows of a split of which only the memory is measured")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        import faiss

        faiss.omp_set_num_threads(options.threads)
    except ImportError:
        raise SystemExit("faiss-cpu is what all is compared with: pip install -e '.[bench]'") from None
    sizes = [int(size) for size in options.rows.split(",")]
    rows: list[dict[str, object]] = []
    for size in sizes:
        for k in (5, 10) if size == min(sizes) else (10,):
            ways, *_ = one_split(size, k, all_peers=size == min(sizes))
            rows += measured(f"{size:,} rows, k = {k}", ways, options.repeats, memory=size == min(sizes))
    for queries in (1, 64, 4096):
        ways = against_gallery(options.gallery, queries, 10)
        rows += measured(f"{queries:,} queries, {options.gallery:,} rows", ways, options.repeats)
    for kind, ways in hard(min(sizes), 5).items():
        rows += measured(f"{min(sizes):,} rows, {kind}", ways, min(options.repeats, 3))
    if options.largest:
        rows.append(large(options.largest, 10))
    terminal().print(measuring.report("retrieval", rows, measuring.environment(PEERS)), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
