"""What several rooms' tests need: small folders of generated pictures, and the real photos where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # every number below is of the CPU
os.environ["WANDB_MODE"] = "offline"
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def draw_striped(path: Path, period: int, seed: int, size: int = 32) -> None:
    """A picture whose class is the period of its stripes; phase, colours and noise are chance."""
    rng = np.random.default_rng([period, seed])
    wave = np.sin(2 * np.pi * (np.arange(size) / period + rng.random()))[None, :, None]
    pixels = 127 + 60 * wave * rng.uniform(0.5, 1, 3) + rng.normal(0, 15, (size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``root/class/homeNNN.png``: three classes of 20 pictures, 20 homes of three."""
    for period, name in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for home in range(20):
            draw_striped(tmp_path / "photos" / name / f"home{home:03d}.png", period, home)
    return tmp_path / "photos"


@pytest.fixture
def rooms() -> Path:
    """Real photos of six kinds of room, in splits."""
    folder = SHARED / "data" / "rooms"
    if not folder.is_dir():
        pytest.skip("the folder of real photos, ../shared/data/rooms, is not here")
    return folder


@pytest.fixture
def squeezenet_weights() -> Path:
    path = SHARED / "weights" / "squeezenet1_1-imagenet.safetensors"
    if not path.is_file():
        pytest.skip("real ImageNet weights, ../shared/weights, are not here")
    return path
