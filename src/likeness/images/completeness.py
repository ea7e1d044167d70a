"""Whether a file holds all the pixels that its header promises: decoders put black or grey for those that it lacks."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # markers of a JPEG
_LACKING = (127, 128)  # what a JPEG decoder puts in each channel; 127 where ink is counted from the other end
_BITS = bytes(range(255))
_OTHERS = _BITS + b"".join(b"\xff" + bytes([restart]) + _BITS for restart in range(0xD0, 0xD8))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its type of colour
_LENGTH, _WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _COMPRESSION, _COLOURS, _SAMPLES = 279, 256, 257, 258, 259, 262, 277
_AT_ONCE = 1 << 14
_SUBSAMPLED = 6  # YCbCr


def lacks_pixels(image: Image.Image, data: bytes) -> bool:
    """Whether ``image``, which was loaded from ``data`` in full size, shows pixels that are not in the file.

    Looked for where it can be seen. A progressive JPEG that ends between two of its scans is a coarser picture, whole.
    """
    if image.format in ("JPEG", "MPO"):
        return _jpeg_lacks(image, data)
    if image.format == "PNG":
        return _png_lacks(image, data)
    return image.format == "TIFF" and _tiff_lacks(image)


def scans(data: bytes) -> int:
    """How often a JPEG goes over its picture."""
    start = _first_scan(data)
    return data.count(_SCAN, start, data.find(_END, start))


def _jpeg_lacks(image: Image.Image, data: bytes) -> bool:
    """Only where the last pixel is grey: other bits in front of the end then change a picture that lacks some."""
    if any(level not in _LACKING for level in _last(image, 1, 1).tobytes()):
        return False
    end = data.find(_END, _first_scan(data))
    return Image.open(io.BytesIO(data[:end] + _OTHERS + _END), formats=["JPEG"]).tobytes() != image.tobytes()


def _last(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.crop((image.width - width, image.height - height, image.width, image.height))


def _first_scan(data: bytes) -> int:
    """Where the pixels of a JPEG begin; a thumbnail lies in a segment before."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != _SCAN:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def _png_lacks(image: Image.Image, data: bytes) -> bool:
    """Only where the last row is black or clear, and not of interlaced pictures."""
    if _last(image, image.width, 1).getbbox(alpha_only=False):
        return False
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    needed = height * (1 + (width * depth * _CHANNELS[colour] + 7) // 8)
    return not interlaced and not _unpacks_to(needed, b"".join(body for name, body in _chunks(data) if name == b"IDAT"))


def _unpacks_to(size: int, packed: bytes) -> bool:
    """Whether it is as long as that, without having all of it in memory."""
    unpacking = zlib.decompressobj()
    for at in range(0, len(packed), _AT_ONCE):
        size -= len(unpacking.decompress(packed[at : at + _AT_ONCE]))
        if size <= 0:
            return True
    return False


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _tiff_lacks(image: Any) -> bool:
    """Of strips that are not packed: they may be shorter than their rows, and something else may follow them.

    Some programs write a length of 0.
    """
    tags = image.tag_v2
    if tags.get(_COMPRESSION, 1) != 1 or tags.get(_COLOURS) == _SUBSAMPLED or _LENGTH not in tags:
        return False
    samples, bits = tags.get(_SAMPLES, 1), tags.get(_BITS_PER_SAMPLE, (1,))
    each = sum(bits) if len(bits) == samples else bits[0] * samples
    return 0 < sum(tags[_LENGTH]) < tags[_WIDTH] * tags[_HEIGHT] * each // 8
