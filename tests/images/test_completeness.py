"""Decoders show grey or black for pixels that a file lacks; a picture that is grey or black is another matter."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image

from likeness.images.decoding import BadImage, Decoder

OPTIONS = [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}]


def jpeg(pixels, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def photo(width=67, height=53):
    """Smooth, as photos are."""
    coarse = (128 + 40 * np.random.default_rng(3).normal(size=(8, 8, 3))).clip(0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def colours(data):
    return np.asarray(Decoder().decode(data).image, int)


def colours_if_any(data):
    try:
        return colours(data)
    except BadImage:
        return None


@pytest.mark.fault("F01")
@pytest.mark.parametrize("options", [each for each in OPTIONS if "progressive" not in each])
def test_a_jpeg_cut_anywhere_and_given_an_end_is_refused_or_lacks_its_last_block_alone(options):
    data = jpeg(photo(), **options)
    whole, start = colours(data), data.index(b"\xff\xda") + 14
    kept = [length for length in range(start, len(data) - 2, 37) if data[length - 1] != 0xFF]
    shown = [colours_if_any(data[:length] + b"\xff\xd9") for length in kept]
    assert all(found is None or (found == whole)[:-16].all() for found in shown)
    assert shown[: len(kept) // 2] == [None] * (len(kept) // 2)


@pytest.mark.parametrize(("options", "mode", "quality"), [*product(OPTIONS, ("RGB", "L"), (30, 100))])
def test_a_jpeg_that_is_grey_at_its_end_is_whole(options, mode, quality):
    pixels = np.random.default_rng(1).integers(0, 256, (53, 67, 3)).astype(np.uint8)
    for grey in (53, 20, 0):
        pixels[53 - grey :] = 128
        data = jpeg(pixels, mode, quality=quality, **options)
        for more in (b"", b"and \xff\xd9 garbage"):
            assert colours(data + more).shape == (53, 67, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_that_is_black_at_its_end_is_whole(mode):
    file = io.BytesIO()
    Image.new(mode, (35, 29)).save(file, "PNG")
    assert colours(file.getvalue()).shape == (29, 35, 3)
