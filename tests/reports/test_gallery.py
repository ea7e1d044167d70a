from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from PIL import Image

from likeness.reports import gallery
from likeness.reports.gallery import GalleryRow, HomePictures, HomeRow, Picture, draw_gallery, draw_homes


@pytest.fixture
def photo(tmp_path):
    def make(name: str, width: int = 64, height: int = 48) -> Path:
        Image.new("RGB", (width, height), "teal").save(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def row(photo):
    neighbours = [
        Picture(photo("a.png"), "kitchen", 0.91234, True),
        Picture(photo("b.png", 30, 300), "bed$room", -0.0456, False),
        Picture(photo("c.png", 300, 30), "entre"),
    ]
    return GalleryRow(Picture(photo("q.png"), "kitchen"), neighbours, "first right neighbour at rank 1")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def frame(axes) -> str:
    return to_hex(axes.spines["left"].get_edgecolor())


def test_a_row_shows_query_note_label_mark_and_similarity(row):
    figure = gallery._gallery([row], "the title", Image.open)
    assert figure.texts[0].get_text() == "the title"
    assert [axes.get_title() for axes in figure.axes] == ["query", "nearest 1", "nearest 2", "nearest 3"]
    assert [texts(axes) for axes in figure.axes] == [
        ["kitchen", "first right neighbour at rank 1"],
        ["✓", "kitchen", "0.912"],
        ["✗", r"bed\$room", "−0.046"],
        ["entre"],
    ]


def test_right_wrong_and_query_have_frames_of_their_own(row):
    frames = [frame(axes) for axes in gallery._gallery([row], "", Image.open).axes]
    assert len(set(frames)) == 4
    assert frames[1:3] == ["#007a57", "#c8321e"]


def test_the_query_is_set_apart(row):
    boxes = [axes.get_position() for axes in gallery._gallery([row], "", Image.open).axes]
    gaps = [right.x0 - left.x1 for left, right in pairwise(boxes)]
    assert gaps[0] > 3 * gaps[1]


def test_pictures_of_every_shape_are_whole_on_grounds_of_one_size(photo):
    paths = [photo("a.png", 400, 300), photo("b.png", 40, 30), photo("c.png", 30, 300), photo("d.png", 800, 600)]
    canvases = gallery._canvases(paths, Image.open)
    assert {canvas.image.size for canvas in canvases.values()} == {(360, 270)}
    tall = canvases[paths[2]].image
    assert [tall.getpixel((180, y)) for y in (0, 269)] == [(0, 128, 128)] * 2
    assert tall.getpixel((0, 135)) == tall.getpixel((359, 135)) == (246, 246, 246)


def test_portraits_get_portrait_frames(photo):
    canvases = gallery._canvases([photo("a.png", 300, 400), photo("b.png", 10, 500), photo("c.png", 3, 4)], Image.open)
    assert {canvas.image.size for canvas in canvases.values()} == {(270, 360)}


def test_a_picture_that_cannot_be_opened_is_a_grey_box_with_its_name(row, tmp_path, caplog):
    missing, cut = tmp_path / "missing.jpg", tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "a.png").read_bytes()[:60])
    broken = GalleryRow(Picture(missing, "kitchen"), [Picture(cut, "kitchen", 0.5, True)])
    figure = gallery._gallery([row, broken], "", Image.open)
    assert [texts(axes)[0] for axes in figure.axes[-2:]] == [
        "cannot be opened\nmissing.jpg",
        "cannot be opened\ncut.png",
    ]
    assert len(caplog.records) == 2


def test_whatever_the_decoder_raises(row, tmp_path):
    def refuse(path: Path) -> Image.Image:
        raise RuntimeError("no decoder today")

    draw_gallery([row], "all grey", tmp_path / "out.png", refuse)
    with Image.open(tmp_path / "out.png") as image:
        assert image.format == "PNG"


def test_each_file_is_opened_once(row):
    opened = []

    def count(path: Path) -> Image.Image:
        opened.append(path.name)
        return Image.open(path)

    gallery._gallery([row, row], "", count)
    assert sorted(opened) == ["a.png", "b.png", "c.png", "q.png"]


@pytest.mark.parametrize("rows", [1, 12])
def test_pictures_keep_their_size_whatever_the_number_of_rows(row, rows, tmp_path):
    figure = gallery._gallery([row] * rows, "", Image.open)
    width, height = figure.get_size_inches()
    box = figure.axes[0].get_position()
    assert box.height * height == pytest.approx(1.35, rel=0.05)
    assert box.width * width == pytest.approx(1.8, rel=0.05)
    draw_gallery([row] * rows, "", tmp_path / "out.png", Image.open)


def test_more_than_five_neighbours_are_not_shown(photo):
    row = GalleryRow(Picture(photo("q.png"), "a"), [Picture(photo("n.png"), "a", 0.9, True)] * 7)
    assert len(gallery._gallery([row], "", Image.open).axes) == 6


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rows is empty"):
        draw_gallery([], "", tmp_path / "out.png", Image.open)
    assert not (tmp_path / "out.png").exists()


def test_a_row_of_homes_shows_halves_and_what_was_found_with_marks(photo):
    four = [photo(f"{i}.png") for i in range(4)]
    found = [HomePictures("home2", four[2:], 0.5, False), HomePictures("home1", four[1:2], -0.25, True)]
    row = HomeRow(HomePictures("home1", four), HomePictures("home1", four[1:2]), found, "its other half at rank 2 of 9")
    axes = gallery._homes([row, row], "the title", Image.open).axes
    assert len(axes) == 2 * (3 + 1 + 2 + 1)  # three of a home's four pictures
    heads = [each.get_title(loc="left") for each in axes[:7]]
    assert heads == ["half of a home", "", "", "its other half", "nearest 1", "", "nearest 2"]
    assert [texts(each) for each in axes[:7]] == [
        ["home1 (3 of 4)", "its other half at rank 2 of 9"],
        [],
        [],
        ["home1"],
        ["✗", "home2"],
        ["0.500"],
        ["✓", "home1", "−0.250"],
    ]
    assert len({frame(each) for each in axes[:7]}) == 3


def test_a_figure_of_no_homes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rows is empty"):
        draw_homes([], "", tmp_path / "a.png", Image.open)
