"""An exported model beside its run: size, seconds to load, codes a second by torch and by onnxruntime, and differences.

    likeness export run=RUN out=model.safetensors format=safetensors,onnx
    python benchmarks/export.py RUN model.safetensors model.onnx PHOTOS

Everything on one core, in turns, and in seconds of the processor: what else the machine does counts little. A figure is
the median of five rounds, with the least and the greatest beside it.
"""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch

import likeness
from likeness.console import terminal
from likeness.images.listing import list_pictures

_ROUNDS, _BATCH, _MOST = 5, 16, 320


def main(run: str, exported: str, graph: str, photos: str) -> None:
    torch.set_num_threads(1)
    say = partial(terminal().print, soft_wrap=True, highlight=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    original, model = likeness.load(run), likeness.load(exported)
    files = list_pictures([Path(photos)]).files()
    pixels = torch.cat([model.pixels(files[start : start + 200]) for start in range(0, len(files), 200)])

    def by_torch(some: torch.Tensor = pixels) -> np.ndarray:
        return np.concatenate([model.codes(model.extractor(part)).numpy() for part in some.split(_BATCH)])

    def by_onnx(some: torch.Tensor = pixels) -> np.ndarray:
        return np.concatenate([session.run(None, {"pixels": part.numpy()})[0] for part in some.split(_BATCH)])

    codes, others = by_torch(), by_onnx()
    say(f"size: {Path(exported).stat().st_size:,} and {Path(graph).stat().st_size:,} bytes")
    say(f"same bits as the run's: {(model.encode(files) == original.encode(files)).all()} of {len(files)} pictures")
    say(f"same identity: {model.identity == original.identity}")
    say(f"onnxruntime: differs by {np.abs(codes - others).max():.1e} where codes reach {np.abs(codes).max():.2f}")
    say(f"             least cosine {torch.cosine_similarity(*map(torch.from_numpy, (codes, others))).min():.7f}")
    few = pixels[:_MOST]
    calls = {
        "load the exported file, s": lambda: likeness.load(exported),
        "open the graph, s": lambda: onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]),
        "codes/s of pixels, torch": lambda: by_torch(few),
        "codes/s of pixels, onnxruntime": lambda: by_onnx(few),
        "codes/s of files, torch": lambda: model.encode(files[:_MOST]),
    }
    for name, seconds in _measured(calls).items():
        values = [len(few) / each if name.startswith("codes") else each for each in seconds]
        digits = 0 if name.startswith("codes") else 3
        say(f"{name}: {median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})")


def _measured(calls: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            started = time.process_time()
            call()
            seconds[name].append(time.process_time() - started)
    return seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
