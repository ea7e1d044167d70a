"""From JPEG files to features on a GPU: pictures a second, beside the forward pass alone and what all cores can decode.

    python benchmarks/gpu_extraction.py [PHOTOS] [--network resnet50] [--pictures 4096] [--repeats 5] [--device cuda]

The lesser of the forward pass alone and of decoding alone bounds the whole: the rows of whole files say which that is,
and how much of it is reached. Without PHOTOS files of 640 × 480 are drawn; weights are random. All ways take turns.
Writes benchmarks/results/gpu_extraction.{json,md}. Not yet run on a GPU.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extraction import (
    LAYERS,
    extractor_of,
    looking_alone,
    on_threads,
    photos_in,
    prepared,
    rate,
    table_of,
    whole_batches,
)
from measuring import environment, figures, interleaved, report
from PIL import Image

from likeness.console import terminal
from likeness.features.extraction import Extractor, extract

BATCH = 128
DECODING = "decode and resize alone, all cores"


def on_device(network: str, precision: str, device: str) -> Extractor:
    extractor = extractor_of(network, precision)
    extractor.backbone.to(device)
    return replace(extractor, device=device)


def whole(extractor: Extractor, files: Sequence[Path], workers: int) -> None:
    with tempfile.TemporaryDirectory() as store:
        extract(extractor, table_of(files), Path(store), batch_size=BATCH, workers=workers)


def calls_of(network: str, files: Sequence[Path], device: str, workers: int) -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {}
    for precision in ("fp32", "bf16"):
        extractor = on_device(network, precision, device)
        some = [extractor.decoder.decode(file.read_bytes()).image for file in files[:BATCH]]
        pixels = torch.from_numpy(np.stack([extractor.preprocessing.pixels(image) for image in some]))
        calls[f"forward alone, {precision}"] = partial(looking_alone, extractor, pixels, len(files) // len(pixels))
        calls[f"from files, {precision}"] = partial(whole, extractor, files, workers)
    calls[DECODING] = partial(on_threads, partial(prepared, extractor), files, workers)
    return calls


def rows_of(calls: dict[str, Callable[[], object]], files: Sequence[Path], repeats: int) -> Iterator[dict[str, Any]]:
    seconds = interleaved(calls, repeats)
    rates = {name: rate(figures(seconds, name), len(files)) for name in calls}
    for name, row in rates.items():
        if name.startswith("from files"):
            bounds = (name.replace("from files", "forward alone"), DECODING)
            yield {"what": name, **row, **bound(row, {each: rates[each] for each in bounds}), **peak_of(calls[name])}
        else:
            yield {"what": name, **row}


def bound(row: dict[str, Any], bounds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Which of the bounds is the lesser, and the share of it that is reached."""
    lesser = min(bounds, key=lambda name: bounds[name]["pictures a second"])
    return {"bounded by": lesser, "reached": row["pictures a second"] / bounds[lesser]["pictures a second"]}


def peak_of(call: Callable[[], object]) -> dict[str, float]:
    """Memory of the GPU, the network's weights within."""
    if not torch.cuda.is_available():
        return {}
    torch.cuda.reset_peak_memory_stats()
    call()
    return {"GPU MiB": torch.cuda.max_memory_allocated() / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--network", choices=LAYERS, default="resnet50")
    parser.add_argument("--pictures", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU: nothing was measured (--device cpu tries the script)")
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        files = whole_batches(photos_in(given.photos, given.pictures, Path(place)), BATCH)
        picture = "{} × {}".format(*Image.open(files[0]).size)
        rows = list(rows_of(calls_of(given.network, files, given.device, workers), files, given.repeats))
    facts = {"network": given.network, "pictures": len(files), "picture": picture, "batch": BATCH, "workers": workers}
    told = report("gpu_extraction", rows, {**environment(["torchvision", "pillow"]), **facts})
    terminal().print(told, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
