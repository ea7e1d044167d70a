"""One file's bytes to one RGB picture, by stated rules, or a refusal that says why."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from likeness.images.completeness import lacks_pixels, scans
from likeness.images.options import is_numbers, refuse_faults

# Raise it whenever the same bytes would give other pixels than before: every kept feature then is of another extractor.
_VERSION = 1

# Pillow's limit holds for a whole process and warns at half of what it refuses; Decoder.max_pixels stands in for it.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of metadata that is not used here. Set once, since warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

_FORMATS = [
    str(kind.format) for kind in (JpegImageFile, PngImageFile, BmpImageFile, GifImageFile, TiffImageFile, WebPImageFile)
]  # a phone's MPO is opened as the JPEG that it starts with
_OURS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF....WEBP|BM....\0\0\0\0", re.DOTALL
)
_LONGEST_MAGIC = 12
_BEGINNINGS = (b"\xff\xd8", b"\x89P", b"GI", b"II", b"MM", b"RI", b"BM")
_FOREIGN = {
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "PSD": rb"8BPS",
    "PDF": rb"%PDF",
    "SVG": rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg",
    "AVIF": rb"....ftypavi[fs]",
    "HEIC": rb"....ftyp(hei|hev|mif1|msf1)",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "ICO": rb"\0\0\x01\0",
    "MP4 or MOV": rb"....ftyp",
    "ZIP": rb"PK\x03\x04",
}
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|\?xml|error)", re.IGNORECASE)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MOST_SCANS = 100  # some ten are usual; each takes its time, and may be of a few bytes
_ORIENTATION = 0x0112
_BITS, _COLOURS, _TILE, _SIGN = 258, 262, (322, 323), 339  # tags of a TIFF


class BadImage(Exception):
    """A file that is no usable picture.

    ``code`` is one of IMG-TRUNCATED, IMG-NOT-IMAGE, IMG-TOO-LARGE, IMG-MODE, IMG-SHAPE, IMG-FORMAT; ``cause`` says
    why in words. Which file it was is known to the caller alone.
    """

    def __init__(self, code: str, cause: str) -> None:
        super().__init__(code, cause)
        self.code, self.cause = code, cause

    def __str__(self) -> str:
        return f"[{self.code}] {self.cause}"


class Decoded(NamedTuple):
    """A picture (RGB, 8 bits a channel) and which of the decoder's rules had to be applied to get it."""

    image: Image.Image
    notes: frozenset[str]


@dataclass(frozen=True)
class Decoder:
    """Bytes of a JPEG, PNG, BMP, GIF, TIFF or WEBP file to RGB; no other parser of Pillow is ever run.

    The EXIF orientation is applied (EXIF that cannot be read counts as absent). 16-bit grey is scaled by 1/257 and
    rounded; other 32-bit and float pictures are refused, for their range is not known, and so is grey of more than 8
    bits that Pillow would read wrong (12 bits, with a sign, or with 0 for white). 16-bit colour is read by Pillow as
    its high byte. CMYK is converted without a colour profile; profiles are ignored. Transparent pixels show
    ``alpha_background``. Of several frames or pages the first is taken. Indices of a GIF without colours count as grey.

    Args:
        max_pixels: Width x height above this is refused from the header, before any pixel is decoded.
        min_side: Pictures with a shorter side are refused.
        alpha_background: Red, green, blue, each 0 to 255.
    """

    max_pixels: int = 178_956_970
    min_side: int = 8
    alpha_background: Sequence[int] = (255, 255, 255)

    def __post_init__(self) -> None:
        colour = self.alpha_background
        refuse_faults(
            "the decoder",
            (
                None if self.min_side >= 1 else f"min_side: at least 1, not {self.min_side}",
                None if self.max_pixels >= 1 else f"max_pixels: at least 1, not {self.max_pixels}",
                None
                if is_numbers(colour, 3) and all(value in range(256) for value in colour)
                else f"alpha_background: three whole numbers from 0 to 255, not {colour!r}",
            ),
        )
        object.__setattr__(self, "alpha_background", tuple(int(value) for value in colour))

    def policy(self) -> dict[str, Any]:
        """Everything that decides pixels, as plain values: a part of the extractor's fingerprint.

        The limits are not in it: they decide which pictures have a feature, not what it is.
        """
        return {"version": _VERSION, "alpha_background": list(self.alpha_background)}

    def decode(self, data: bytes, at_least: int | None = None) -> Decoded:
        """Safe to call from many threads at once.

        Args:
            data: Of a file, whole.
            at_least: A JPEG may come at a half, a quarter or an eighth of its size, with no side below this: several
                times quicker, for a thumbnail. When left out every pixel is decoded.

        Raises:
            BadImage: For whatever is wrong with ``data``; nothing else of Pillow's gets through.
        """
        with _refusals(data):
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            self._check_size(*image.size)
            self._check_tile(image)
            if image.info.get("progressive") and (count := scans(data)) > _MOST_SCANS:
                raise BadImage("IMG-TOO-LARGE", f"{count:,} scans of its pixels, limit {_MOST_SCANS}")
            if at_least:
                image.draft(None, (at_least, at_least))
            notes: set[str] = set()
            if getattr(image, "is_animated", False):
                notes.add("frame 0 of several used")
            upright = _upright(image, notes)
            if image.format == PngImageFile.format and b"IEND" not in data:
                raise BadImage("IMG-TRUNCATED", "the end of the PNG is missing")
            if not at_least and lacks_pixels(image, data):
                raise BadImage("IMG-TRUNCATED", "its pixels end before its last row")
            return Decoded(_to_rgb(_to_8_bit(upright, notes), tuple(self.alpha_background), notes), frozenset(notes))

    def converted(self, image: Image.Image) -> Image.Image:
        """A picture that is opened already, to RGB by the same rules.

        Raises:
            BadImage: As ``decode``.
        """
        try:
            self._check_size(*image.size)
            notes: set[str] = set()
            return _to_rgb(_to_8_bit(_upright(image, notes), notes), tuple(self.alpha_background), notes)
        except BadImage:
            raise
        except Exception as error:  # of a file that Pillow opened and only now reads
            raise BadImage("IMG-TRUNCATED", f"{error or type(error).__name__}") from error

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise BadImage("IMG-TOO-LARGE", f"{width:,} x {height:,} px, limit {self.max_pixels:,} (max_pixels)")
        if min(width, height) < self.min_side:
            raise BadImage("IMG-SHAPE", f"{width} x {height} px, the shorter side must be {self.min_side} (min_side)")

    def _check_tile(self, image: Image.Image) -> None:
        """Of a tile, memory is taken for all its pixels, also for those that lie outside the picture."""
        width, height = (getattr(image, "tag_v2", {}).get(tag, 0) for tag in _TILE)
        if width * height > self.max_pixels:
            raise BadImage(
                "IMG-TOO-LARGE", f"tiles of {width:,} x {height:,} px, limit {self.max_pixels:,} (max_pixels)"
            )


def white_share(image: Image.Image) -> float:
    """Share of the pixels, 0 to 1, that are exactly 255 in greyscale. Plans and maps are mostly white."""
    return image.convert("L").histogram()[255] / (image.width * image.height)


@contextmanager
def _refusals(data: bytes) -> Iterator[None]:
    try:
        yield
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except (Image.DecompressionBombError, MemoryError) as error:
        raise BadImage("IMG-TOO-LARGE", str(error) or "not enough memory to decode it") from error
    except Exception as error:
        if not _OURS.match(data):
            raise _unidentified(data) from error
        code = "IMG-TOO-LARGE" if "MAX_TEXT" in str(error) else "IMG-TRUNCATED"
        raise BadImage(code, f"{error or type(error).__name__}") from error


def _unidentified(data: bytes) -> BadImage:
    if not data:
        return BadImage("IMG-TRUNCATED", "the file is empty")
    is_stub = len(data) < _LONGEST_MAGIC and any(start.startswith(data[:2]) for start in _BEGINNINGS)
    if is_stub or _OURS.match(data):
        return BadImage("IMG-TRUNCATED", "its header is cut, damaged or of a kind that Pillow does not know")
    for name, magic in _FOREIGN.items():
        if re.match(magic, data[:1024], re.DOTALL):
            return BadImage("IMG-FORMAT", f"it is really {name}, which is not among {', '.join(_FORMATS)}")
    cause = f"starts with {data[:16].decode('latin-1')!r}"
    return BadImage("IMG-NOT-IMAGE", cause + "; looks like a failed download" * bool(_WEB_PAGE.match(data)))


def _upright(image: Image.Image, notes: set[str]) -> Image.Image:
    turn_by_pillow = _turn(image) if image.format == TiffImageFile.format else None  # it turns a TIFF while loading it
    image.load()
    turn = _turn(image)
    if turn is not None or turn_by_pillow is not None:
        notes.add("turned by EXIF")
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return None


def _to_8_bit(image: Image.Image, notes: set[str]) -> Image.Image:
    """16-bit grey to L, or to LA where a grey value stands for transparent; 8-bit modes as they are."""
    if not image.mode.startswith("I"):
        return image
    _refuse_misread(getattr(image, "tag_v2", {}))
    values = np.asarray(image)
    if image.mode == "I" and not 0 <= values.min() <= values.max() <= 65535:
        span = f"{values.min()} to {values.max()}"
        raise BadImage("IMG-MODE", f"32-bit grey with values from {span}: what is white cannot be known")
    notes.add("16-bit scaled to 8-bit by /257")
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if (clear := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _refuse_misread(tags: Mapping[int, Any]) -> None:
    """Grey that Pillow takes for unsigned 16-bit grey whose 0 is black."""
    bits = tags.get(_BITS, (16,))[0]
    for found, kind in {
        bits == 12: "of 12 bits",
        bits == 16 and tags.get(_SIGN, (1,))[0] == 2: "with a sign",
        tags.get(_COLOURS) == 0: "whose 0 is white",
    }.items():
        if found:
            raise BadImage("IMG-MODE", f"grey {kind}, which would be read wrong; save the file as 8-bit grey or RGB")


def _to_rgb(image: Image.Image, background: tuple[int, ...], notes: set[str]) -> Image.Image:
    if image.mode in ("F", "LAB"):
        kind = "float" if image.mode == "F" else "LAB"
        raise BadImage("IMG-MODE", f"{kind} pixels: their range or colour cannot be known; save the file as 8-bit RGB")
    if image.mode == "CMYK":
        notes.add("CMYK converted")
    if image.has_transparency_data:
        return _composited(image, background, notes)
    return image if image.mode == "RGB" else image.convert("RGB")


def _composited(image: Image.Image, background: tuple[int, ...], notes: set[str]) -> Image.Image:
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    notes.add("alpha composited")
    opaque = Image.new("RGB", image.size, background)
    opaque.paste(rgba, mask=rgba)
    return opaque
