"""Every backbone's feature of one drawn picture, against numbers that were written down.

Weights are drawn from the bits of PCG64, which NumPy keeps the same for good; only the bundled ones are real.
``PYTHONPATH=tests python tests/features/test_golden.py`` writes the numbers anew, after a change meant to move them.
"""

import importlib.util
import json
import zlib
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers import ROOT
from hydra import compose, initialize_config_dir
from PIL import Image

from likeness.assembly.building import build
from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.features import backbone
from likeness.features.weights import State
from likeness.files import write_json

GOLDEN = ROOT / "tests" / "features" / "golden"
BACKBONES = sorted(path.stem for path in (ROOT / "conf" / "backbone").glob("*.yaml") if path.stem != "as_trained")
PREPROCESSING = {  # what the real weights were trained with; the others' own is torchvision's or timm's
    "vgg16_places365_fc1": "places365",
    "vgg16_places365_fc2": "places365",
    "vgg16_places365_flatten": "places365",
    "resnet50_caffe": "imagenet",
    "resnet50_caffe_max": "imagenet",
    "squeezenet1_1_caffe": "imagenet",
}
GIVEN = {"squeezenet1_1_caffe": ["backbone.weights=drawn"]}  # what a yaml leaves open
TOLERANCE = 1e-3  # of the feature's root mean square; another CPU's order of sums moves it by 1e-5


def picture() -> Image.Image:
    """Neither square nor symmetric, and other in each channel: whole numbers only, so the same everywhere."""
    y, x = np.mgrid[:257, :331]
    pixels = np.stack([90 + x * 150 // 331, 40 + y * 120 // 257, 20 + (x + 2 * y) * 60 // 845], axis=2)
    pixels[30:120, 40:110] = (200, 60, 30)
    pixels[140:230, 180:300, 2] += 90
    pixels[(x - 230) ** 2 + (y - 70) ** 2 < 45**2] = (30, 160, 60)
    pixels[(x // 7 + y // 11) % 5 == 0] //= 2
    return Image.fromarray(pixels.astype(np.uint8))


@cache
def drawn(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Uniform: kernels with He's variance, scales about 1, or less at the end of a residual branch, shifts about 0."""
    size = int(np.prod(shape))
    bits = np.random.PCG64(zlib.crc32(key.encode())).random_raw(size // 4 + 1).view(np.int16)[:size]
    unit = torch.from_numpy(bits.astype(np.float32).reshape(shape)).div_(2**15)
    if len(shape) > 1:
        return unit.mul_((6 / (size / shape[0])) ** 0.5)
    if key.endswith(("bias", "running_mean")):
        return unit.mul_(0.1)
    return unit.mul_(0.5).add_(1).mul_(0.25 if key.endswith("bn3.weight") else 1)


def read(name: str, weights: str) -> State:
    if weights == "bundled":
        return backbone.weight_files.read_bundled(name)
    state = backbone._build(name, random_seed=None).state_dict()
    return {key: drawn(key, tuple(value.shape)) for key, value in state.items() if value.is_floating_point()}


def feature(name: str, *overrides: str) -> np.ndarray:
    """Of the picture, by the yaml files: the config of a training, its preprocessing and its network."""
    register()
    own = f"preprocessing={PREPROCESSING.get(name, 'torchvision')}"
    parts = ["data=folder", "data.root=x", "logger=none", f"backbone={name}", own, *GIVEN.get(name, [])]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = checked(compose("train", [*parts, *overrides]))
    if config["backbone"]["weights"] != "bundled":
        config["backbone"]["weights"] = "drawn"
    preprocessing, network = build(config["preprocessing"]), built(json.dumps(config["backbone"]))
    pixels = torch.from_numpy(preprocessing.pixels(picture()))
    with torch.inference_mode():
        return network(preprocessing.normalize(pixels[None]))[0].numpy()


@cache
def built(node: str) -> backbone.Backbone:
    with patch.object(backbone, "_read", read):
        return build(json.loads(node))


def noted(values: np.ndarray) -> dict[str, Any]:
    """32 numbers at fixed places, the mean and the norm."""
    exact = values.astype(np.float64).ravel()
    places = np.linspace(0, exact.size - 1, 32).astype(int)
    numbers = {"mean": exact.mean(), "norm": np.linalg.norm(exact)}
    told = {name: float(f"{value:.8g}") for name, value in numbers.items()}
    return {"shape": list(values.shape), **told, "values": [float(f"{value:.8g}") for value in exact[places]]}


def difference(got: dict[str, Any], golden: dict[str, Any]) -> float:
    """The greatest of all, in units of the golden feature's root mean square; infinite for another shape."""
    if got["shape"] != golden["shape"]:
        return float("inf")
    scale = golden["norm"] / np.prod(golden["shape"]) ** 0.5
    values = np.abs(np.subtract(got["values"], golden["values"])).max() / scale
    return max(values, abs(got["mean"] - golden["mean"]) / scale, abs(got["norm"] / golden["norm"] - 1))


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_the_numbers_that_were_written_down(name):
    if name == "dinov2_small" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm, an extra, is not installed")
    values = feature(name)
    assert difference(noted(values), golden(name)) < TOLERANCE
    assert np.isfinite(values).all()
    assert np.unique(values).size > values.size // 4  # the activations have not vanished


def test_no_two_backbones_share_their_numbers():
    every = [golden(name) for name in BACKBONES]
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(BACKBONES)
    assert all(difference(one, other) > 0.01 for one in every for other in every if one is not other)


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("resnet50_caffe", "preprocessing.mean=[104.939,116.779,123.68]"),
        ("resnet50_caffe", "preprocessing.mean=[123.68,116.779,103.939]"),
        ("resnet50_caffe", "preprocessing.channels=rgb"),
        ("resnet50_caffe", "preprocessing.std=[255.0,255.0,255.0]"),
        ("resnet50_caffe", "preprocessing.resize=crop"),
        ("resnet50_caffe", "backbone.name=resnet50"),
        ("resnet50_caffe", "backbone.layer=layer4.1"),
        ("resnet50_caffe", "backbone.pooling=max"),
        ("vgg16_places365_fc1", "preprocessing.mean=[104.006,116.669,123.679]"),
        ("vgg16_places365_fc1", "backbone.layer=classifier.0"),
        ("squeezenet1_1_caffe", "preprocessing.mean=[103.939,117.779,123.68]"),
        ("shufflenet_rooms", "preprocessing.size=160"),
    ],
)
def test_what_is_not_as_written_moves_the_numbers(name, override):
    assert difference(noted(feature(name, override)), golden(name)) > 3 * TOLERANCE


if __name__ == "__main__":
    for each in BACKBONES:
        write_json(GOLDEN / f"{each}.json", noted(feature(each)))
