"""A model as one ONNX graph, from 8-bit pixels to codes, checked against torch by onnxruntime before it is kept."""

import hashlib
import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from likeness.errors import LikenessError
from likeness.files import canonical_json, write_atomic
from likeness.model import Model

_TALKATIVE = ("onnxscript", "onnx_ir")
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "pixels", "code"
_LEAST_COSINE = 0.99999
_LARGEST_DIFFERENCE = 1e-3  # of the largest number of the codes
_CHECKED = (1, 5)  # pictures; another number than the graph was made with
_TRACED = 2  # a batch of one would be taken for a constant


def need() -> None:
    """Raises CONFIG-EXTRA where a package is not installed that writes or checks a graph."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise LikenessError(
            "CONFIG-EXTRA",
            f"format=onnx was asked for, and {', '.join(missing)} is not installed.",
            where="format",
            fix='pip install "likeness[onnx]"',
        )


class _Whole(nn.Module):
    """All that a model does with a square of pixels."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.normalize, self.backbone = model.extractor.preprocessing.normalize, model.extractor.backbone
        self.head = model.head

    def forward(self, pixels: UInt8[Tensor, "n s s 3"]) -> Float32[Tensor, "n d"]:
        features = self.backbone(self.normalize(pixels))
        return features.flatten(1) if self.head is None else self.head.encode(features).float()


def write(model: Model, card: Mapping[str, Any], path: Path) -> tuple[float, float]:
    """Write the graph: uint8 ``pixels [n, size, size, 3]``, red, green and blue, in, float32 ``code [n, d]`` out.

    Its metadata say how a picture becomes that square, and hold the card. Its SHA-256 lies beside it, in a file that
    ``sha256sum -c`` reads: whoever opens the graph elsewhere has no likeness to check it with.

    Returns:
        The largest difference from torch's codes of the same pixels, as a part of their largest number, and the
        smallest cosine with them.

    Raises:
        LikenessError: BACKBONE when there is no such graph of this model, or it gives other codes; DISK, STORE-PERM.
    """
    data = _graph(model, {**_metadata(model), "card": canonical_json(card)})
    difference, cosine = _compared(model, data)
    write_atomic(path, data)
    digest = hashlib.sha256(data).hexdigest()
    write_atomic(path.with_name(f"{path.name}.sha256"), f"{digest}  {path.name}\n".encode("utf-8", "surrogateescape"))
    return difference, cosine


def _graph(model: Model, metadata: Mapping[str, str]) -> bytes:
    """The graph as bytes. torch notes of each node from which line of which source file it is; that is left out."""
    size = model.extractor.preprocessing.size
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Whole(model).eval(),
                (torch.zeros(_TRACED, size, size, 3, dtype=torch.uint8),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        graph = program.model.graph
        parts: list[Any] = [graph, *graph.initializers.values(), *graph.inputs, *graph]
        for part in [*parts, *(output for node in graph for output in node.outputs)]:
            part.metadata_props.clear()
        program.model.metadata_props.clear()
        program.model.metadata_props.update(metadata)
        program.model.producer_name = "likeness"
        return program.model_proto.SerializeToString()
    except (RuntimeError, ValueError) as error:
        raise _impossible(model, str(error)) from error


def _metadata(model: Model) -> dict[str, str]:
    preprocessing = model.extractor.preprocessing.policy()
    return {
        "input": f"{INPUT}: uint8 [n, size, size, 3], red, green and blue; normalised within",
        "output": f"{OUTPUT}: float32 [n, {model.width}]; pictures are alike by the cosine of their codes",
        **{name: str(preprocessing[name]) for name in ("size", "resize", "short_side", "interpolation")},
        "identity": model.fingerprint,
    }


def _compared(model: Model, data: bytes) -> tuple[float, float]:
    """The graph's codes beside torch's, for some numbers of pictures of coloured noise, coarse and fine."""
    import onnxruntime

    differences, cosines = [], []
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        for count in _CHECKED:
            pixels = _noise(count, model.extractor.preprocessing.size)
            codes = model.codes(model.extractor(torch.from_numpy(pixels))).numpy()
            (others,) = session.run([OUTPUT], {INPUT: pixels})
            differences.append(float(np.abs(codes - others).max() / max(np.abs(codes).max(), 1e-30)))
            cosines.append(float(_cosines(codes, others).min()))
    except Exception as error:  # onnxruntime's own have no common class below it
        raise _impossible(model, str(error)) from error
    if not (max(differences) <= _LARGEST_DIFFERENCE and min(cosines) >= _LEAST_COSINE):
        raise _impossible(
            model, f"its codes differ by {max(differences):.1e}, their least cosine is {min(cosines):.5f}"
        )
    return max(differences), min(cosines)


def _noise(count: int, size: int) -> UInt8[np.ndarray, "n s s 3"]:
    chance = np.random.default_rng(count)
    side = [max(1, size >> (at % 5)) for at in range(count)]
    squares = [chance.integers(0, 256, (each, each, 3), np.uint8) for each in side]
    return np.stack([square[np.ix_(*[np.arange(size) * len(square) // size] * 2)] for square in squares])


def _cosines(some: Float32[np.ndarray, "n d"], others: Float32[np.ndarray, "n d"]) -> np.ndarray:
    lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    return (some * others).sum(1) / np.maximum(lengths, 1e-30)


def _impossible(model: Model, cause: str) -> LikenessError:
    return LikenessError(
        "BACKBONE",
        "this model cannot be written as ONNX.",
        where=f"{model.card['backbone']['name']}, {model.card['architecture']['class']}",
        cause=cause.strip().splitlines()[0],
        kept="The run; no .onnx file was written.",
        fix="Leave out format=onnx: the .safetensors is loaded with likeness.load.",
    )
