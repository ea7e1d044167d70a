"""An exported model beside its run: size, seconds to load, codes a second by torch and by onnxruntime, and differences.

    python benchmarks/export.py [--run RUN] [--photos PHOTOS] [--repeats 5] [--threads 1]

RUN is a finished run of train.py, exported here; without one the default model is trained on drawn rooms, and without
PHOTOS its pictures are drawn rooms. All ways take turns. Writes benchmarks/results/export.{json,md}.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import drawn
import numpy as np
import torch
from measuring import environment, figures, interleaved, report

import likeness
from likeness.images.listing import list_pictures

BATCH, MOST = 16, 320
COMMAND = "from likeness.app import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as place:
        run = given.run or drawn.trained(Path(place) / "run")
        files = list_pictures([given.photos or drawn.rooms(Path(place) / "rooms")]).files()
        rows = list(measured(run, exported(run, Path(place) / "model.safetensors"), files, given))
    facts = environment(("numpy", "onnx", "onnxruntime"))
    sys.stdout.write(report("export", rows, {**facts, "pictures": len(files), "of these timed": len(files[:MOST])}))


def exported(run: Path, out: Path) -> Path:
    """The model as a file, and its graph beside it where ONNX is installed."""
    formats = "safetensors,onnx" if find_spec("onnx") and find_spec("onnxruntime") else "safetensors"
    words = [sys.executable, "-c", COMMAND, "export", f"run={run}", f"out={out}", f"format={formats}"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return out


def measured(run: Path, out: Path, files: Sequence[Path], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    original, model, graph = likeness.load(run), likeness.load(out), out.with_suffix(".onnx")
    pixels = torch.cat([model.pixels(files[start : start + 200]) for start in range(0, len(files), 200)])
    few = pixels[:MOST]

    def opened() -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = given.threads
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    session = cache(opened)
    codes = by_torch(model, pixels)
    yield {"what": "bytes of the file", "is": out.stat().st_size}
    same = (model.encode(files) == original.encode(files)).all(1)
    yield {"what": "pictures with the same bits by the file and by the run", "is": f"{same.sum():,} of {len(files):,}"}
    yield {"what": "the same identity", "is": "yes" if model.identity == original.identity else "no"}
    if graph.exists():
        yield {"what": "bytes of the graph", "is": graph.stat().st_size}
        yield from differences(codes, by_onnx(session, pixels))
    calls: dict[str, Callable[[], object]] = {
        "load the exported file": lambda: likeness.load(out),
        "open the graph": opened,
        "codes of pixels, torch": lambda: by_torch(model, few),
        "codes of pixels, onnxruntime": lambda: by_onnx(session, few),
        "codes of files, torch": lambda: model.encode(files[:MOST]),
    }
    seconds = interleaved(calls, given.repeats, memory=True)
    for name in calls:
        row = {"what": name, **figures(seconds, name)}
        if name.startswith("codes") and "s" in row:
            row |= {"a second": len(few) / row["s"], "a second of the processor": len(few) / row["processor s"]}
        yield row


def differences(codes: np.ndarray, others: np.ndarray) -> Iterator[dict[str, Any]]:
    """Of what onnxruntime gives from what torch gives."""
    least = torch.cosine_similarity(*map(torch.from_numpy, (codes, others))).min()
    told = f"{np.abs(codes - others).max():.1e}, where codes reach {np.abs(codes).max():.2f}"
    yield {"what": "onnxruntime differs from torch by at most", "is": told}
    yield {"what": "least cosine of the two", "is": f"{least:.7f}"}


def by_torch(model: Any, pixels: torch.Tensor) -> np.ndarray:
    return np.concatenate([model.codes(model.extractor(part)).numpy() for part in pixels.split(BATCH)])


def by_onnx(session: Callable[[], Any], pixels: torch.Tensor) -> np.ndarray:
    return np.concatenate([session().run(None, {"pixels": part.numpy()})[0] for part in pixels.split(BATCH)])


if __name__ == "__main__":
    main()
