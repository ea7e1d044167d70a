"""Files and folders as a table."""

import pytest
from PIL import Image

from likeness.errors import LikenessError
from likeness.images.listing import list_pictures


@pytest.fixture
def photos(tmp_path):
    for name in ("kitchen/home1.jpg", "kitchen/deep/home2.jpg", "bath/home1.jpg", "front.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    return tmp_path


def labels_of(table) -> dict:
    return {
        path: table.classes[label] if label >= 0 else "" for path, label in zip(table.paths, table.labels, strict=True)
    }


def test_the_first_folder_below_a_place_is_the_label(photos):
    assert labels_of(list_pictures([photos])) == {
        "bath/home1.jpg": "bath",
        "front.png": "",
        "kitchen/deep/home2.jpg": "kitchen",
        "kitchen/home1.jpg": "kitchen",
    }


def test_a_file_has_no_label_and_counts_once(photos):
    table = list_pictures([photos / "front.png", photos / "kitchen" / "home1.jpg", photos / "front.png"])
    assert (table.root, labels_of(table)) == (photos, {"front.png": "", "kitchen/home1.jpg": ""})


def test_a_label_and_a_home_may_be_given_for_all(photos):
    table = list_pictures([photos / "kitchen", photos / "front.png"], label="room", home="h7")
    assert set(labels_of(table).values()) == {"room"}
    assert [table.home_names[home] for home in table.homes] == ["h7"] * 3


def test_homes_are_found_in_file_names(photos):
    table = list_pictures([photos], home_pattern=r"home\d")
    assert [table.home_names[home] if home >= 0 else "" for home in table.homes] == ["home1", "", "home2", "home1"]


def test_a_home_pattern_that_is_none_is_refused_in_words(photos):
    with pytest.raises(LikenessError, match=r"CONFIG(.|\n)*home_pattern: 'home\(' is no regular expression"):
        list_pictures([photos], home_pattern="home(")


def test_what_is_not_there_is_refused_by_name(photos):
    with pytest.raises(LikenessError, match=r"DATA-MISSING.*\n.*nowhere"):
        list_pictures([photos, photos / "nowhere"])
    (photos / "empty").mkdir()
    with pytest.raises(LikenessError, match="DATA-LAYOUT"):
        list_pictures([photos / "empty"])
