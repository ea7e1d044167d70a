"""Codes of pictures as a table: each row is told by its path, through the store, whole or not at all."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import called, draw_striped
from test_app import trained

import likeness
from likeness import embedding
from likeness.model import Model


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("place")
    for period, name in ((4, "fine"), (25, "coarse")):
        for i in range(15):
            draw_striped(place / "photos" / name / f"{i}.png", period, i)
    return trained(place)


@pytest.fixture(scope="module")
def model(run) -> Model:
    return likeness.load(run)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_an_array_and_a_table_of_paths_in_one_order(photos, run, model, tmp_path):
    out = tmp_path / "codes.npy"
    done = called("embed", photos, f"run={run}", f"out={out}", r"home_pattern=home\d+", f"store={tmp_path / 'store'}")
    assert done.code == 0, done.err
    assert f"60 codes of 6 numbers in {out} (0 features found, 60 computed, 0 bad pictures)" in done.out
    codes, rows = np.load(out, allow_pickle=False), rows_of(tmp_path / "codes.csv")
    assert codes.dtype == np.float32
    assert rows[0] == {"path": str(photos / "coarse" / "home000.png"), "label": "coarse", "home": "home000"}
    assert [row["path"] for row in rows] == sorted(map(str, photos.glob("*/*.png")))
    assert codes == pytest.approx(model.encode([row["path"] for row in rows]), abs=1e-5)


def test_a_second_time_no_feature_is_computed_and_the_frozen_ones_are_the_store_s(photos, run, model, tmp_path):
    store, out = f"store={tmp_path / 'store'}", tmp_path / "frozen.npy"
    assert called("embed", photos, f"run={run}", f"out={tmp_path / 'a.npy'}", store).code == 0
    done = called("embed", photos, f"run={run}", f"out={out}", store, "frozen=true")
    assert "(60 features found, 0 computed" in done.out
    assert np.load(out) == pytest.approx(model.frozen().encode(sorted(photos.glob("*/*.png"))), abs=1e-5)


def test_parquet_holds_path_label_home_digest_and_code(photos, run, model, tmp_path, monkeypatch):
    """In as many parts as there are; what is not known is null."""
    monkeypatch.setattr("likeness.model._ROWS_AT_ONCE", 7)
    loose = photos / "loose.png"
    (photos / "fine" / "home003.png").rename(loose)
    out = tmp_path / "codes.parquet"
    done = called("embed", photos, f"model={run}", f"out={out}", "home_pattern=home003", f"store={tmp_path / 'store'}")
    assert done.code == 0, done.err
    table = pq.read_table(out)
    assert [str(field.type) for field in table.schema] == ["string"] * 4 + ["fixed_size_list<element: float>[6]"]
    rows = table.to_pylist()
    assert len(rows) == 60
    by_path = {row["path"]: row for row in rows}
    found = by_path[str(loose)]
    assert (found["label"], found["home"]) == (None, None)
    assert by_path[str(photos / "coarse" / "home003.png")]["home"] == "home003"
    assert found["sha256"] == hashlib.sha256(loose.read_bytes()).hexdigest()
    assert [row["code"] for row in rows] == pytest.approx(model.encode(list(by_path)), abs=1e-5)


def test_single_files_of_other_names_are_taken_as_they_are(photos, run, tmp_path):
    files = [photos / "fine" / "home001.png", photos / "coarse" / "home002.png"]
    files[0].rename(odd := photos / "fine" / "a=b.png")
    done = called("embed", odd, files[1], f"run={run}", f"out={tmp_path / 'a.npy'}", f"store={tmp_path / 'store'}")
    assert done.code == 0, done.err
    assert [(row["path"], row["label"]) for row in rows_of(tmp_path / "a.csv")] == [(str(files[1]), ""), (str(odd), "")]


def test_bad_pictures_end_it_or_are_left_out(photos, run, tmp_path):
    (photos / "fine" / "home001.png").write_bytes(b"<html>")
    words = ("embed", photos, f"run={run}", f"out={tmp_path / 'a.npy'}", f"store={tmp_path / 'store'}")
    done = called(*words)
    assert done.code == 65
    assert "[IMG-BAD] 1 of 60 pictures" in done.err
    assert not (tmp_path / "a.npy").exists()
    done = called(*words, "on_bad_image=quarantine")
    assert "59 codes of 6 numbers" in done.out
    assert "1 bad pictures" in done.out
    assert len(np.load(tmp_path / "a.npy")) == len(rows_of(tmp_path / "a.csv")) == 59
    done = called("embed", photos / "fine" / "home001.png", *words[2:], "on_bad_image=quarantine")
    assert done.code == 65  # of none that can be used there is no table


def test_what_fails_on_the_way_leaves_the_earlier_files(photos, run, tmp_path, monkeypatch):
    words = ("embed", photos, f"run={run}", f"out={tmp_path / 'a.npy'}", f"store={tmp_path / 'store'}")
    assert called(*words).code == 0
    before = [(tmp_path / name).read_bytes() for name in ("a.npy", "a.csv")]
    monkeypatch.setattr(Model, "codes", lambda self, features: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embedding.embed([photos], run, tmp_path / "a.npy", store=str(tmp_path / "store"))
    assert [(tmp_path / name).read_bytes() for name in ("a.npy", "a.csv")] == before
    assert not list(tmp_path.glob(".tmp-*"))


def test_options_that_cannot_be_are_told_at_once(tmp_path, monkeypatch):
    done = called("embed", "run=a", "model=b", "out=codes.txt", "store=x")
    assert done.code == 78
    assert "out: 'codes.txt' ends in .txt, not in one of .npy, .parquet" in done.err
    done = called("embed", "out=codes.npy")
    assert "FOLDER or FILE: missing" in done.err
    assert "run, model: give one of them" in done.err
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    done = called("embed", tmp_path, "run=a", "out=codes.parquet")
    assert done.code == 78
    assert 'pip install "likeness[parquet]"' in done.err
