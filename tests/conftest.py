"""What several rooms' tests need: small folders of generated pictures, and the real photos where they are at hand."""

import os
from pathlib import Path

import hypothesis
import pytest
from helpers import SHARED, draw_striped

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # every number below is of the CPU
os.environ["WANDB_MODE"] = "offline"
hypothesis.settings.register_profile("patient", deadline=None)  # what a test takes depends on what else runs
hypothesis.settings.load_profile("patient")


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
