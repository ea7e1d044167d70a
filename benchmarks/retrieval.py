"""Exact retrieval beside what else there is: hits and neighbours within one split, and queries against a gallery.

    python benchmarks/retrieval.py [--rows 10000] [--threads 2] [--repeats 5]
    python benchmarks/retrieval.py --large [--rows 50000] [--memory 200000]

Drawn codes of 512 dimensions in ten overlapping classes. Every round calls each way once, so that what else the machine
does falls on all; ratios are medians over the rounds. The peers are faiss-cpu, pytorch-metric-learning, scikit-learn
and torchmetrics (`pip install -e '.[bench]'`), and open-metric-learning where it can be imported; slow ones meet the
smallest set alone, torchmetrics one of its own. The floor is the matrix product in float32. A filter of float32 is what
a processor without bfloat16 has. With --large only large splits are timed, without peers but FAISS, and the memory of
a still larger one is measured; that writes benchmarks/results/retrieval_large.{json,md}, else retrieval.{json,md}.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import measuring
import torch
from torch import Tensor

from likeness.console import terminal
from likeness.retrieval import filtering
from likeness.retrieval.hits import rivals_above
from likeness.retrieval.neighbours import Gallery, neighbours, rank_keys
from likeness.retrieval.rows import comparable, similarity

WIDTH, CLASSES = 512, 10
BASE = ("faiss IndexFlatIP", "faiss")
ROWS_FOR_TORCHMETRICS = 2000  # it keeps every pair of a query and a row
PEERS = ("faiss-cpu", "pytorch-metric-learning", "scikit-learn", "torchmetrics", "open-metric-learning")
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


@contextmanager
def float32_filter() -> Iterator[None]:
    """As on a processor that does not multiply bfloat16."""
    with patch.object(filtering, "precisions", lambda device: (torch.float32,)):
        yield


def in_float32(call: Callable[[], object]) -> object:
    with float32_filter():
        return call()


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
    import faiss  # noqa: F401  without which it has no neighbours
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    return AccuracyCalculator(include=("precision_at_1",), k=1).get_accuracy(codes, labels)


def scikit(codes: Tensor, k: int) -> object:
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=k + 1, metric="cosine", algorithm="brute").fit(codes.numpy())
    return found.kneighbors(codes.numpy(), return_distance=False)


def open_metric_learning(codes: Tensor, labels: Tensor, k: int) -> object:
    """What its docs do for cmc@k of codes that are there; a row is no candidate for itself."""
    from oml.functional.knn import batched_knn
    from oml.functional.metrics import calc_retrieval_metrics

    every = torch.arange(len(codes))
    _, found, right = batched_knn(codes, every, every, top_n=k, labels_gt=labels)
    return calc_retrieval_metrics(found, right, cmc_top_k=(k,), precision_top_k=(), map_top_k=())


def torchmetrics_hit_rate(codes: Tensor, labels: Tensor, k: int) -> Tensor:
    """Every query's similarities to all others, as that metric wants them."""
    from torchmetrics.retrieval import RetrievalHitRate

    others = ~torch.eye(len(codes), dtype=torch.bool)
    query = torch.arange(len(codes))[:, None].expand(-1, len(codes))
    metric = RetrievalHitRate(top_k=k)
    return metric((codes @ codes.T)[others], (labels[:, None] == labels)[others], indexes=query[others])


def ours(codes: Tensor, labels: Tensor, k: int) -> Ways:
    return {
        "likeness, neighbours": partial(within, codes, k),
        "likeness, hits": partial(hits, codes, labels, k),
        "likeness, neighbours, float32 filter": partial(in_float32, partial(within, codes, k)),
        "likeness, hits, float32 filter": partial(in_float32, partial(hits, codes, labels, k)),
    }


def one_split(rows: int, k: int, all_peers: bool) -> Ways:
    codes, labels = drawn(rows)
    ways: Ways = {BASE[0]: partial(faiss_within, codes, k), **ours(codes, labels, k)}
    if all_peers:
        ways["torch, chunks and topk"] = partial(torch_chunks, codes, k)
        ways["floor: float32 product"] = partial(product, codes)
        ways["floor: bfloat16 product"] = partial(product, codes.bfloat16())
        ways["pytorch-metric-learning, k = 1"] = partial(metric_learning, codes, labels)
        ways["open-metric-learning"] = partial(open_metric_learning, codes, labels, k)
        ways["scikit-learn, brute"] = partial(scikit, codes, k)
    return ways


def beside_torchmetrics(k: int) -> Ways:
    codes, labels = drawn(ROWS_FOR_TORCHMETRICS)
    return {
        BASE[0]: partial(faiss_within, codes, k),
        "likeness, hits": partial(hits, codes, labels, k),
        "torchmetrics RetrievalHitRate": partial(torchmetrics_hit_rate, codes, labels, k),
    }


def against_gallery(codes: Tensor, queries: int, k: int) -> Ways:
    asked = drawn(queries + 1)[0][:queries]

    @cache
    def index() -> Any:
        import faiss

        made = faiss.IndexFlatIP(WIDTH)
        made.add(codes.numpy())
        return made

    kept = Gallery(codes, torch.arange(len(codes)))
    with float32_filter():
        without = Gallery(codes, torch.arange(len(codes)))
    return {
        BASE[0]: lambda: index().search(asked.numpy(), k),
        "likeness, Gallery": partial(kept.neighbours, asked, k),
        "likeness, Gallery, float32 filter": partial(in_float32, partial(without.neighbours, asked, k)),
    }


def hard(rows: int, k: int) -> dict[str, Ways]:
    codes, _ = drawn(rows)
    found: dict[str, Ways] = {}
    for kind, make in HARD.items():
        bad = make(codes)
        found[kind] = {BASE[0]: partial(faiss_within, bad, k)}
        found[kind] |= {"likeness, neighbours": partial(within, bad, k), "every pair": partial(every_pair, bad, k)}
    return found


def measured(task: str, ways: Ways, repeats: int) -> Iterator[measuring.Row]:
    seconds = measuring.interleaved(ways, repeats, memory=True)
    for name in ways:
        yield {"task": task, "way": name, **measuring.figures(seconds, name, "ms", base=BASE)}


def memory_alone(rows: int, k: int) -> measuring.Row:
    """The memory beside the codes that a split takes which no float64 copy would fit."""
    codes, _ = drawn(rows)
    peak = measuring.peak_memory_of(partial(within, codes, k))
    row = {"task": f"{rows:,} rows, k = {k}", "way": "likeness, neighbours"}
    return row if peak is None else {**row, "MiB": peak / 2**20}


def as_usual(sizes: list[int], gallery: int, repeats: int) -> Iterator[measuring.Row]:
    k, smallest = 5, min(sizes)
    yield from measured(f"{ROWS_FOR_TORCHMETRICS:,} rows, k = {k}", beside_torchmetrics(k), repeats)
    for size in sizes:
        ways = one_split(size, k, all_peers=size == smallest)
        yield from measured(f"{size:,} rows, k = {k}", ways, repeats)
    codes, _ = drawn(gallery)
    for queries, told in ((1, "1 query"), (64, "64 queries"), (4096, "4,096 queries")):
        yield from measured(f"{told}, {gallery:,} rows", against_gallery(codes, queries, 10), repeats)
    for kind, ways in hard(smallest // 2, k).items():
        yield from measured(f"{smallest // 2:,} rows, {kind}", ways, repeats)


def large(sizes: list[int], memory: int, repeats: int) -> Iterator[measuring.Row]:
    for size in sizes:
        yield from measured(f"{size:,} rows, k = 10", one_split(size, 10, all_peers=False), repeats)
    yield memory_alone(memory, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="of the splits (default: 10000, with --large 50000)")
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--large", action="store_true", help="large splits alone")
    parser.add_argument("--memory", type=int, default=200_000, help="rows of a split of which only that is measured")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with suppress(ImportError):  # then it is missing in the tables, and so are the ratios to it
        import faiss

        faiss.omp_set_num_threads(options.threads)
    sizes = [int(size) for size in (options.rows or ("50000" if options.large else "10000")).split(",")]
    if options.large:
        rows = list(large(sizes, options.memory, options.repeats))
    else:
        rows = list(as_usual(sizes, options.gallery, options.repeats))
    name = "retrieval_large" if options.large else "retrieval"
    terminal().print(measuring.report(name, rows, measuring.environment(PEERS)), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
