"""A picture as a small JPEG, to be looked at."""

import io

from PIL import Image


def small_jpeg(image: Image.Image, longer_side: int, quality: int) -> bytes:
    """The whole picture, its longer side at most that many pixels; a smaller one keeps its size."""
    image = image.copy()
    image.thumbnail((longer_side, longer_side), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=quality, optimize=True)
    return packed.getvalue()
