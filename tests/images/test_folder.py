import hashlib
import logging
import os
import socket
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from likeness.errors import LikenessError
from likeness.images.folder import ImageFolder, digests, report_duplicates, walk


def lay(root, *paths):
    """Files of a dataset; what they contain is their own path, for nothing here decodes them."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(path))
    return str(root)


def many(folder, count, suffix=".jpg"):
    return [f"{folder}/{i:03}{suffix}" for i in range(count)]


def by_split(table):
    return {split: table.paths[table.splits == split].tolist() for split in np.unique(table.splits).tolist()}


def refused(code, **options):
    with pytest.raises(LikenessError) as raised:
        ImageFolder(**options).table()
    assert raised.value.code == code
    return str(raised.value)


def test_split_layout(tmp_path):
    root = lay(
        tmp_path,
        *many("train/cat", 2),
        *many("train/dog/puppies/small", 2),
        *many("validation/cat", 2),
        *many("test/dog", 2, ".PNG"),
        "test/cat/a.webp",
        "test/cat/b.tiff",
    )
    table = ImageFolder(root).table()
    assert table.classes == ("cat", "dog")
    assert by_split(table) == {
        "test": ["test/cat/a.webp", "test/cat/b.tiff", "test/dog/000.PNG", "test/dog/001.PNG"],
        "train": ["train/cat/000.jpg", "train/cat/001.jpg", *many("train/dog/puppies/small", 2)],
        "val": many("validation/cat", 2),
    }
    assert table.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    assert table.sample_ids.tolist() == list(range(10))
    assert table.is_query.all()
    assert table.is_gallery.all()
    assert set(table.homes.tolist()) == {-1}


def test_val_is_carved_out_of_train(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = lay(tmp_path, *many("train/a", 8), *many("train/b", 4), *many("test/a", 2), *many("test/b", 2))
    splits = {split: len(paths) for split, paths in by_split(ImageFolder(root).table()).items()}
    assert splits == {"train": 9, "val": 3, "test": 4}
    assert "3 of 12 train images become val (seed 0)" in caplog.text


def test_flat_layout_is_split_by_names_alone(tmp_path):
    paths = [*many("a", 10), *many("b", 5)]
    one = ImageFolder(lay(tmp_path / "one", *paths)).table()
    other = ImageFolder(lay(tmp_path / "elsewhere/two", *reversed(paths))).table()
    assert by_split(one) == by_split(other)
    assert Counter(zip(one.splits.tolist(), one.labels.tolist(), strict=True)) == {
        ("train", 0): 6, ("val", 0): 2, ("test", 0): 2, ("train", 1): 3, ("val", 1): 1, ("test", 1): 1,
    }  # fmt: skip
    assert by_split(ImageFolder(str(tmp_path / "one"), seed=1).table()) != by_split(one)


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled"])
@pytest.mark.parametrize("layout", [["a", "b"], ["train/a", "train/b", "val/a", "val/b"]])
def test_unlabelled_pictures_join_on_request(tmp_path, name, layout):
    root = lay(tmp_path, *(path for folder in layout for path in many(folder, 3)), *many(f"{name}/deep", 4))
    without, table = ImageFolder(root).table(), ImageFolder(root, unlabelled=True).table()
    assert len(table) == len(without) + 4
    assert table.classes == without.classes == ("a", "b")
    some = table.of_split("unlabelled")
    assert some.labels.tolist() == [-1] * 4
    assert some.paths.tolist() == many(f"{name}/deep", 4)
    labelled = table.take(table.labels >= 0)
    assert by_split(labelled) == by_split(without)


def test_selection_keeps_ids_and_classes(tmp_path):
    table = ImageFolder(lay(tmp_path, *many("a", 3), *many("b", 3))).table()
    some = table.take(np.array([5, 1]))
    assert some.sample_ids.tolist() == [5, 1]
    assert some.classes == table.classes
    assert some.files() == [tmp_path / "b/002.jpg", tmp_path / "a/001.jpg"]
    assert some.path(1) == tmp_path / "a/001.jpg"
    assert len(some.take(some.labels == 0)) == 1


@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["notes.txt"], ["no image lies in a class folder", "no folders"]),
        (many(".", 12), ["12 images directly in", "(12 images directly in it)", "<root>/<class>/*.jpg"]),
        (["a/notes.txt"], ["no image lies in a class folder", "a/ (0 images)"]),
        (many("train/a", 3), ["train/ and at least one of val/ and test/", "train/ (3 images)"]),
        ([*many("val/a", 3), *many("test/a", 3)], ["train/ and at least one", "test/ (3 images)"]),
        ([*many("train", 3), *many("test", 3)], ["no image lies in a class folder", "train/ (3 images)"]),
        ([*many("train/a", 3), *many("val/a", 3), *many("valid/a", 3)], ["two folders", "valid/ (3 images)"]),
        (many("a", 3), ["1 class with", "only class is 'a'"]),
        (many("unlabelled", 3), ["no image"]),
    ],
)
def test_layouts_that_are_refused_show_what_was_found(tmp_path, paths, words):
    message = refused("DATA-LAYOUT", root=lay(tmp_path, *paths))
    for word in [*words, str(tmp_path), "fix   :", "exit 65"]:
        assert word in message


@pytest.mark.fault("F10")
def test_no_folder(tmp_path):
    assert "does not exist" in refused("DATA-MISSING", root=str(tmp_path / "nowhere"))
    assert "is a file" in refused("DATA-MISSING", root=lay(tmp_path, "a.jpg") + "/a.jpg")
    (tmp_path / "empty").mkdir()
    refused("DATA-LAYOUT", root=str(tmp_path / "empty"))


@pytest.mark.fault("F10", "F11")
def test_strays_and_odd_classes_are_said(tmp_path, caplog):
    (tmp_path / "val/empty").mkdir(parents=True)
    ImageFolder(
        lay(
            tmp_path, *many("train/a", 3), *many("train/b", 3), "val/a/x.jpg", *many("val/c", 2), "val/y.jpg", "z/w.jpg"
        )
    ).table()
    assert "2 images lie in no class and are left out (first: val/y.jpg)" in caplog.text
    assert "[DATA-CLASS] without images: val/empty" in caplog.text
    assert '[DATA-CLASS] in val, 1 image each of "a": it can never be retrieved' in caplog.text
    assert '[DATA-CLASS] in val but not in train: "c"' in caplog.text


def test_a_class_may_be_called_train(tmp_path, caplog):
    table = ImageFolder(lay(tmp_path, *many("train", 5), *many("plane", 5))).table()
    assert table.classes == ("plane", "train")
    assert "read as classes" in caplog.text


@pytest.mark.fault("F12", "F13")
def test_what_is_no_picture_is_counted_and_never_opened(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    root = lay(tmp_path, *many("a", 4), *many("b", 4), "a/.hidden.jpg", ".git/x.jpg", "a/n.txt", "b/m.TXT", "b/LICENSE")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    (tmp_path / "a/gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a/itself.jpg").symlink_to("itself.jpg")
    (tmp_path / "b/folder.jpg").mkdir()
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("b/socket.jpg")
    started = time.monotonic()
    table = ImageFolder(root).table()
    assert time.monotonic() - started < 5
    assert table.paths.tolist() == [*many("a", 4), *many("b", 4)]
    names = "a/gone.jpg, a/itself.jpg, a/pipe.jpg, b/folder.jpg, b/socket.jpg"
    assert f"[DATA-SPECIAL] 5 pipes, dead links and the like were not opened: {names}" in caplog.text
    assert "skipped 3 files: .txt 2, (none) 1" in caplog.text


@pytest.mark.fault("F13")
def test_links_are_followed_but_not_in_circles(tmp_path):
    lay(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
    found = walk(tmp_path)
    assert found.images == ["a/1.jpg", "a/to_b/2.jpg", "b/2.jpg", "b/to_a/1.jpg"]
    assert found.special == ["a/to_b/to_a", "a/to_b/up", "b/to_a/to_b", "b/up"]


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    root = lay(tmp_path, *many("a", 2), *many("b", 2))
    scandir = os.scandir

    def locked(folder):
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    assert f"{tmp_path}/b cannot be listed" in refused("DATA-MISSING", root=root)


@pytest.mark.fault("F14")
def test_names_that_are_no_text_survive(tmp_path, caplog):
    for folder in ("a", "b"):
        for name in (b"caf\xe9.jpg", b"plain.jpg"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Path(os.fsdecode(os.fsencode(tmp_path / folder) + b"/" + name)).write_bytes(b"same")
    table = ImageFolder(str(tmp_path), fractions=[0.4, 0.3, 0.3]).table()
    assert all(file.exists() for file in table.files())
    assert report_duplicates(table, digests(table.files(), 1))
    caplog.text.encode()


@pytest.mark.fault("F14")
def test_names_that_differ_in_case_or_in_an_accents_spelling_are_different_and_said(tmp_path, caplog):
    composed, apart = "caf\u00e9", "cafe\u0301"
    paths = ["Cat/a.jpg", "Cat/A.JPG", "cat/a.jpg", "dog/b.jpg", f"{composed}/c.jpg", f"{apart}/c.jpg"]
    table = ImageFolder(lay(tmp_path, *paths)).table()
    assert table.classes == ("Cat", apart, composed, "cat", "dog")
    assert sorted(table.paths.tolist()) == sorted(paths)
    said = f"classes of their own, though only case or accents differ: 'Cat' and 'cat', '{apart}' and '{composed}'"
    assert f"[DATA-CLASS] {said}" in caplog.messages


@pytest.mark.parametrize("pattern", [r"home(\d+)", r"(?P<kind>h)ome(?P<home>\d+)", r"\d+(?=_)"])
def test_homes_are_in_the_file_name_and_stay_together(tmp_path, pattern, caplog):
    kinds = ("7/bath", "7/bed")
    paths = [f"{kind}/home{home:02}_{i}.jpg" for kind in kinds for home in range(20) for i in range(2)]
    root = lay(tmp_path, *paths, "7/bath/plan.jpg", *many("8/other", 3))
    table = ImageFolder(root, home_pattern=pattern).table()
    assert table.home_names == tuple(f"{home:02}" for home in range(20))
    assert "4 files have no home (first: 7/bath/plan.jpg)" in caplog.text
    assert (table.homes == -1).sum() == 4
    for home in range(20):
        assert len(np.unique(table.splits[table.homes == home])) == 1


def test_homes_found_nowhere(tmp_path):
    message = refused("DATA-HOMES", root=lay(tmp_path, *many("home1", 3), *many("home2", 3)), home_pattern="home(.)")
    assert "none of 6 file names" in message
    assert "'000.jpg'" in message


@pytest.mark.fault("F14")
def test_homes_in_two_given_splits_are_said(tmp_path, caplog):
    homes = ("train/a/1", "train/b/2", "val/a/1", "val/b/3", "test/a/4", "test/b/5")
    paths = [f"{home}_{i}.jpg" for home in homes for i in "xy"]
    ImageFolder(lay(tmp_path, *paths), home_pattern=r"\d").table()
    assert caplog.messages == ["[DATA-LEAK] homes in both train and val: 1 (first: 1)"]


def test_faulty_options_are_all_named():
    with pytest.raises(LikenessError) as raised:
        ImageFolder("x", home_pattern="(", fractions=[0.5, 0.2, 0.2], mostly_white=69.0)
    for words in ("3 options", "'(' is no regular expression", "sum 1, not [0.5, 0.2, 0.2]", "mostly_white", "exit 78"):
        assert words in str(raised.value)


def test_digests(tmp_path):
    paths = [*many("a", 70), *many("b", 70)]
    lay(tmp_path, *paths)
    rows = digests([tmp_path / path for path in paths], workers=3)
    assert rows.shape == (140, 32)
    assert [row.tobytes() for row in rows] == [hashlib.sha256(path.encode()).digest() for path in paths]
    assert digests([], workers=1).shape == (0, 32)


@pytest.mark.fault("F15")
def test_digests_of_files_that_went(tmp_path):
    lay(tmp_path, *many("a", 5))
    (tmp_path / "b").mkdir()
    with pytest.raises(LikenessError, match="DATA-CHANGED") as raised:
        digests([tmp_path / "a/000.jpg", tmp_path / "gone.jpg", tmp_path / "b"], workers=2)
    assert "2 of 3 files" in str(raised.value)
    assert f"{tmp_path}/gone.jpg" in str(raised.value)
    with pytest.raises(LikenessError, match="DATA-MISSING"):
        digests([tmp_path / "b"], workers=2)


@pytest.mark.fault("F14")
def test_duplicates(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    content = {
        "train/a/1.jpg": "x", "train/a/2.jpg": "x", "train/b/3.jpg": "y", "train/b/4.jpg": "only",
        "val/a/1.jpg": "x", "val/a/2.jpg": "y", "val/b/1.jpg": "z", "val/b/2.jpg": "z",
        "test/a/1.jpg": "x", "test/b/1.jpg": "else",
    }  # fmt: skip
    lay(tmp_path, *content)
    for path, text in content.items():
        (tmp_path / path).write_text(text)
    table = ImageFolder(str(tmp_path)).table()
    pairs = report_duplicates(table, digests(table.files(), 2))
    assert sorted(pairs) == [
        ("train/a/1.jpg", "test/a/1.jpg"),
        ("train/a/1.jpg", "val/a/1.jpg"),
        ("train/b/3.jpg", "val/a/2.jpg"),
        ("val/a/1.jpg", "test/a/1.jpg"),
    ]
    assert (
        "[DATA-LEAK] 2 images are in both train and val (first: train/a/1.jpg = val/a/1.jpg); "
        "1 image is in both train and test (first: train/a/1.jpg = test/a/1.jpg); "
        "1 image is in both val and test (first: val/a/1.jpg = test/a/1.jpg)"
    ) in caplog.messages
    assert "2 images are exact copies" in caplog.text


def test_no_duplicates(tmp_path, caplog):
    table = ImageFolder(lay(tmp_path, *many("a", 3), *many("b", 3))).table()
    assert report_duplicates(table, digests(table.files(), 1)) == []
    assert "LEAK" not in caplog.text
