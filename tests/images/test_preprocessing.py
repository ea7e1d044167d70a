import json

import numpy as np
import pytest
import torch
from PIL import Image

from likeness.errors import LikenessError
from likeness.images.preprocessing import Preprocessing

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SIMPLE = Preprocessing(size=1, **PLAIN)
CAFFE = Preprocessing(size=1, channels="bgr", scale=1.0, mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0))
AS_PUBLISHED = Preprocessing(
    size=1, channels="bgr", scale=1.0, mean=(103.939, 116.779, 123.68), std=(255.0, 255.0, 255.0)
)
TORCHVISION = Preprocessing(size=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (SIMPLE, (1.0, 0.4, 0.0)),
        (CAFFE, (-103.939, 102 - 116.779, 255 - 123.68)),
        (AS_PUBLISHED, (-0.4076039, -0.0579569, 0.5149804)),
        (TORCHVISION, (2.2489083, -0.25, -1.8044444)),
    ],
)
def test_schemes_by_hand(scheme, expected):
    """One orange pixel: red 255, green 102, blue 0."""
    batch = torch.tensor([[[[255, 102, 0]]]], dtype=torch.uint8)
    result = scheme.normalize(batch)
    assert result.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(result.flatten().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert batch.flatten().tolist() == [255, 102, 0]


@pytest.mark.parametrize("scheme", [SIMPLE, CAFFE, AS_PUBLISHED, TORCHVISION])
def test_normalize_against_numpy(scheme):
    batch = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
    planes = batch.astype(np.float64)[..., :: -1 if scheme.channels == "bgr" else 1]
    expected = (planes * scheme.scale - scheme.mean) / scheme.std
    result = scheme.normalize(torch.from_numpy(batch))
    np.testing.assert_allclose(result.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


def photo(width, height):
    coarse = np.random.default_rng(width).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (227, 91)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_crop_is_that_of_torchvision(size, interpolation):
    """The box is rounded otherwise: 1 grey level apart, 2 in fewer than one pixel of a thousand."""
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    mode = pytest.importorskip("torchvision.transforms").InterpolationMode(interpolation)
    image = photo(*size)
    for side, short_side in ((224, 256), (97, 97)):
        resized = transforms.resize(image, [short_side], interpolation=mode, antialias=True)
        expected = np.asarray(transforms.center_crop(resized, [side]), int)
        scheme = Preprocessing(size=side, resize="crop", short_side=short_side, interpolation=interpolation, **PLAIN)
        difference = np.abs(scheme.pixels(image) - expected)
        assert difference.max() <= (1 if interpolation == "bilinear" else 2)
        assert (difference > 1).mean() < 1e-3


def test_squash_is_pillows_resize():
    image = photo(300, 200)
    pixels = Preprocessing(size=64, **PLAIN).pixels(image)
    np.testing.assert_array_equal(pixels, np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)))
    assert pixels.flags.writeable


def test_crop_shows_the_middle():
    """Three bands of 4 x 4 pixels: the crop is the middle one."""
    bands = np.repeat(np.array([[[10], [20], [30]]], np.uint8), 4, axis=1).repeat(4, axis=0).repeat(3, axis=2)
    pixels = Preprocessing(size=4, resize="crop", **PLAIN).pixels(Image.fromarray(bands))
    assert pixels.tolist() == [[[20, 20, 20]] * 4] * 4


def test_policy_tells_schemes_apart_and_nothing_else():
    crop = {"size": 8, "resize": "crop", **PLAIN}
    assert Preprocessing(**crop).policy() == Preprocessing(**crop, short_side=8).policy()
    assert Preprocessing(**crop).policy() != Preprocessing(size=8, **PLAIN).policy()
    assert json.loads(json.dumps(AS_PUBLISHED.policy())) == {
        "size": 1,
        "mean": [103.939, 116.779, 123.68],
        "std": [255.0, 255.0, 255.0],
        "resize": "squash",
        "short_side": None,
        "interpolation": "bilinear",
        "channels": "bgr",
        "scale": 1.0,
    }


def test_faulty_options_are_all_named():
    with pytest.raises(LikenessError) as raised:
        Preprocessing(size=8, short_side=7, scale=0.0, mean=(0.0, float("nan"), 0.0), std=(1.0, 0.0, 1.0))
    message = str(raised.value)
    for words in ("CONFIG", "5 options", "resize=squash", "size=8, not 7", "scale: above 0", "mean:", "std:"):
        assert words in message
