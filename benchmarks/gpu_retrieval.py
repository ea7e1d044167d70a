"""Exact retrieval within one split on a GPU, with torch's products and with the fused kernel.

    python benchmarks/gpu_retrieval.py [--rows 100000,1000000] [--repeats 5]

Drawn codes of 512 dimensions in ten overlapping classes, made on the GPU. First the answers of 1000 queries are
compared with float64's; where one differs there are no figures. Then the ways take turns. The floor is the product in
bfloat16 alone, written to memory a tile at a time. Of hits, the kernel finds the best row of the own label, and torch
counts the rivals. MiB are torch's, at the peak, beside the codes. Not yet run on a GPU.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import NamedTuple

import measuring
import torch
from torch import Tensor

from likeness.console import terminal
from likeness.retrieval.filtering import kernel_for
from likeness.retrieval.hits import rivals_above
from likeness.retrieval.neighbours import neighbours
from likeness.retrieval.rows import comparable

WIDTH, CLASSES, K = 512, 10, 10
SAMPLE, AT_ONCE = 1000, 100
TILE = 4096

Ways = dict[str, Callable[[], Tensor]]


class Drawn(NamedTuple):
    codes: Tensor
    labels: Tensor
    ids: Tensor


def drawn(rows: int, device: torch.device, width: int = WIDTH) -> Drawn:
    generator = torch.Generator(device).manual_seed(0)
    labels = torch.arange(rows, device=device) % CLASSES
    centres = 0.25 * torch.randn(CLASSES, width, generator=generator, device=device)
    codes = torch.randn(rows, width, generator=generator, device=device) + centres[labels]
    return Drawn(codes, labels, torch.arange(rows, device=device))


def within(data: Drawn, fused: str) -> Tensor:
    os.environ["LIKENESS_FUSED"] = fused
    return neighbours(data.codes, data.codes, K, query_ids=data.ids, gallery_ids=data.ids).indices


def rivals(data: Drawn, fused: str) -> Tensor:
    os.environ["LIKENESS_FUSED"] = fused
    rows = comparable(data.codes, data.ids)
    return rivals_above(rows, data.labels, rows, data.labels, K)


def floor(low: Tensor, table: Tensor) -> Tensor:
    for part in low.split(TILE):
        torch.mm(part, low.T, out=table[: len(part)])
    return table


def by_the_book(data: Drawn, asked: Tensor) -> tuple[Tensor, Tensor]:
    """The ``K`` nearest of some rows and how many rivals come first, up to ``K``: every pair in float64, and sorted."""
    unit = data.codes.double()
    unit /= unit.norm(dim=1, keepdim=True)
    nearest, above = [], []
    for part in asked.split(AT_ONCE):
        cosine = ((unit[part] @ unit.T * 2**32).round() / 2**32).float()
        cosine[torch.arange(len(part)), part] = -torch.inf
        order = cosine.sort(dim=1, descending=True, stable=True).indices  # so ties are by id
        nearest.append(order[:, :K])
        right = data.labels[order] == data.labels[part, None]
        right[:, -1] = False  # the row itself
        above.append(right.int().argmax(1).clamp(max=K))
    return torch.cat(nearest), torch.cat(above)


def refuse_wrong(ways: Ways, data: Drawn) -> None:
    """Leave, without figures, where an answer is not that of float64."""
    asked = torch.linspace(0, len(data.ids) - 1, min(SAMPLE, len(data.ids)), device=data.ids.device).long()
    nearest, above = by_the_book(data, asked)
    for name, call in ways.items():
        found, expected = call()[asked], nearest if name.startswith("neighbours") else above
        wrong = int((found != expected).reshape(len(asked), -1).any(1).sum())
        if wrong:
            raise SystemExit(f"{len(data.ids):,} rows, {name}: {wrong} of {len(asked)} answers differ from float64's")


def answering(data: Drawn) -> Ways:
    os.environ["LIKENESS_FUSED"] = "1"
    choices = {"torch": "0"}
    if kernel_for(data.codes[:0].bfloat16()) is not None:  # it warns of its reason
        choices["kernel"] = "1"
    ways = {f"neighbours, {name}": partial(within, data, fused) for name, fused in choices.items()}
    return ways | {f"hits, {name}": partial(rivals, data, fused) for name, fused in choices.items()}


def synchronised(call: Callable[[], Tensor]) -> None:
    call()
    torch.cuda.synchronize()


def peak_mib(call: Callable[[], Tensor]) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    synchronised(call)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measured(rows: int, repeats: int) -> list[dict[str, object]]:
    data = drawn(rows, torch.device("cuda"))
    ways = answering(data)
    refuse_wrong(ways, data)
    torch.cuda.empty_cache()  # what the check needed is not a tile's to divide
    peaks = {name: peak_mib(call) for name, call in ways.items()}
    low = data.codes.bfloat16()
    alone = {"floor: bfloat16 product": partial(floor, low, low.new_empty(min(TILE, rows), rows))}
    calls = {name: partial(synchronised, call) for name, call in (ways | alone).items()}
    seconds = measuring.interleaved(calls, repeats)
    return [
        {
            "task": f"{rows:,} rows, k = {K}",
            "way": name,
            "ms": 1e3 * median(each),
            "× floor": measuring.ratio(seconds, name, "floor: bfloat16 product"),
            "TFLOP/s": 2e-12 * rows**2 * WIDTH / median(each),  # as if every pair was multiplied once
            "spread": measuring.spread(each),
            "MiB": peaks.get(name),
            "seconds": list(each),
        }
        for name, each in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000,1000000", help="of the splits")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device, and this measures one: benchmarks/retrieval.py measures a CPU")
    rows = [row for size in options.rows.split(",") for row in measured(int(size), options.repeats)]
    environment = measuring.environment(("triton",))
    terminal().print(measuring.report("gpu_retrieval", rows, environment), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
