import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import pytest
from PIL import Image

from likeness.errors import LikenessError
from likeness.images import decoding
from likeness.images.decoding import BadImage, Decoder, white_share

SIZE = (12, 10)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def flat(mode, colour, size=SIZE):
    return Image.new(mode, size, colour)


def chunk(name, content):
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, depth, colour_type, pixels=b"", extra=b""):
    """A PNG by hand: its header may lie about its size, and it may hold what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    ending = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + ending


def rows(pixel, width=SIZE[0], height=SIZE[1]):
    return (b"\0" + pixel * width) * height


def grey_16(value):
    return Image.fromarray(np.full(SIZE[::-1], value, np.uint16))


def palette(transparency=None):
    image = flat("P", 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    options = {} if transparency is None else {"transparency": transparency}
    return encoded(image, **options)


WHITE, RED = (255, 255, 255), (255, 0, 0)
MODES = {
    "grey": (encoded(flat("L", 77)), (77, 77, 77), set()),
    "1-bit": (encoded(flat("1", 1)), WHITE, set()),
    "palette": (palette(), (200, 100, 50), set()),
    "palette, one colour clear": (palette(bytes([255, 0])), WHITE, {"alpha composited"}),
    "palette, half clear": (palette(bytes([255, 128])), (227, 177, 152), {"alpha composited"}),
    "rgb": (encoded(flat("RGB", (10, 20, 30))), (10, 20, 30), set()),
    "rgb, colour key": (encoded(flat("RGB", (10, 20, 30)), transparency=(10, 20, 30)), WHITE, {"alpha composited"}),
    "grey, colour key": (encoded(flat("L", 77), transparency=77), WHITE, {"alpha composited"}),
    "1-bit, colour key": (encoded(flat("1", 0), transparency=0), WHITE, {"alpha composited"}),
    # 255 - (255 - 100) * 51 / 255 = 224
    "rgba, a fifth opaque": (encoded(flat("RGBA", (100, 0, 255, 51))), (224, 204, 255), {"alpha composited"}),
    "rgba, opaque": (encoded(flat("RGBA", (100, 0, 255, 255))), (100, 0, 255), set()),
    "grey with alpha": (encoded(flat("LA", (0, 51))), (204, 204, 204), {"alpha composited"}),
    "webp with alpha": (
        encoded(flat("RGBA", (100, 0, 255, 51)), "WEBP", lossless=True),
        (224, 204, 255),
        {"alpha composited"},
    ),
    # 25700 / 257 = 100
    "16-bit grey png": (encoded(grey_16(25700)), (100, 100, 100), {"16-bit scaled to 8-bit by /257"}),
    "16-bit grey png, rounded": (encoded(grey_16(25829)), (101, 101, 101), {"16-bit scaled to 8-bit by /257"}),
    "16-bit white": (encoded(grey_16(65535)), WHITE, {"16-bit scaled to 8-bit by /257"}),
    "16-bit grey tiff": (encoded(grey_16(25700), "TIFF"), (100, 100, 100), {"16-bit scaled to 8-bit by /257"}),
    "16-bit grey, colour key": (
        png(*SIZE, 16, 0, rows(struct.pack(">H", 25700)), chunk(b"tRNS", struct.pack(">H", 25700))),
        WHITE,
        {"16-bit scaled to 8-bit by /257", "alpha composited"},
    ),
    "32-bit tiff that fits 16": (
        encoded(flat("I", 25700), "TIFF"),
        (100, 100, 100),
        {"16-bit scaled to 8-bit by /257"},
    ),
    "16-bit rgb": (png(*SIZE, 16, 2, rows(struct.pack(">HHH", 2570, 5140, 65535))), (10, 20, 255), set()),
    # (255 - 51) * (255 - 0) / 255 = 204, and (255 - 102) = 153
    "cmyk tiff": (encoded(flat("CMYK", (51, 102, 0, 0)), "TIFF"), (204, 153, 255), {"CMYK converted"}),
    "cmyk jpeg": (encoded(flat("CMYK", (51, 102, 0, 0)), "JPEG", quality=95), (204, 153, 255), {"CMYK converted"}),
    "ycbcr jpeg": (encoded(flat("RGB", (120, 60, 200)), "JPEG", quality=95), (120, 60, 200), set()),
    "bmp": (encoded(flat("RGB", (1, 2, 3)), "BMP"), (1, 2, 3), set()),
    "gif": (encoded(flat("RGB", RED), "GIF"), RED, set()),
}
if int(PIL.__version__.partition(".")[0]) >= 13:  # before, Pillow cannot read the YCbCr TIFF that it writes
    MODES["ycbcr tiff"] = (encoded(flat("YCbCr", (100, 128, 128)), "TIFF"), (100, 100, 100), set())


@pytest.mark.fault("F05")
@pytest.mark.parametrize("name", MODES)
def test_modes(name):
    data, mean, notes = MODES[name]
    image, found = Decoder().decode(data)
    assert image.mode == "RGB"
    assert image.size == SIZE
    np.testing.assert_allclose(np.asarray(image).mean((0, 1)), mean, atol=1)
    assert found == notes


@pytest.mark.fault("F05")
@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_alpha(mode):
    image = flat("RGBA" if mode == "RGBa" else "LA", (100, 100, 100, 51) if mode == "RGBa" else (100, 51)).convert(mode)
    composited = decoding._to_rgb(image, (0, 0, 0), set())
    np.testing.assert_allclose(np.asarray(composited).mean((0, 1)), 20, atol=1)


def test_background_is_chosen():
    image, _ = Decoder(alpha_background=[0, 128, 255]).decode(encoded(flat("RGBA", (9, 9, 9, 0))))
    assert image.getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.fault("F05")
@pytest.mark.parametrize(
    ("image", "words"),
    [
        (flat("F", 0.5), "float"),
        (flat("I", 65536), "65536"),
        (flat("I", -1), "-1"),
        (flat("LAB", (1, 2, 3)), "LAB"),
    ],
)
def test_modes_without_a_known_range_are_refused(image, words):
    refusal = refused(encoded(image, "TIFF"))
    assert refusal.code == "IMG-MODE"
    assert words in refusal.cause


def refused(data, decoder=None):
    with pytest.raises(BadImage) as raised:
        (decoder or Decoder()).decode(data)
    assert str(raised.value) == f"[{raised.value.code}] {raised.value.cause}"
    return raised.value


CORNERS = np.zeros((16, 24, 3), np.uint8)
CORNERS[:8, :8], CORNERS[:8, 8:], CORNERS[8:, :8] = 250, 170, 90
UPRIGHT = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.transpose(1, 0, 2),
    6: np.rot90(CORNERS, -1),
    7: CORNERS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(CORNERS),
}


@pytest.mark.fault("F06")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", UPRIGHT)
def test_exif_orientation(kind, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    image, notes = Decoder().decode(encoded(Image.fromarray(CORNERS), kind, exif=exif, **options))
    np.testing.assert_allclose(np.asarray(image, int), UPRIGHT[tag], atol=1)
    assert notes == ({"turned by EXIF"} if tag > 1 else set())


@pytest.mark.fault("F06")
@pytest.mark.filterwarnings("ignore:::PIL")  # pytest has put its own filters in the place of the module's
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b""])
def test_exif_that_cannot_be_read_counts_as_absent(exif):
    image, notes = Decoder().decode(encoded(Image.fromarray(CORNERS), "JPEG", exif=exif))
    assert image.size == (24, 16)
    assert notes == set()


def noise(seed=0, size=(40, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


WHOLE = {
    "jpeg": encoded(noise(), "JPEG"),
    "progressive jpeg": encoded(noise(), "JPEG", progressive=True),
    "png": encoded(noise()),
    "gif": encoded(noise(), "GIF"),
    "bmp": encoded(noise(), "BMP"),
    "tiff": encoded(noise(), "TIFF"),
    "lzw tiff": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "webp": encoded(noise(), "WEBP"),
}


@pytest.mark.fault("F01")
@pytest.mark.parametrize("kind", WHOLE)
def test_cut_files_are_named(kind):
    data = WHOLE[kind]
    Decoder().decode(data)
    for kept in [0, 3, 8, 12, 20, 30, 64, len(data) // 4, len(data) // 2, len(data) * 9 // 10, len(data) - 20]:
        refusal = refused(data[:kept])
        assert refusal.code == "IMG-TRUNCATED", kept
        assert refusal.cause


@pytest.mark.fault("F01")
def test_a_png_without_its_end_is_cut():
    assert "end" in refused(WHOLE["png"][:-12]).cause


@pytest.mark.fault("F02")
@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "IMG-TRUNCATED", "empty"),
        (b"<!DOCTYPE html><title>404", "IMG-NOT-IMAGE", "starts with '<!DOCTYPE html><'; looks like a failed download"),
        (b"\n <HTML>", "IMG-NOT-IMAGE", "failed download"),
        (b"<?xml version='1.0'?><Error>AccessDenied", "IMG-NOT-IMAGE", "failed download"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "IMG-NOT-IMAGE", "starts with"),
        (b"BMW is no bitmap, and this is text", "IMG-NOT-IMAGE", "BMW"),
        (b"RIFF\0\0\0\0AVI LIST", "IMG-NOT-IMAGE", "RIFF"),
        (b"plain words", "IMG-NOT-IMAGE", "'plain words'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "IMG-FORMAT", "EPS"),
        (b"8BPS\0\1", "IMG-FORMAT", "PSD"),
        (b"%PDF-1.7", "IMG-FORMAT", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "IMG-FORMAT", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg>", "IMG-FORMAT", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "IMG-FORMAT", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "IMG-FORMAT", "AVIF"),
    ],
)
def test_what_is_no_picture_says_what_it_is(data, code, words):
    refusal = refused(data)
    assert refusal.code == code
    assert words in refusal.cause


@pytest.mark.fault("F09")
@pytest.mark.parametrize("kind", ["PPM", "ICO", "AVIF", "JPEG2000", "TGA", "EPS", "PDF"])
def test_no_other_parser_runs(kind):
    assert refused(encoded(flat("RGB", RED, (32, 32)), kind)).code in ("IMG-FORMAT", "IMG-NOT-IMAGE")


@pytest.mark.fault("F04")
@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (178_956_971, 9)])
def test_bombs_are_refused_from_the_header(width, height):
    refusal = refused(png(width, height, 8, 2))
    assert refusal.code == "IMG-TOO-LARGE"
    assert f"{width:,} x {height:,} px, limit 178,956,970" in refusal.cause


@pytest.mark.fault("F04", "F08")
def test_the_limits_are_those_of_the_decoder():
    data = encoded(flat("L", 0, (20, 10)))
    assert refused(data, Decoder(max_pixels=199)).code == "IMG-TOO-LARGE"
    Decoder(max_pixels=200, min_side=10).decode(data)
    assert refused(data, Decoder(min_side=11)).code == "IMG-SHAPE"
    assert refused(encoded(flat("L", 0, (5000, 1)))).code == "IMG-SHAPE"


@pytest.mark.fault("F04")
def test_huge_text_is_refused():
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * 3_000_000))
    assert refused(png(*SIZE, 8, 0, rows(b"\0"), text)).code == "IMG-TOO-LARGE"


def test_a_jpeg_for_a_thumbnail_comes_smaller_and_upright():
    image = Image.linear_gradient("L").resize((800, 400)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = encoded(image, "JPEG", exif=exif)
    assert Decoder().decode(data).image.size == (400, 800)
    small = Decoder().decode(data, at_least=100).image
    assert small.size == (100, 200)
    whole = Decoder().decode(data).image.resize(small.size)
    np.testing.assert_allclose(np.asarray(small, float), np.asarray(whole, float), atol=4)
    assert Decoder().decode(encoded(image), at_least=100).image.size == (800, 400)  # a PNG has no shorter way


@pytest.mark.fault("F07")
def test_of_several_frames_the_first_is_taken():
    first, second = flat("RGB", RED), flat("RGB", (0, 0, 255))
    for kind in ("GIF", "WEBP", "TIFF", "PNG", "MPO"):
        image, notes = Decoder().decode(encoded(first, kind, save_all=True, append_images=[second]))
        assert notes == {"frame 0 of several used"}, kind
        np.testing.assert_allclose(np.asarray(image).mean((0, 1)), RED, atol=2, err_msg=kind)


QUIET = """
import io, resource, struct, sys, zlib
from PIL import Image
from likeness.images.decoding import BadImage, Decoder
def chunk(name, body): return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
def png(width, height, extra=b"", pixels=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\\x89PNG\\r\\n\\x1a\\n" + header + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
def code(data):
    try: return Decoder().decode(data).image.size
    except BadImage as bad: return bad.code
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert code(png(10_000, 9_500)) == "IMG-TRUNCATED"
assert code(png(30_000, 30_000)) == "IMG-TOO-LARGE"
side = struct.pack("<I", 60_000)[:3]
animation = b"VP8X" + struct.pack("<I", 10) + b"\\2\\0\\0\\0" + side + side
assert code(b"RIFF" + struct.pack("<I", len(animation) + 4) + b"WEBP" + animation).startswith("IMG-T")
twice = chunk(b"acTL", struct.pack(">II", 1, 0)) * 2
assert code(png(8, 8, twice, bytes(72))) == (8, 8)
file = io.BytesIO(); Image.new("L", (9, 9)).save(file, "TIFF", tiffinfo={305: "x" * 99})
data = file.getvalue(); at = data.index(struct.pack("<HHI", 305, 2, 100))
assert code(data[:at + 4] + struct.pack("<I", 2**30) + data[at + 8:]) == (9, 9)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 100_000, grown
"""


@pytest.mark.fault("F04")
def test_nothing_warns_and_bombs_take_no_memory():
    done = subprocess.run([sys.executable, "-W", "error", "-c", QUIET], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_decode_alike():
    files = [encoded(noise(seed), kind) for seed in range(8) for kind in ("JPEG", "PNG", "TIFF", "WEBP")]
    alone = [Decoder().decode(data).image.tobytes() for data in files]
    with ThreadPoolExecutor(4) as pool:
        assert [decoded.image.tobytes() for decoded in pool.map(Decoder().decode, files)] == alone


def test_policy_is_plain_and_of_values():
    assert Decoder(alpha_background=(0, 0, 0)).policy() == {
        "version": 1,
        "alpha_background": [0, 0, 0],
    }
    assert Decoder(max_pixels=10**6, min_side=9).policy() == Decoder().policy()
    assert Decoder(alpha_background=[255, 255, 255]) == Decoder()


def test_faulty_options_are_all_named():
    with pytest.raises(LikenessError) as raised:
        Decoder(max_pixels=0, min_side=0, alpha_background=(0, 0, 256))
    for word in ("CONFIG", "3 options", "max_pixels", "min_side", "alpha_background"):
        assert word in str(raised.value)


def test_white_share_counts_exact_white_in_greyscale():
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[:6], picture[6] = 255, 254
    assert white_share(Image.fromarray(picture)) == 0.6
