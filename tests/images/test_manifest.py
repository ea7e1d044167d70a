import logging
import os
from collections import Counter

import numpy as np
import pytest

from likeness.errors import LikenessError
from likeness.images.folder import ImageFolder
from likeness.images.manifest import ImageManifest


def written(folder, *lines, files=True):
    """A manifest of these lines, and an empty file for each first cell."""
    for line in lines[1:] if files else ():
        path = folder / line.partition(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    manifest = folder / "pictures.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    return str(manifest)


def faults(*lines, folder, code="DATA-MANIFEST", files=True, **options):
    with pytest.raises(LikenessError) as raised:
        ImageManifest(written(folder, *lines, files=files), **options).table()
    assert raised.value.code == code
    return str(raised.value)


def test_all_columns(tmp_path):
    manifest = written(
        tmp_path,
        "path,split,label,home,is_query,is_gallery",
        "z.jpg,train,cat,h2,,",
        "c/2.jpg,train,dog,h1,,",
        "1.jpg,val,cat,h3,True,False",
        "0.jpg,validation,dog,,false,1",
        "5.jpg,test,dog,h4,0,TRUE",
        "6.jpg,,,,,",
        "7.jpg,unlabelled,cat,,,",
    )
    table = ImageManifest(manifest, unlabelled=True).table()
    assert table.paths.tolist() == ["0.jpg", "1.jpg", "5.jpg", "6.jpg", "7.jpg", "c/2.jpg", "z.jpg"]
    assert table.classes == ("cat", "dog")
    assert table.labels.tolist() == [1, 0, 1, -1, -1, 1, 0]
    assert table.splits.tolist() == ["val", "val", "test", "unlabelled", "unlabelled", "train", "train"]
    assert table.home_names == ("h1", "h2", "h3", "h4")
    assert table.homes.tolist() == [-1, 2, 3, -1, -1, 0, 1]
    assert table.is_query.tolist() == [False, True, False, True, True, True, True]
    assert table.is_gallery.tolist() == [True, False, True, True, True, True, True]
    assert table.root == tmp_path
    assert len(ImageManifest(manifest).table()) == 5


def test_the_split_is_that_of_the_same_folder(tmp_path):
    lines = [f"{kind}/{i}.jpg,{kind}" for kind in "ab" for i in range(10)]
    of_manifest = ImageManifest(written(tmp_path, "path,label", *lines)).table()
    np.testing.assert_array_equal(of_manifest.splits, ImageFolder(str(tmp_path)).table().splits)
    absolute = [f"{tmp_path}/{line}" for line in lines]
    np.testing.assert_array_equal(
        ImageManifest(written(tmp_path, "path,label", *absolute)).table().splits, of_manifest.splits
    )


def test_root_and_absolute_paths(tmp_path):
    (tmp_path / "lists").mkdir()
    lay = [tmp_path / "photos/1.jpg", tmp_path / "elsewhere/2.jpg"]
    for path in lay:
        path.parent.mkdir()
        path.touch()
    manifest = written(tmp_path / "lists", "path,label", "1.jpg,a", f"{lay[1]},b", files=False)
    table = ImageManifest(manifest, root=str(tmp_path / "photos")).table()
    assert table.files() == [lay[1], lay[0]]
    relative = written(tmp_path / "lists", "path,label", "../photos/1.jpg,a", "../elsewhere/2.jpg,b", files=False)
    assert [file.resolve() for file in ImageManifest(relative).table().files()] == [lay[1], lay[0]]


OML = ["path,label,split,is_query,is_gallery,x_1", *(f"t{i}.jpg,{i % 2},train,,," for i in range(8))]
OML += [f"v{i}.jpg,{i % 2},validation,{i < 2},{i >= 2}," for i in range(6)]


def test_open_metric_learning(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    table = ImageManifest(written(tmp_path, *OML)).table()
    assert Counter(table.splits.tolist()) == {"train": 6, "val": 2, "test": 6}
    test = table.of_split("test")
    assert test.is_query.tolist() == [True, True, False, False, False, False]
    assert test.is_gallery.tolist() == [False, False, True, True, True, True]
    assert "validation is read as test" in caplog.text
    assert "columns of the manifest that are not read: x_1" in caplog.text
    assert "2 of 8 train images become val" in caplog.text


def test_validation_is_val_where_there_is_a_test(tmp_path):
    table = ImageManifest(written(tmp_path, *OML, "x.jpg,0,test,,,", "y.jpg,1,test,,,", "z.jpg,0,test,,,")).table()
    assert Counter(table.splits.tolist()) == {"train": 8, "val": 6, "test": 3}


def test_every_fault_is_named_with_its_line(tmp_path):
    message = faults(
        "path,label,split,is_query",
        "1.jpg,a,train,",
        ",a,train,",
        "./1.jpg,b,val,",
        '"2',
        '.jpg",b,vall,',
        "3.jpg,b,,maybe",
        "4.jpg,b",
        "5.jpg,b,val,",
        folder=tmp_path,
    )
    assert "7 faults" in message
    for words in (
        f"{tmp_path}/pictures.csv",
        "line 3: no path",
        "line 4: 1.jpg again, first in line 2",
        "line 6: no such file",
        "line 6: split 'vall' is none of train, val, test, unlabelled",
        "line 7: split '' is none of",
        "line 7: is_query 'maybe' is neither True nor False",
        "line 8: 2 cells, the header has 4",
        "exit 65",
    ):
        assert words in message, words


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("file,label,split", "no column path; found file, label, split"),
        ("a", "no column path and label; found a"),
        ("", "no column path and label; found nothing"),
        ("path;label", "separated by semicolons; commas are expected"),
        ("path,label,label", "more than one column label"),
    ],
)
def test_faulty_headers(tmp_path, header, words):
    assert f"line 1: {words}" in faults(header, folder=tmp_path)


def test_files_that_are_not_there(tmp_path):
    lines = [f"{i}.jpg,{i % 2}" for i in range(40)]
    message = faults("path,label", *lines, folder=tmp_path, files=False)
    assert "40 faults" in message
    assert "line 2: no such file: 0.jpg" in message
    assert "… and 20 more" in message
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "no such file: pipe.jpg" in faults("path,label", "pipe.jpg,a", folder=tmp_path, files=False)


def test_splits_that_are_not_there(tmp_path):
    assert "found train" in faults("path,label,split", "1.jpg,a,train", "2.jpg,b,train", folder=tmp_path)
    assert "found test, val" in faults("path,label,split", "1.jpg,a,test", "2.jpg,b,val", folder=tmp_path)
    faults("path,label", "1.jpg,a", "2.jpg,a", folder=tmp_path, code="DATA-LAYOUT")


def test_homes_of_the_column_or_of_the_name(tmp_path):
    lines = [f"home{i}.jpg,{kind}" for i, kind in enumerate("aabb")]
    manifest = written(tmp_path, "path,label", *lines)
    assert ImageManifest(manifest, home_pattern=r"home\d").table().home_names == ("home0", "home1", "home2", "home3")
    faults("path,label,home", "1.jpg,a,x", "2.jpg,b,y", folder=tmp_path, home_pattern="x", code="CONFIG")


def test_no_manifest(tmp_path):
    with pytest.raises(LikenessError, match="DATA-MISSING"):
        ImageManifest(str(tmp_path / "none.csv")).table()
    with pytest.raises(LikenessError, match="DATA-MISSING"):
        ImageManifest(str(tmp_path)).table()


def test_spreadsheets_mark_and_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    manifest = written(tmp_path, "\ufeffpath,label", f"{name},a", "b.jpg,b")
    table = ImageManifest(manifest).table()
    assert table.paths.tolist() == ["b.jpg", name]
    assert all(file.exists() for file in table.files())
