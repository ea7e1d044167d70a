"""Pictures small enough to lie inside a page."""

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from PIL import Image

from likeness.images.decoding import BadImage, Decoder
from likeness.images.thumbnail import small_jpeg

_LONGER_SIDE = 96  # pixels
_QUALITY = 70
_AT_ONCE = 64
_SHAPES = (2 / 3, 3 / 2)  # width over height that frames may have
_START = "data:image/jpeg;base64,"


def thumbnails(paths: Sequence[Path], most_bytes: int) -> Iterator[str | None]:
    """Each picture as a data URI, None where it cannot be read; ends before their sum passes ``most_bytes``."""
    left = most_bytes
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _AT_ONCE):
            for found in pool.map(_thumbnail, paths[start : start + _AT_ONCE]):
                left -= len(found or "")
                if left < 0:
                    return
                yield found


def _thumbnail(path: Path) -> str | None:
    try:
        image = Decoder(min_side=1).decode(path.read_bytes(), at_least=2 * _LONGER_SIDE).image
    except (OSError, ValueError, BadImage):  # gone, unreadable, no path at all, no picture
        return None
    return _START + base64.b64encode(small_jpeg(image, _LONGER_SIDE, _QUALITY)).decode()


def common_shape(pictures: Sequence[str]) -> float:
    """Width over height that most of some thumbnails have, from 2/3 to 3/2; 1 of none."""
    opened = (Image.open(io.BytesIO(base64.b64decode(picture.removeprefix(_START)))) for picture in pictures)
    return min(max(median([image.width / image.height for image in opened] or [1.0]), _SHAPES[0]), _SHAPES[1])
