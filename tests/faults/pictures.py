"""A folder of files that are hard to read: what each holds, and what must come of it."""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from images.test_decoding import CORNERS, MODES, UPRIGHT, WHOLE, chunk, encoded, flat, noise, png, rows
from PIL import Image

RGB = (120, 60, 200)
PLAIN = flat("RGB", RGB, (24, 24))


class Hard(NamedTuple):
    """A file, and what must come of it: the code of a refusal, or the mean colour of its pixels."""

    name: str
    kind: str
    data: bytes
    comes: str | tuple[float, ...]


def corpus() -> list[Hard]:
    """Some 170 files of some 80 kinds."""
    return [*_cut(), *_no_pictures(), *_bombs(), *_modes(), *_turned(), *_animated(), *_shaped(), *_damaged()]


def _cut():
    for kind, data in WHOLE.items():
        for kept in (8, 30, len(data) // 4, len(data) // 2, len(data) * 3 // 4, len(data) - 20):
            yield Hard(f"{kind} of {kept} bytes.{kind.split()[-1]}", f"cut {kind}", data[:kept], "IMG-TRUNCATED")
    yield Hard("empty.jpg", "empty", b"", "IMG-TRUNCATED")
    yield Hard("no end.png", "cut png", WHOLE["png"][:-12], "IMG-TRUNCATED")


def _no_pictures():
    pages = {"404": "<!DOCTYPE html><title>404", "capitals": "\n <HTML>", "s3": "<?xml version='1.0'?><Error>Denied"}
    for name, text in pages.items():
        yield Hard(f"page {name}.jpg", "web page", text.encode(), "IMG-NOT-IMAGE")
    yield Hard("words.jpg", "text", b"plain words", "IMG-NOT-IMAGE")
    yield Hard("answer.png", "json", b'{"error": "not found", "status": 404}', "IMG-NOT-IMAGE")
    yield Hard("apple.jpg", "apple double", b"\0\5\x16\7\0\2\0\0Mac OS X" + b"\0" * 70, "IMG-NOT-IMAGE")
    yield Hard("zeros.jpg", "zeros", b"\0" * 4096, "IMG-NOT-IMAGE")
    yield Hard("film.jpg", "avi", b"RIFF\0\0\0\0AVI LIST" + b"\0" * 64, "IMG-NOT-IMAGE")
    yield Hard("program.jpg", "elf", b"\x7fELF\2\1\1" + b"\0" * 64, "IMG-NOT-IMAGE")
    yield Hard("array.png", "npy", b"\x93NUMPY\1\0v\0{'descr': '<f4'}", "IMG-NOT-IMAGE")
    for magic in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6" + b"\0" * 30):
        yield Hard(f"eps {magic[0]}.jpg", "eps", magic, "IMG-FORMAT")
    others = {
        "psd": b"8BPS\0\1",
        "pdf": b"%PDF-1.7",
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0",
        "zip": b"PK\3\4" + b"\0" * 40,
    }
    others |= {"svg": b"<svg xmlns='http://www.w3.org/2000/svg'>", "mp4": b"\0\0\0\x18ftypisom\0\0\0\0"}
    for name, data in others.items():
        yield Hard(f"{name}.jpg", name, data, "IMG-FORMAT")
    for kind in ("ICO", "AVIF", "JPEG2000"):
        yield Hard(f"really {kind}.jpg", kind.lower(), encoded(PLAIN, kind), "IMG-FORMAT")
    for kind in ("PPM", "TGA", "PCX", "SGI"):
        yield Hard(f"really {kind}.png", kind.lower(), encoded(PLAIN, kind), "IMG-NOT-IMAGE")


def _bombs():
    for width, height in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (178_956_971, 9)):
        yield Hard(f"{width} by {height}.png", "png bomb", png(width, height, 8, 2), "IMG-TOO-LARGE")
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + b"\0" * 6 + b","
    gif += struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\2\2\x4c\1\0;"
    yield Hard("bomb.gif", "gif bomb", gif, "IMG-TOO-LARGE")
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 90, 0, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield Hard("bomb.bmp", "bmp bomb", bmp + b"\0" * 36, "IMG-TOO-LARGE")
    for name, content in (("text", b"Comment\0\0" + zlib.compress(b" " * 3_000_000)),):
        yield Hard(f"{name}.png", "huge text", png(12, 10, 8, 0, rows(b"\0"), chunk(b"zTXt", content)), "IMG-TOO-LARGE")


def _modes():
    for name, (data, mean, _) in MODES.items():
        yield Hard(f"{name}.{_extension(data)}", f"mode: {name}", data, mean)
    for name, image in (("float", flat("F", 0.5)), ("wide", flat("I", 65536)), ("negative", flat("I", -1))):
        yield Hard(f"{name}.tif", f"mode: {name}", encoded(image, "TIFF"), "IMG-MODE")
    yield Hard("lab.tif", "mode: lab", encoded(flat("LAB", (1, 2, 3)), "TIFF"), "IMG-MODE")
    for depth, value, white in ((1, 0b10101010, 127.5), (2, 0b01010101, 85), (4, 0x55, 85)):
        pixels = (b"\0" + bytes([value]) * (16 * depth // 8)) * 16
        yield Hard(f"{depth} bits.png", "png below a byte", png(16, 16, depth, 0, pixels), (white,) * 3)


def _turned():
    mean = tuple(CORNERS.mean((0, 1)))
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        for tag in UPRIGHT:
            exif = Image.Exif()
            exif[0x0112], exif[0x0131] = tag, f"{kind}{tag}"
            options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
            data = encoded(Image.fromarray(CORNERS), kind, exif=exif, **options)
            yield Hard(f"turned {tag}.{_extension(data)}", f"exif {kind}", data, mean)
    for name, exif in (("garbage", b"Exif\0\0garbage"), ("endless", b"Exif\0\0II*\0\xff\xff\xff\x7f")):
        data = encoded(Image.fromarray(CORNERS), "JPEG", exif=exif, quality=95)
        yield Hard(f"{name} exif.jpg", "broken exif", data, mean)


def _animated():
    frames = [flat("RGB", colour, (24, 24)) for colour in (RGB, (0, 0, 0), (255, 255, 255))]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        yield Hard(f"several.{_extension(data)}", f"several frames {kind}", data, RGB)


def _shaped():
    for size in ((1, 1), (5000, 1), (1, 5000), (7, 200)):
        yield Hard(f"{size[0]} by {size[1]}.png", "too narrow", encoded(flat("RGB", RGB, size)), "IMG-SHAPE")
    yield Hard("long.png", "long", encoded(flat("RGB", RGB, (5000, 8))), RGB)
    yield Hard("no width.png", "no size", png(0, 16, 8, 2), "IMG-TRUNCATED")


def _damaged():
    """Bytes behind the end are ignored, as every viewer does; damage within is told, or changes what is decoded."""
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        data = encoded(PLAIN, kind, **({"lossless": True} if kind == "WEBP" else {})) + b"trailing" * 9
        yield Hard(f"tail.{_extension(data)}", "bytes behind the end", data, RGB)
    wrong = bytearray(WHOLE["png"])
    wrong[wrong.index(b"IDAT") + 40] ^= 0x10
    yield Hard("wrong sum.png", "png checksum", bytes(wrong), "IMG-TRUNCATED")
    header = bytearray(WHOLE["png"])
    header[20] ^= 0x01
    yield Hard("wrong header.png", "png checksum", bytes(header), "IMG-TRUNCATED")
    yield Hard("no pixels.png", "png without pixels", png(16, 16, 8, 2), "IMG-TRUNCATED")
    loop = b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8)
    yield Hard("loop.tif", "tiff that leads back", loop + b"\0" * 64, "IMG-TRUNCATED")
    jpeg = WHOLE["jpeg"]
    scan = jpeg.index(b"\xff\xda")
    yield Hard("no tables.jpg", "jpeg without tables", jpeg[:2] + jpeg[scan:], "IMG-TRUNCATED")
    yield Hard("no scan.jpg", "jpeg without pixels", jpeg[:scan] + b"\xff\xd9", "IMG-TRUNCATED")


def bit_rot(seed: int, flips: int = 40) -> tuple[bytes, bytes]:
    """A JPEG, and the same with flipped bits in its pixels, as a disk leaves it."""
    file = io.BytesIO()
    noise(seed, (64, 64)).save(file, "JPEG")
    whole, rng = file.getvalue(), np.random.default_rng(seed)
    rotten, start = bytearray(whole), whole.index(b"\xff\xda") + 12
    for place in rng.integers(start, len(whole) - 2, flips):
        rotten[place] ^= 1 << rng.integers(8)
    return whole, bytes(rotten)


def _extension(data: bytes) -> str:
    starts = {
        b"\xff\xd8": "jpg",
        b"\x89P": "png",
        b"GI": "gif",
        b"BM": "bmp",
        b"II": "tif",
        b"MM": "tif",
        b"RI": "webp",
    }
    return starts[data[:2]]
