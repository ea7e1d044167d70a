"""Queries with small pictures of their neighbours, chosen from a run's own table."""

import csv
from pathlib import Path

from helpers import draw_striped
from PIL import Image

from likeness.reports import media
from likeness.reports.media import COLUMNS, media_of
from likeness.runs.journal import Journal

NEAREST = [f"{name}_{i}" for i in range(1, 6) for name in ("path", "label", "similarity")]


def write_run(folder: Path, queries: list[dict[str, object]]) -> None:
    with open(folder / "queries.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["split", "path", "label", "skipped", "rank", *NEAREST], restval="")
        writer.writeheader()
        writer.writerows({"split": "test", "label": "a", "skipped": 0, **query} for query in queries)
    Journal(folder / "journal.jsonl").write("config", data_root=str(folder / "photos"))


def test_rows_are_the_worst_first_then_a_sample_of_the_last_split(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "_WORST", 3)
    monkeypatch.setattr(media, "_SAMPLED", 2)
    ranks = [1, 7, 2, 0, 1, 3, 1]  # 0: a code that finds nothing, the worst there is
    rows = [{"path": f"{i}.png", "rank": rank} for i, rank in enumerate(ranks)]
    write_run(tmp_path, [{"split": "val", "path": "v.png", "rank": 99}, *rows, {"path": "s", "rank": "", "skipped": 1}])
    shown = [row[2] for row in media_of(tmp_path).rows]
    assert shown[:3] == [0, 7, 3]
    assert len(shown) == 5
    assert set(shown[3:]) <= {1, 2}


def test_cells_are_small_pictures_labels_and_numbers_and_what_is_gone_is_a_blank(tmp_path, caplog):
    draw_striped(tmp_path / "photos" / "big.png", period=9, seed=0, size=300)
    near = {"path_1": "big.png", "label_1": "b", "similarity_1": "0.250000", "path_2": "gone.png", "label_2": "a"}
    write_run(tmp_path, [{"path": "big.png", "rank": 2, **near}])
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "curve.png").touch()
    found = media_of(tmp_path)
    (row,) = found.rows
    assert len(COLUMNS) == len(row) == 18
    assert row[0].size == (96, 96)
    assert row[3] is row[0]
    assert (row[1:3], row[4:9]) == (["a", 2], ["b", 0.25, None, "a", None])
    assert [path.name for path in found.figures] == ["curve.png"]
    assert caplog.messages == ["[TRACKER] 1 pictures cannot be read and are left out of the table"]


def test_a_run_without_queries_has_no_table(tmp_path):
    assert list(media_of(tmp_path).rows) == []


def test_a_large_jpeg_is_not_decoded_whole_for_a_small_picture(tmp_path, monkeypatch):
    def noted(image: Image.Image, *given) -> None:
        sizes.append(image.size)
        thumbnail(image, *given)

    sizes, thumbnail = [], Image.Image.thumbnail
    monkeypatch.setattr(Image.Image, "thumbnail", noted)
    (tmp_path / "photos").mkdir()
    Image.linear_gradient("L").convert("RGB").resize((1600, 800)).save(tmp_path / "photos" / "large.jpg")
    write_run(tmp_path, [{"path": "large.jpg", "rank": 1}])
    (row,) = media_of(tmp_path).rows
    assert sizes == [(400, 200)], "a quarter: no side below twice the 96 pixels that are shown"
    assert row[0].size == (96, 48)
