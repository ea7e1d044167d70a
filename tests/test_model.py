"""A trained model: whatever a picture is given as, its code is the same, and what is no picture is named."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import draw_striped
from PIL import Image
from small_model import SIZE, modelled

import likeness
from likeness.errors import LikenessError
from likeness.heads.dense import Dense
from likeness.model import Model
from likeness.model import _several as several


@pytest.fixture(scope="module")
def model() -> Model:
    return modelled(lambda shape: Dense(shape, [4]))


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{period}.png" for period in range(4, 24)]
    for path in paths:
        draw_striped(path, int(path.stem), 0, size=40)
    return paths


def test_importing_likeness_takes_no_torch_with_it():
    told = "import sys, likeness; print(callable(likeness.load), 'torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_a_code_is_what_numpy_makes_of_the_pixels(model, pictures):
    """By hand: pixels, normalised, through the network; the feature, scaled, through the encoder's one layer."""
    pixels = np.asarray(Image.open(pictures[0]).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    planes = ((pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    feature = model.extractor.backbone(torch.from_numpy(planes[None]).float())[0].numpy()
    state = {name: value.numpy() for name, value in model.head.state_dict().items()}
    scaled = (feature - state["scaling.offset"]) / state["scaling.factor"]
    expected = state["head.encoder.0.weight"] @ scaled + state["head.encoder.0.bias"]
    assert model.encode(pictures[:1])[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_path_its_bytes_its_image_and_its_array_have_one_code(model, pictures):
    path = pictures[0]
    image = Image.open(path)
    codes = model.encode([path, str(path), path.read_bytes(), image, np.asarray(image)])
    assert codes.dtype == np.float32
    assert codes.shape == (5, model.width) == (5, 4)
    assert (codes == codes[0]).all()


def test_an_opened_image_follows_the_rules_of_a_file(model, tmp_path):
    image = Image.new("RGBA", (40, 30), (200, 0, 0, 128))
    image.save(tmp_path / "clear.png")
    turned = Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    for path, opened in (
        (tmp_path / "clear.png", image),
        (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")),
    ):
        assert (model.encode([path]) == model.encode([opened])).all(), path


def test_pictures_come_in_the_order_given_whatever_the_batch(model, pictures):
    codes = model.encode(pictures)
    assert len(np.unique(codes, axis=0)) == len(pictures) == 20
    for order in (pictures, pictures[::-1]):
        one_by_one = np.concatenate([model.encode([path]) for path in order])
        assert np.allclose(model.encode(iter(order), batch_size=3), one_by_one, atol=1e-6)
    assert (model.codes(model.extractor(model.pixels(pictures))).numpy() == model.encode(pictures, 20)).all()


def test_a_stack_of_arrays_is_several_pictures(model, pictures):
    stack = np.stack([np.asarray(Image.open(path)) for path in pictures[:3]])
    assert (model.encode(stack) == model.encode(pictures[:3])).all()


def test_of_no_pictures_there_are_no_codes(model):
    assert model.encode([]).shape == (0, 4)
    assert model.frozen().encode([]).shape == (0, 12)
    assert model.pixels([]).shape == (0, SIZE, SIZE, 3)


def test_all_that_is_no_picture_is_named_at_once(model, pictures, tmp_path):
    """In whatever batch it is; a picture is named by its path, or else by its place."""
    (tmp_path / "page.jpg").write_text("<html>")
    truncated = pictures[0].read_bytes()[:200]
    given = [*pictures, tmp_path / "page.jpg", truncated, np.zeros((40, 40, 3)), tmp_path / "none.jpg"]
    given += [np.zeros((3, 40, 40), np.uint8), np.zeros((40, 40), np.uint8), np.zeros((2, 2, 3), np.uint8), *pictures]
    with pytest.raises(LikenessError, match=r"7 of 47 pictures cannot be used") as caught:
        model.encode(given, batch_size=4)
    assert caught.value.code == "IMG-BAD"
    page, cut, wrong_type, missing, wrong_order, flat, small = caught.value.where.splitlines()
    assert f"{tmp_path / 'page.jpg'}: [IMG-NOT-IMAGE]" in page
    assert "picture 21: [IMG-TRUNCATED]" in cut
    assert wrong_type == ("picture 22: [IMG-SHAPE] an array must be uint8 [height, width, 3], not float64 [40, 40, 3]")
    assert "No such file" in missing
    assert wrong_order.endswith("not uint8 [3, 40, 40]")
    assert flat.endswith("not uint8 [40, 40]")
    assert "picture 26: [IMG-SHAPE] 2 x 2 px" in small


def test_files_that_are_not_there_are_missing_data(model, tmp_path):
    with pytest.raises(LikenessError, match="DATA-MISSING") as caught:
        model.encode([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert [line.split(":")[0] for line in caught.value.where.splitlines()] == [
        str(tmp_path / "a.jpg"),
        str(tmp_path / "b.jpg"),
    ]


def test_a_single_picture_is_not_taken_for_its_letters_or_its_rows(model):
    for single in ("photo.jpg", np.zeros((40, 40, 3), np.uint8)):
        with pytest.raises(LikenessError, match=f"several pictures are asked for; this is one {type(single).__name__}"):
            model.encode(single)
    for single in (Path("photo.jpg"), b"\xff\xd8", Image.new("RGB", (9, 9))):  # not even iterable as pictures
        with pytest.raises(LikenessError) as caught:
            several(single)
        assert "encode([picture])" in caught.value.fix


def test_an_onnx_file_is_not_loaded(tmp_path):
    with pytest.raises(LikenessError, match="CKPT-SCHEMA") as caught:
        likeness.load(tmp_path / "a.onnx")
    assert "onnxruntime" in caught.value.fix


def test_the_image_is_read_whole_before_it_is_refused(model):
    """What Pillow has opened it may not yet have read."""
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(data, "JPEG")
    half = Image.open(io.BytesIO(data.getvalue()[: len(data.getvalue()) // 2]))
    with pytest.raises(LikenessError, match="IMG-BAD") as caught:
        model.encode([half])
    assert "picture 0: [IMG-TRUNCATED]" in caught.value.where
