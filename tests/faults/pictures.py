"""Pictures that go wrong in every way that is known here, each with what must come of it.

Many containers are written by hand: their headers may lie, and they may hold what Pillow does not write.
"""

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image

SIDE = 16  # what the tests' network gets, so that pictures of this size are not resized
WHITE, GREY = (255, 255, 255), (128, 128, 128)
Colour = tuple[int, int, int]
TRUNCATED, NO_IMAGE, TOO_LARGE, MODE, SHAPE, FORMAT = (
    "IMG-TRUNCATED", "IMG-NOT-IMAGE", "IMG-TOO-LARGE", "IMG-MODE", "IMG-SHAPE", "IMG-FORMAT",
)  # fmt: skip


class Picture(NamedTuple):
    """A file and what must come of it.

    Args:
        kind: What is wrong or odd about it.
        name: Of the file; distinct.
        code: With which it is refused.
        shows: Where it is not refused, the mean colours of its upper left, upper right, lower left and lower right
            quarter. Neither is given for bit rot, which may decode to anything: only the digest of the file tells.
    """

    kind: str
    name: str
    data: bytes
    code: str | None = None
    shows: tuple[Colour, Colour, Colour, Colour] | None = None


def corpus() -> list[Picture]:
    """All of them; the same at every call."""
    parts = (cut, no_pictures, foreign, bombs, modes, turned, several, shapes, damaged)
    return [picture for part in parts for picture in part()]


def refused(kind: str, name: str, data: bytes, code: str) -> Picture:
    return Picture(kind, name, data, code=code)


def flat(kind: str, name: str, data: bytes, colour: Colour) -> Picture:
    return Picture(kind, name, data, shows=(colour,) * 4)


def since_pillow_13(picture: Picture, before: str) -> Picture:
    """What Pillow could not read before is refused with the code ``before``."""
    if int(PIL.__version__.partition(".")[0]) >= 13:
        return picture
    return picture._replace(code=before, shows=None)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(seed: int = 0, side: int = 48) -> Image.Image:
    """So many details that each byte of the file matters."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def plain(mode: str, colour: object, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    return Image.new(mode, size, colour)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    pixels: bytes, depth: int = 8, colour_type: int = 2, size: tuple[int, int] = (SIDE, SIDE), before: bytes = b""
) -> bytes:
    """A PNG of ``pixels`` (each row after a filter byte); ``before`` are chunks between header and pixels."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(pixels, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_rows(pixel: bytes, rows: int = SIDE) -> bytes:
    return (b"\0" + pixel * SIDE) * rows


def tiff(entries: dict[int, Sequence[int] | int], pixels: bytes, next_offset: int = 0) -> bytes:
    """A little-endian TIFF of one strip; ``entries`` (LONGs) go over those of a grey 8-bit picture."""
    at = 8 + len(pixels)
    plain_grey = {256: SIDE, 257: SIDE, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: SIDE, 279: len(pixels)}
    tags = sorted((plain_grey | entries).items())
    values_at, table, values = at + 2 + 12 * len(tags) + 4, b"", b""
    for tag, value in tags:
        numbers = [value] if isinstance(value, int) else [*value]
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = packed if len(numbers) == 1 else struct.pack("<I", values_at + len(values))
        values += packed if len(numbers) > 1 else b""
        table += struct.pack("<HHI", tag, 4, len(numbers)) + place
    head = b"II*\0" + struct.pack("<I", at) + pixels
    return head + struct.pack("<H", len(tags)) + table + struct.pack("<I", next_offset) + values


def gif(blocks: bytes, screen: tuple[int, int] = (SIDE, SIDE), colours: bytes = b"\x0a\x14\x1e\xc8\x64\x32") -> bytes:
    """A GIF of two colours, or of none."""
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80 if colours else 0, 0, 0) + colours + blocks + b";"


def gif_frame(codes: Sequence[int], size: tuple[int, int] = (SIDE, SIDE), local: bytes = b"") -> bytes:
    """An image block whose codes (3 bits each, so that none may be added to the table) are written as they are."""
    bits = sum(code << 3 * place for place, code in enumerate(codes))
    data = bits.to_bytes((3 * len(codes) + 7) // 8, "little")
    blocks = b"".join(bytes([len(part)]) + part for part in (data[at : at + 255] for at in range(0, len(data), 255)))
    return b"," + struct.pack("<HHHHB", 0, 0, *size, 0x80 if local else 0) + local + b"\2" + blocks + b"\0"


def gif_codes(index: int, pixels: int) -> list[int]:
    """Clear, two pixels, clear, two pixels … and the end: the codes stay 3 bits long."""
    pairs = [code for _ in range(pixels // 2) for code in (4, index, index)]
    return [*pairs, 5]


def bmp(width: int, height: int, pixels: bytes = b"", bits: int = 24) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


WHOLE: dict[str, Callable[[], bytes]] = {
    "plain.jpg": lambda: encoded(noise(), "JPEG"),
    "progressive.jpg": lambda: encoded(noise(), "JPEG", progressive=True),
    "plain.png": lambda: encoded(noise()),
    "plain.gif": lambda: encoded(noise(), "GIF"),
    "plain.bmp": lambda: encoded(noise(), "BMP"),
    "plain.tif": lambda: encoded(noise(), "TIFF"),
    "lzw.tif": lambda: encoded(noise(), "TIFF", compression="tiff_lzw"),
    "plain.webp": lambda: encoded(noise(), "WEBP"),
}
_HEADERS = {".jpg": 20, ".png": 33, ".gif": 13, ".bmp": 54, ".tif": 8, ".webp": 20}  # bytes up to what comes after


def cut() -> Iterator[Picture]:
    """F01."""
    for name, make in WHOLE.items():
        data = make()
        header = _HEADERS[name[name.index(".") :]]
        for kind, kept in {
            "cut at 30 bytes": 30,
            "cut at half": len(data) // 2,
            "20 bytes short": len(data) - 20,
            "nothing after the header": header,
        }.items():
            yield refused(kind, f"{kind.replace(' ', '_')}_{name}", data[:kept], TRUNCATED)
    for suffix in _HEADERS:
        yield refused("empty", f"empty{suffix}", b"", TRUNCATED)
    for name, options in {
        "plain.jpg": {},
        "progressive.jpg": {"progressive": True},
        "grey.jpg": {},
        "restarts.jpg": {"restart_marker_rows": 1},
        "ink.jpg": {},
    }.items():
        mode = {"grey.jpg": "L", "ink.jpg": "CMYK"}.get(name, "RGB")
        data = encoded(noise(side=128).convert(mode), "JPEG", **options)
        short = data[: data.index(b"\xff\xda") + 100] + b"\xff\xd9"
        yield refused("cut, with an end put to it", f"ended_{name}", short, TRUNCATED)
    for name, options in {
        "jpg": {},
        "restarts.jpg": {"restart_marker_rows": 1},
        "late.jpg": {"progressive": True},
    }.items():
        yield flat("grey up to its end", f"flat_grey.{name}", encoded(plain("RGB", GREY), "JPEG", **options), GREY)
    two = encoded(plain("RGB", GREY), "MPO", save_all=True, append_images=[plain("RGB", WHITE)])
    yield flat("grey up to its end", "flat_grey.mpo.jpg", two, GREY)
    for mode in ("L", "RGB", "P", "1"):
        black = encoded(plain(mode, 0).convert(mode))
        yield flat("black up to its end", f"black_{mode}.png", black, (0, 0, 0))
    yield flat("black up to its end", "all_clear.png", encoded(plain("RGBA", (0, 0, 0, 0))), WHITE)


def no_pictures() -> Iterator[Picture]:
    """F02."""
    pages = {
        "404.jpg": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
        "blank_first.png": b"\n\n  <HTML><body>Please log in</body></HTML>",
        "denied.webp": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    }
    yield from (refused("web page", name, data, NO_IMAGE) for name, data in pages.items())
    yield refused("text", "words.jpg", b"Not found.\n", NO_IMAGE)
    yield refused("text", "bmw.bmp", b"BMW is no bitmap, and this is text", NO_IMAGE)
    yield refused("text", "utf16.gif", "no picture either".encode("utf-16"), NO_IMAGE)
    yield refused("JSON", "answer.jpg", json.dumps({"error": "quota exceeded"}).encode(), NO_IMAGE)
    yield refused("macOS stub", "_stub.jpg", b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200), NO_IMAGE)
    yield refused("Git LFS pointer", "pointer.png", b"version https://git-lfs.github.com/spec/v1\noid x\n", NO_IMAGE)
    yield refused("zeros", "zeros.jpg", bytes(4096), NO_IMAGE)
    yield refused("another RIFF", "sound.webp", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), NO_IMAGE)


def foreign() -> Iterator[Picture]:
    """F09: what another parser of Pillow would open, or a program that Pillow would start."""
    picture = plain("RGB", (200, 100, 50), (32, 32))
    for format in ("AVIF", "EPS", "ICO", "JPEG2000", "PDF"):
        yield refused("another format", f"{format.lower()}.jpg", encoded(picture, format), FORMAT)
    for format in ("DDS", "ICNS", "PCX", "PPM", "SGI", "TGA", "XBM"):
        data = encoded(picture.convert("1") if format == "XBM" else picture, format)
        yield refused("another format", f"{format.lower()}.png", data, NO_IMAGE)
    written = {
        "psd.jpg": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 32, 32, 8, 3),
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        "xml_svg.png": b"<?xml version='1.0'?>\n<!-- drawn --><svg/>",
        "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "jxl.jpg": b"\xff\x0a\xfa\x1f\x01\x90",
        "film.jpg": b"\0\0\0\x18ftypmp42\0\0\0\0",
        "packed.jpg": b"PK\x03\x04" + bytes(30),
        "binary_eps.jpg": b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 10) + bytes(32),
        "ps_command.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(%pipe%id) (w) file\n",
    }
    yield from (refused("another format", name, data, FORMAT) for name, data in written.items())
    flic = struct.pack("<IHHHHHH", 128, 0xAF11, 1, 320, 200, 8, 3) + bytes(112)
    yield refused("another format", "flic.gif", flic, NO_IMAGE)
    yield refused("another format", "wmf.png", b"\xd7\xcd\xc6\x9a" + bytes(60), NO_IMAGE)
    yield flat("wrong name for its format", "really_png.jpg", encoded(plain("RGB", (10, 20, 30))), (10, 20, 30))
    yield flat("wrong name for its format", "really_gif.bmp", encoded(plain("RGB", (9, 9, 9)), "GIF"), (9, 9, 9))


def bombs() -> Iterator[Picture]:
    """F04."""
    for width, height in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (178_956_971, 8)):
        yield refused("bomb", f"{width}x{height}.png", png(b"", size=(width, height)), TOO_LARGE)
    yield refused("bomb", "screen.gif", gif(gif_frame([4, 5]), (65_535, 65_535)), TOO_LARGE)
    yield refused("bomb", "frame.gif", gif(gif_frame([4, 5], (60_000, 60_000))), TOO_LARGE)
    yield refused("bomb", "plain.bmp", bmp(50_000, 50_000), TOO_LARGE)
    yield refused("bomb", "upside_down.bmp", bmp(50_000, -50_000), TOO_LARGE)
    yield refused("bomb", "strips.tif", tiff({256: 60_000, 257: 60_000}, bytes(256)), TOO_LARGE)
    tile = {322: 40_000, 323: 40_000, 324: 8, 325: 256, 259: 8}
    yield refused("bomb", "tile.tif", tiff(tile, zlib.compress(bytes(256))), TOO_LARGE)
    canvas = struct.pack("<I", 16_000)[:3] * 2
    extended = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + canvas
    yield refused("bomb", "canvas.webp", b"RIFF" + struct.pack("<I", len(extended) + 4) + b"WEBP" + extended, TRUNCATED)
    header = encoded(plain("RGB", 0), "JPEG")
    sizes = header.index(b"\xff\xc0") + 5
    large = header[:sizes] + struct.pack(">HH", 65_000, 65_000) + header[sizes + 4 :]
    yield refused("bomb", "header.jpg", large, TOO_LARGE)
    progressive = encoded(plain("RGB", (9, 9, 9), (2000, 2000)), "JPEG", progressive=True)
    again = progressive[progressive.rindex(b"\xff\xda") : -2] * 20_000
    yield refused("bomb", "scans.jpg", progressive[:-2] + again + b"\xff\xd9", TOO_LARGE)
    long = zlib.compress(b" " * 80_000_000, 9)
    for name, body in {"zTXt": b"a\0\0" + long, "iTXt": b"a\0\1\0\0\0" + long, "iCCP": b"a\0\0" + long}.items():
        data = png(png_rows(b"\1\2\3"), before=chunk(name.encode(), body))
        yield refused("huge text or profile", f"{name}.png", data, TOO_LARGE)
    many = b"".join(chunk(b"tEXt", b"a\0" + bytes(1000)) for _ in range(300))
    yield flat("much text", "tEXt.png", png(png_rows(b"\1\2\3"), before=many), (1, 2, 3))
    profile = b"".join(b"\xff\xe2" + struct.pack(">H", 65_535) + b"ICC_PROFILE\0\1\1" + bytes(65_519) for _ in range(9))
    data = encoded(plain("RGB", (90, 90, 90)), "JPEG")
    yield flat("much text", "profile.jpg", data[:2] + profile + data[2:], (90, 90, 90))


def modes() -> Iterator[Picture]:
    """F05: means by the rules that ``Decoder`` states."""
    deep = Image.fromarray(np.full((SIDE, SIDE), 25_700, np.uint16))  # 25700 / 257 = 100
    yield flat("16-bit grey", "deep.png", encoded(deep), (100, 100, 100))
    yield flat("16-bit grey", "deep.tif", encoded(deep, "TIFF"), (100, 100, 100))
    yield flat("16-bit grey", "int.tif", encoded(plain("I", 25_700), "TIFF"), (100, 100, 100))
    samples = struct.pack("<H", 25_700) * SIDE**2
    yield refused("16-bit grey, 0 is white", "inverse.tif", tiff({258: 16, 262: 0}, samples), MODE)
    yield flat("8-bit grey, 0 is white", "inverse8.tif", tiff({262: 0}, bytes([100]) * SIDE**2), (155, 155, 155))
    yield refused("12-bit grey", "twelve.tif", tiff({258: 12}, bytes(SIDE**2 * 3 // 2)), MODE)
    yield refused("16-bit with a sign", "signed.tif", tiff({258: 16, 339: 2}, samples), MODE)
    yield refused("32-bit grey", "large.tif", encoded(plain("I", 70_000), "TIFF"), MODE)
    yield refused("float", "unit.tif", encoded(plain("F", 0.5), "TIFF"), MODE)
    yield refused("float", "bytes.tif", encoded(plain("F", 128.0), "TIFF"), MODE)
    yield refused("LAB", "lab.tif", encoded(plain("LAB", (50, 128, 128)), "TIFF"), MODE)
    colour = png(png_rows(struct.pack(">HHH", 2570, 5140, 65_535)), depth=16)
    yield flat("16-bit colour", "deep_rgb.png", colour, (10, 20, 255))
    clear = png(png_rows(struct.pack(">HHHH", 0, 0, 0, 13_107)), depth=16, colour_type=6)  # a fifth of 65535
    yield flat("16-bit colour", "deep_rgba.png", clear, (204, 204, 204))
    # red 255 - 51 = 204, green 255 - 102 = 153
    ink = plain("CMYK", (51, 102, 0, 0))
    yield flat("CMYK", "ink.jpg", encoded(ink, "JPEG", quality=100), (204, 153, 255))
    yield flat("CMYK", "ink.tif", encoded(ink, "TIFF"), (204, 153, 255))
    # Y 155 is 100 of each ink, which is kept inverted, as is black: 155 and 51; 204 - 155 * 204 / 255 = 80
    inks = encoded(plain("CMYK", (100, 127, 127, 51)), "JPEG", quality=100)
    adobe = inks.index(b"Adobe") + 11
    yield flat("YCCK", "ycck.jpg", inks[:adobe] + b"\2" + inks[adobe + 1 :], (80, 80, 80))
    picture = flat("YCbCr", "plain.tif", encoded(plain("YCbCr", (100, 128, 128)), "TIFF"), (100, 100, 100))
    yield since_pillow_13(picture, TRUNCATED)
    yield flat("RGB in a JPEG", "rgb.jpg", encoded(plain("RGB", (10, 20, 30)), "JPEG", keep_rgb=True), (10, 20, 30))
    yield from _palettes()
    yield from _transparent()
    yield flat("grey", "grey.jpg", encoded(plain("L", 77), "JPEG"), (77, 77, 77))
    yield flat("grey", "grey.png", encoded(plain("L", 77)), (77, 77, 77))
    for depth, level, shown in ((1, 0xFF, 255), (2, 0xAA, 170), (4, 0x44, 68)):
        rows = (b"\0" + bytes([level]) * (SIDE * depth // 8)) * SIDE
        yield flat("1, 2 or 4 bits", f"bits{depth}.png", png(rows, depth, 0), (shown,) * 3)
    yield flat("1, 2 or 4 bits", "fax.tif", encoded(plain("1", 1), "TIFF", compression="group4"), WHITE)
    yield flat("1, 2 or 4 bits", "bits.bmp", encoded(plain("1", 0), "BMP"), (0, 0, 0))
    yield flat("BMP of 32 bits", "x.bmp", bmp(SIDE, SIDE, bytes([30, 20, 10, 0]) * SIDE**2, 32), (10, 20, 30))


def _palettes() -> Iterator[Picture]:
    image = plain("P", 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    yield flat("palette", "palette.png", encoded(image), (200, 100, 50))
    yield flat("palette", "palette.bmp", encoded(image, "BMP"), (200, 100, 50))
    yield flat("palette", "palette.tif", encoded(image, "TIFF"), (200, 100, 50))
    yield flat("palette", "palette.gif", gif(gif_frame(gif_codes(1, SIDE**2))), (200, 100, 50))
    yield flat("palette with a clear colour", "clear.png", encoded(image, transparency=bytes([255, 0])), WHITE)
    yield flat(
        "palette with a clear colour", "half.png", encoded(image, transparency=bytes([255, 128])), (227, 177, 152)
    )
    yield flat("palette with a clear colour", "clear.gif", encoded(image, "GIF", transparency=1), WHITE)
    own = gif_frame(gif_codes(1, SIDE**2), local=b"\0\0\0\x07\x08\x09")
    yield flat("GIF whose frame has the colours", "local.gif", gif(own, colours=b""), (7, 8, 9))
    yield flat("GIF without colours", "none.gif", gif(gif_frame(gif_codes(1, SIDE**2)), colours=b""), (1, 1, 1))


def _transparent() -> Iterator[Picture]:
    """A fifth opaque on white: 255 - (255 - x) / 5."""
    fifth = plain("RGBA", (100, 0, 255, 51))
    yield flat("alpha", "rgba.png", encoded(fifth), (224, 204, 255))
    yield flat("alpha", "rgba.webp", encoded(fifth, "WEBP", lossless=True), (224, 204, 255))
    yield flat("alpha", "rgba.tif", encoded(fifth, "TIFF"), (224, 204, 255))
    yield flat("alpha", "grey_alpha.png", encoded(plain("LA", (0, 51))), (204, 204, 204))
    yield flat("alpha", "opaque.png", encoded(plain("RGBA", (100, 0, 255, 255))), (100, 0, 255))
    yield flat("alpha", "grey_alpha.tif", encoded(plain("LA", (0, 51)), "TIFF"), (204, 204, 204))
    associated = tiff({258: (8,) * 4, 262: 2, 277: 4, 338: 1}, bytes([20, 0, 51, 51]) * SIDE**2)
    yield flat("alpha, premultiplied", "rgba_premultiplied.tif", associated, (224, 204, 255))
    associated = tiff({258: (8, 8), 262: 1, 277: 2, 338: 1}, bytes([20, 51]) * SIDE**2)
    picture = flat("alpha, premultiplied", "grey_premultiplied.tif", associated, (224, 224, 224))
    yield since_pillow_13(picture, TRUNCATED)
    key = encoded(plain("RGB", (10, 20, 30)), transparency=(10, 20, 30))
    yield flat("clear colour", "key.png", key, WHITE)
    yield flat("clear colour", "grey_key.png", encoded(plain("L", 77), transparency=77), WHITE)
    deep = png(png_rows(struct.pack(">H", 25_700)), 16, 0, before=chunk(b"tRNS", struct.pack(">H", 25_700)))
    yield flat("clear colour", "deep_key.png", deep, WHITE)


QUARTERS: tuple[Colour, Colour, Colour, Colour] = ((250, 40, 40), (40, 170, 40), (40, 40, 90), (0, 0, 0))
TURNS = {  # EXIF orientation: which quarter is seen upper left, upper right, lower left, lower right
    1: (0, 1, 2, 3), 2: (1, 0, 3, 2), 3: (3, 2, 1, 0), 4: (2, 3, 0, 1),
    5: (0, 2, 1, 3), 6: (2, 0, 3, 1), 7: (3, 1, 2, 0), 8: (1, 3, 0, 2),
}  # fmt: skip


def quarters() -> Image.Image:
    pixels = np.array(QUARTERS, np.uint8).reshape(2, 2, 3).repeat(SIDE // 2, 0).repeat(SIDE // 2, 1)
    return Image.fromarray(pixels)


def turned() -> Iterator[Picture]:
    """F06."""
    written = {
        "jpg": ("JPEG", {"quality": 100, "subsampling": 0}),
        "png": ("PNG", {}),
        "webp": ("WEBP", {"lossless": True}),
        "tif": ("TIFF", {}),
    }
    for suffix, (format, options) in written.items():
        for tag, order in TURNS.items():
            exif = Image.Exif()
            exif[0x0112] = tag
            data = encoded(quarters(), format, exif=exif, **options)
            shows = tuple(QUARTERS[place] for place in order)
            yield Picture("EXIF orientation", f"turned{tag}.{suffix}", data, shows=shows)
    broken = {
        "garbage": b"Exif\0\0garbage",
        "far": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "none": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0\0\0\0\0",
        "loop": b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0",
    }
    for name, exif in broken.items():
        data = encoded(quarters(), "JPEG", exif=exif, quality=100, subsampling=0)
        yield Picture("EXIF that cannot be read", f"exif_{name}.jpg", data, shows=QUARTERS)


def several() -> Iterator[Picture]:
    """F07: of several frames the first is taken."""
    first, second = plain("RGB", (200, 10, 10)), plain("RGB", (0, 0, 255))
    for suffix, format in (("gif", "GIF"), ("webp", "WEBP"), ("png", "PNG"), ("tif", "TIFF"), ("jpg", "MPO")):
        options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format == "MPO" else {}
        data = encoded(first, format, save_all=True, append_images=[second] * 3, **options)
        yield flat("several frames", f"frames.{suffix}", data, (200, 10, 10))
    size = (SIDE, SIDE // 2)
    half = gif(gif_frame(gif_codes(1, SIDE * SIDE // 2), size))
    shown = (200, 100, 50), (200, 100, 50), (10, 20, 30), (10, 20, 30)
    yield Picture("frame smaller than its GIF", "half.gif", half, shows=shown)


def shapes() -> Iterator[Picture]:
    """F08."""
    for width, height in ((1, 1), (5000, 1), (1, 5000), (7, 900)):
        data = encoded(plain("RGB", (1, 2, 3), (width, height)))
        yield refused("too small a side", f"{width}x{height}.png", data, SHAPE)
    yield refused("too small a side", "1x1.gif", encoded(plain("RGB", 0, (1, 1)), "GIF"), SHAPE)
    yield refused("too small a side", "1x1.jpg", encoded(plain("RGB", 0, (1, 1)), "JPEG"), SHAPE)
    yield refused("no size", "0x0.png", png(b"", size=(0, 0)), TRUNCATED)
    yield refused("no size", "0x16.png", png(b"", size=(0, SIDE)), TRUNCATED)
    yield refused("no size", "0x0.bmp", bmp(0, 0), TRUNCATED)
    yield refused("no size", "0x0.gif", gif(gif_frame([4, 5], (0, 0)), (0, 0)), TRUNCATED)
    yield refused("no size", "0x0.tif", tiff({256: 0, 257: 0}, b""), TRUNCATED)
    yield flat("long and thin", "8x5000.png", encoded(plain("RGB", (9, 99, 199), (8, 5000))), (9, 99, 199))


def damaged() -> Iterator[Picture]:
    """Headers and data that contradict each other."""
    whole = png(png_rows(b"\x0a\x14\x1e"))
    at = whole.index(b"IDAT")
    pixels = whole[: at + 200] + b"\xff" + whole[at + 201 :]
    yield refused("flipped byte under a checksum", "pixels.png", pixels, TRUNCATED)
    header = whole.index(b"IHDR") + 9
    yield refused(
        "flipped byte under a checksum", "header.png", whole[:header] + b"\3" + whole[header + 1 :], TRUNCATED
    )
    summed = whole.index(b"IEND") - 8
    unsummed = whole[:summed] + bytes(4) + whole[summed + 4 :]
    yield flat("wrong checksum over whole pixels", "sum.png", unsummed, (10, 20, 30))
    yield refused("too few rows", "rows.png", png(png_rows(b"\x0a\x14\x1e", SIDE - 4)), TRUNCATED)
    yield refused("no pixels", "nothing.png", png(b""), TRUNCATED)
    packed = chunk(b"IDAT", zlib.compress(png_rows(b"\x0a\x14\x1e"), 0))
    yield refused("no pixels", "without.png", whole.replace(packed, b""), TRUNCATED)
    yield refused("too few rows", "rows.gif", gif(gif_frame(gif_codes(1, SIDE**2 - 64))), TRUNCATED)
    yield refused("no pixels", "nothing.gif", gif(b""), TRUNCATED)
    yield refused("too few rows", "rows.bmp", bmp(SIDE, SIDE, bytes(3 * SIDE * (SIDE - 4))), TRUNCATED)
    yield refused("too few rows", "rows.tif", tiff({}, bytes(SIDE * (SIDE - 4))), TRUNCATED)
    yield refused("too few rows", "strip.tif", tiff({279: SIDE * (SIDE - 4)}, bytes(SIDE**2)), TRUNCATED)
    yield flat("strip without a length", "unmeasured.tif", tiff({279: 0}, bytes([77]) * SIDE**2), (77, 77, 77))
    yield refused("no pixels", "far.tif", tiff({273: 2**31}, bytes(SIDE**2)), TRUNCATED)
    deflated = zlib.compress(bytes(SIDE * (SIDE - 4)))
    yield refused("too few rows", "deflated.tif", tiff({259: 8}, deflated), TRUNCATED)
    rotten = bytearray(zlib.compress(bytes(range(256)) * 4))
    rotten[8:16] = b"\xff" * 8
    yield refused("rotten pixels", "deflated_rotten.tif", tiff({259: 8}, bytes(rotten)), TRUNCATED)
    grey = bytes([77]) * SIDE**2
    yield flat("pages in a circle", "itself.tif", tiff({}, grey, next_offset=8 + len(grey)), (77, 77, 77))
    yield refused("unknown header", "compression.tif", tiff({259: 34_712}, grey), TRUNCATED)
    yield refused("unknown header", "bits.tif", tiff({258: 13}, grey), TRUNCATED)
    yield refused("unknown header", "depth.bmp", bmp(SIDE, SIDE, grey, 13), TRUNCATED)
    yield refused("unknown header", "type.png", png(png_rows(b"\1\2\3"), colour_type=5), TRUNCATED)
    yield from _damaged_jpegs()
    for name in ("plain.jpg", "plain.png", "plain.gif", "plain.bmp"):
        flat_colour = encoded(plain("RGB", (120, 120, 120)), {"jpg": "JPEG"}.get(name[-3:], name[-3:].upper()))
        data = flat_colour + b"\0garbage" * 100 + b"<html>"
        yield flat("garbage at the end", f"garbage_{name}", data, (120, 120, 120))


def _damaged_jpegs() -> Iterator[Picture]:
    data = encoded(noise(1), "JPEG", quality=90, restart_marker_rows=1)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    taller = data[: frame + 5] + struct.pack(">H", 96) + data[frame + 7 :]
    yield refused("JPEG taller than its pixels", "taller.jpg", taller, TRUNCATED)
    yield refused("JPEG without a table", "tables.jpg", data[:2] + data[data.index(b"\xff\xc0") :], TRUNCATED)
    yield Picture("bit rot", "arithmetic.jpg", data[:frame] + b"\xff\xc9" + data[frame + 2 :])
    lossless = data[:frame] + b"\xff\xc3" + data[frame + 2 :]
    yield refused("JPEG of another coding", "lossless.jpg", lossless, TRUNCATED)
    yield refused("JPEG of another coding", "12bit.jpg", data[: frame + 4] + b"\x0c" + data[frame + 5 :], TRUNCATED)
    yield refused("JPEG without pixels", "scan.jpg", data[:scan] + b"\xff\xd9", TRUNCATED)
    yield refused("JPEG without pixels", "start.jpg", data[: scan + 14] + b"\xff\xd9", TRUNCATED)
    yield refused("JPEG without a frame", "frame.jpg", data[:frame] + data[scan:], TRUNCATED)
    comment = b"\xff\xfe" + struct.pack(">H", 65_000) + b"short"
    yield from (Picture("bit rot", f"flipped{seed}.jpg", flipped(data, seed)) for seed in range(6))
    yield refused("JPEG whose segment is too long", "segment.jpg", data[:2] + comment, TRUNCATED)


def flipped(data: bytes, seed: int, flips: int = 40) -> bytes:
    """So many bits of the middle half turned: a JPEG mostly decodes, to other pixels."""
    rng = np.random.default_rng(seed)
    some = bytearray(data)
    for at in rng.integers(len(data) // 4, len(data) * 3 // 4, flips):
        some[at] ^= 1 << int(rng.integers(8))
    return bytes(some)
