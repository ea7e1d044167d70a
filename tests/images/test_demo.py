"""Drawn rooms: the same picture for the same key, a folder that can be completed, neither too easy nor too hard."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import shufflenet_v2_x0_5

import likeness.features
from likeness.errors import LikenessError
from likeness.images import demo
from likeness.images.demo import write_rooms
from likeness.images.drawing import Camera, Solid, back_to_front
from likeness.images.furniture import KINDS, PIECES
from likeness.images.rooms import draw_room

HOMES = 30


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pixels(images: list[Image.Image], side: int) -> np.ndarray:
    return np.stack([np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in images])


def hit_at_1(rows: np.ndarray, labels: np.ndarray) -> float:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    return float((labels[similarity.argmax(axis=1)] == labels).mean())


@pytest.fixture(scope="module")
def stock() -> tuple[list[Image.Image], np.ndarray]:
    """Every kind in `HOMES` homes, as they come back from the files, and the number of each one's kind."""
    keys = [(home, kind) for home in range(HOMES) for kind in KINDS]
    images = [Image.open(io.BytesIO(demo._jpeg(kind, home, 0, 160))).convert("RGB") for home, kind in keys]
    return images, np.array([KINDS.index(kind) for _, kind in keys])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_for_many_seeds(kind: str) -> None:
    pictures = [draw_room(kind, home=seed % 5, seed=seed, size=32 + 8 * seed) for seed in range(12)]
    assert [picture.size for picture in pictures] == [(32 + 8 * seed,) * 2 for seed in range(12)]
    assert {picture.mode for picture in pictures} == {"RGB"}
    assert min(np.asarray(picture).std() for picture in pictures) > 5


def test_a_picture_depends_on_seed_home_and_kind_alone() -> None:
    picture = draw_room("kitchen", 3, 7).tobytes()
    draw_room("entre", 4, 8)
    assert draw_room("kitchen", 3, 7).tobytes() == picture
    others = [draw_room("kitchen", 4, 7), draw_room("kitchen", 3, 8), draw_room("entre", 3, 7)]
    assert picture not in [other.tobytes() for other in others]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        draw_room("garage", 0, 0)


def test_more_homes_only_add_pictures(tmp_path: Path) -> None:
    write_rooms(tmp_path / "few", homes=1, seed=5, size=40)
    write_rooms(tmp_path / "more", homes=2, seed=5, size=40)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert sorted(few) == [".recipe.json", *(f"{kind}/home0000_{kind}.jpg" for kind in KINDS)]
    assert len(more) == 13
    assert few == {name: more[name] for name in few}


def test_a_half_written_folder_is_completed_and_the_rest_left_alone(tmp_path: Path, monkeypatch) -> None:
    write_rooms(tmp_path, homes=2, seed=1, size=40)
    whole = contents(tmp_path)
    (tmp_path / "kitchen/home0001_kitchen.jpg").unlink()
    (tmp_path / "entre/home0000_entre.jpg").write_bytes(b"")
    drawn = []
    original = demo._jpeg
    monkeypatch.setattr(demo, "_jpeg", lambda *key: drawn.append(key) or original(*key))
    write_rooms(tmp_path, homes=2, seed=1, size=40)
    assert drawn == [("entre", 0, 1, 40), ("kitchen", 1, 1, 40)]
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("other", [{"seed": 2, "size": 40}, {"seed": 1, "size": 48}])
def test_another_recipe_is_refused_and_nothing_is_written(tmp_path: Path, other: dict[str, int]) -> None:
    write_rooms(tmp_path, homes=1, seed=1, size=40)
    before = contents(tmp_path)
    with pytest.raises(LikenessError, match="DATA-LAYOUT") as refusal:
        write_rooms(tmp_path, homes=2, **other)
    assert "another folder" in refusal.value.fix
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["holiday.jpg", ".recipe.json"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(LikenessError, match="other files"):
        write_rooms(tmp_path, homes=1)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_disk_that_fails_leaves_nothing_half_written(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo.os, "replace", fail)
    (tmp_path / "bath_room").mkdir()
    with pytest.raises(LikenessError, match="DISK"):
        demo._write_whole(tmp_path / "bath_room/home0000_bath_room.jpg", b"data")
    assert contents(tmp_path) == {}


def test_a_point_falls_where_similar_triangles_say() -> None:
    straight = Camera(eye=(1.0, 1.5, 0.0), yaw=0.0, pitch=0.0, focal=0.8, centre=(0.5, 0.5))
    right, up, forward = straight.turned(np.array([[2.0, 0.5, 4.0]]))[0].tolist()
    assert (right, up, forward) == (1.0, -1.0, 4.0)
    assert straight.flat(right, up, forward) == pytest.approx((0.7, 0.7))
    to_the_right = Camera(eye=(0.0, 0.0, 0.0), yaw=np.pi / 2, pitch=0.0, focal=1.0, centre=(0.5, 0.5))
    np.testing.assert_allclose(to_the_right.turned(np.array([[3.0, 0.0, 0.0]])), [[0, 0, 3]], atol=1e-12)


def test_what_can_be_hidden_is_painted_first() -> None:
    """A long shelf on the left has its middle nearer than the chair before its far end, which hides it all the same."""
    shelf, chair = Solid((0, 0, 1), (1, 2, 9), []), Solid((1, 0, 7), (2, 1, 8), [])
    assert back_to_front([chair, shelf], eye=(3, 1.5, 0)) == [shelf, chair]


def test_pieces_lean_on_pieces_that_come_before_them() -> None:
    names = list(PIECES)
    for name, piece in PIECES.items():
        assert all(names.index(other) < names.index(name) for other in piece.near[1:]), name


def test_colour_does_not_give_the_kind_away(stock) -> None:
    images, labels = stock
    bins = pixels(images, 144).reshape(len(images), -1, 3).astype(int) // 64 @ (16, 4, 1)
    histograms = np.stack([np.bincount(row, minlength=64) for row in bins]).astype(float)
    mean = pixels(images, 144).mean(axis=(1, 2))
    assert hit_at_1(histograms, labels) < 0.35
    assert hit_at_1(mean - mean.mean(axis=0), labels) < 0.35


def test_frozen_features_find_the_kind_more_often_than_chance_and_not_always(stock) -> None:
    images, labels = stock
    weights = Path(likeness.features.__file__).parent / "bundled/shufflenet_rooms.safetensors"
    network = shufflenet_v2_x0_5()
    network.fc = torch.nn.Identity()
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()})
    network.eval()
    normal = (pixels(images, 144) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        features = network(torch.tensor(normal, dtype=torch.float32).permute(0, 3, 1, 2)).numpy()
    assert 0.4 < hit_at_1(features, labels) < 0.80


@pytest.mark.parametrize("picture", ["kitchen/home1.jpg", "train/kitchen/home1.JPG"])
def test_nothing_is_drawn_among_the_pictures_of_somebody_who_forgot_data_folder(tmp_path: Path, picture: str) -> None:
    (tmp_path / picture).parent.mkdir(parents=True)
    (tmp_path / picture).touch()
    with pytest.raises(LikenessError, match=r"CONFIG(.|\n)*data=folder data.root="):
        demo.DrawnRooms(str(tmp_path), homes=10, size=32).table()
    assert list(contents(tmp_path)) == [picture]


def test_rooms_of_another_recipe_may_be_drawn_beside_those_that_are_there(tmp_path: Path) -> None:
    for seed in (0, 1):
        table = demo.DrawnRooms(str(tmp_path), homes=10, seed=seed, size=32).table()
        assert len(table) == 10 * len(KINDS)
