"""Where things lie, and a picture that any test can draw."""

from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def draw_striped(path: Path, period: int, seed: int, size: int = 32) -> None:
    """A picture whose class is the period of its stripes; phase, colours and noise are chance."""
    rng = np.random.default_rng([period, seed])
    wave = np.sin(2 * np.pi * (np.arange(size) / period + rng.random()))[None, :, None]
    pixels = 127 + 60 * wave * rng.uniform(0.5, 1, 3) + rng.normal(0, 15, (size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
