"""What the gallery page says, read from the JSON that it carries; answers made by hand, expected values written out."""

import base64
import io
import json
import os
import re
from pathlib import Path

import pytest
from answers import query, write_run
from helpers import called, draw_striped
from PIL import Image

from likeness.errors import LikenessError
from likeness.reports import gallery_page
from likeness.reports.gallery_page import write_gallery
from likeness.reports.thumbnails import common_shape

HOSTILE = """</script><script>alert('1')</script>"<img src=x onerror=alert(1)>"""


def content_of(path: Path) -> dict:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', path.read_text(), re.S)
    return json.loads(found[1])


def made(run: Path, **options) -> dict:
    return content_of(write_gallery(run, run / "page.html", **options))


def names_of(content: dict) -> list[str]:
    return [content["names"][place] for place in content["queries"]]


ROWS = [
    query("bath/0.png", "bath", [("bath/1.png", "bath", 0.9), ("bed/0.png", "bed", 0.8)], 1, home="h0"),
    query("bath/1.png", "bath", [("bed/0.png", "bed", 0.7), ("bath/0.png", "bath", 0.6)], 2, home="h1"),
    query("bed/0.png", "bed", [("bath/0.png", "bath", 0.95)], 7, frozen=9, home="h0"),
    query("bed/1.png", "bed", [("bath/0.png", "bath", 0.5)], 7, home="h1"),
    query("bed/2.png", "bed", [], 0),
    query("bed/3.png", "bed", [("stray.png", "", 0.4)], 3),
    query("hall/0.png", "hall", [("bed/0.png", "bed", 0.4)], 0, skipped=1),
    query("bath/9.png", "bath", [("bath/0.png", "bath", 0.4)], 1, split="val"),
]


@pytest.fixture
def run(tmp_path) -> Path:
    """Three baths and beds find each other or not; one has no code, one no picture of its class to find."""
    for row in ROWS[:5]:
        draw_striped(tmp_path / "photos" / row["path"], 9, 0, size=120)
    return write_run(tmp_path / "run", ROWS, tmp_path / "photos")


def test_queries_come_worst_first_with_their_ranks_and_neighbours(run):
    content = made(run)
    assert names_of(content) == ["bed/2.png", "bed/0.png", "bed/1.png", "bed/3.png", "bath/1.png", "bath/0.png"]
    assert content["ranks"] == {"head": [0, 7, 7, 3, 2, 1], "frozen": [1, 9, 1, 1, 1, 1], "PCA": [1, 9, 1, 1, 1, 1]}
    near = [[content["names"][place] for place in row] for row in content["near"]]
    assert near[:2] == [[], ["bath/0.png"]]
    assert near[4] == ["bed/0.png", "bath/0.png"]
    assert content["similarities"] == [[], [0.95], [0.5], [0.4], [0.7, 0.6], [0.9, 0.8]]


def test_the_head_is_told_beside_the_frozen_features_and_chance(run):
    content = made(run)
    assert (content["n"], content["skipped"], content["split"]) == (6, 1, "test")
    assert (content["backbone"], content["head"], content["title"]) == ("shufflenet_rooms", "dense", "run")
    hit1, hit5, map_r = content["measures"]
    # Wilson of one in six and of three in six, from a table; frozen finds five of six
    assert hit1["head"] == pytest.approx([1 / 6, 0.0301, 0.5635], abs=1e-4)
    assert hit5["head"] == pytest.approx([0.5, 0.1876, 0.8124], abs=1e-4)
    assert hit1["frozen"][0] == pytest.approx(5 / 6)
    assert (hit1["chance"], map_r["chance"]) == (0.25, None)
    assert (map_r["head"], map_r["frozen"]) == ([0.5, 0.4, 0.6], [0.4, 0.3, 0.5])
    assert (hit1["gain"], hit5["gain"]) == ([0.1, 0.05, 0.15, 0.01], [None] * 4)
    said = "It beats the frozen features beyond the noise; against PCA the difference is inside the noise."
    assert content["verdict"] == said


def test_the_confusion_is_of_all_counted_queries_and_their_nearest(run):
    content = made(run)
    assert content["classes"] == ["bath", "bed"]
    # -1: bed/2 finds nothing, and the nearest of bed/3 has no class
    assert content["confusion"] == [[0, 0, 1], [0, 1, 1], [1, -1, 2], [1, 0, 2]]
    (bath, bed) = content["per_class"]
    assert (bath[:2], bed[:2]) == ([2, 0.5], [4, 0])
    assert bed[2:] == pytest.approx([0, 0.4899], abs=1e-4)  # Wilson of none in four: z² / (4 + z²)


def test_homes_are_recorded_or_read_from_the_name_of_the_file(run):
    content = made(run)
    home = {name: content["home_names"][at] if at >= 0 else "" for name, at in zip_of(content, "names", "homes")}
    assert home["bath/0.png"] == home["bed/0.png"] == "h0"
    assert home["stray.png"] == home["bed/2.png"] == ""
    rows = [query("a/home7_x.png", "a", [("b/home7_y.png", "b", 0.5)], 3, home="home7")]
    content = made(write_run(run / "other", rows, data={"home_pattern": r"home\d+"}))
    assert (content["home_names"], content["homes"]) == (["home7"], [0, 0])


def zip_of(content: dict, *names: str):
    return zip(*(content[name] for name in names), strict=True)


def test_pictures_lie_in_the_page_and_what_cannot_be_read_is_counted(run):
    content = made(run)
    pictures = {content["names"][int(place)]: picture for place, picture in content["pictures"].items()}
    assert pictures.keys() == set(content["names"])
    gone = {name for name, picture in pictures.items() if picture is None}
    assert gone == {"bed/3.png", "stray.png"}
    assert (content["unreadable"], content["left_out"]) == (2, {"queries": 0, "pictures": 0})
    data = base64.b64decode(pictures["bath/0.png"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (96, 96)


def test_frames_have_the_shape_of_most_pictures():
    def thumbnail(size: tuple[int, int]) -> str:
        packed = io.BytesIO()
        Image.new("RGB", size).save(packed, "JPEG")
        return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"

    assert common_shape([thumbnail((96, 72)), thumbnail((96, 72)), thumbnail((40, 96))]) == pytest.approx(4 / 3)
    assert common_shape([thumbnail((96, 10))]) == 1.5
    assert common_shape([]) == 1


def test_pictures_that_do_not_fit_are_those_of_the_least_telling_queries(tmp_path):
    # Of each class ten mistakes, the last the worst, and ten hits; the neighbour is always the same.
    rows = [
        query(f"{label}/{i:02}.png", label, [(f"{label}/00.png", label, 0.5)], 20 + i if i < 10 else 1)
        for label in ("a", "b")
        for i in range(20)
    ]
    for row in rows:
        draw_striped(tmp_path / "photos" / row["path"], 9, 0, size=96)
    run = write_run(tmp_path / "run", rows, tmp_path / "photos")
    one = len(next(iter(made(run)["pictures"].values())))
    content = made(run, most_bytes=9 * one)
    shown = [content["names"][int(place)] for place in content["pictures"]]
    # Two worst, each with its neighbour; the next two; a hit drawn by chance; the next two.
    assert shown[:6] == ["a/09.png", "a/00.png", "b/09.png", "b/00.png", "a/08.png", "b/08.png"]
    assert re.fullmatch(r"[ab]/1\d\.png", shown[6])
    assert shown[7:] == ["a/07.png", "b/07.png"]
    assert content["left_out"] == {"queries": 0, "pictures": 31}
    assert len(content["queries"]) == 40
    none = made(run, most_bytes=0)
    assert (none["pictures"], none["left_out"]["pictures"]) == ({}, 40)


def test_of_very_many_queries_the_most_telling_are_listed_and_the_confusion_is_of_all(run, monkeypatch):
    monkeypatch.setattr(gallery_page, "_MOST_LISTED", 3)
    content = made(run)
    assert names_of(content) == ["bed/2.png", "bed/0.png", "bath/1.png"]
    assert content["left_out"]["queries"] == 3
    assert sum(count for _, _, count in content["confusion"]) == 6


def test_names_from_files_stay_text(tmp_path):
    raw = os.fsdecode(b"caf\xe9.png")
    rows = [query(f"{HOSTILE}/{raw}", HOSTILE, [(raw, HOSTILE, 0.5)], 1, home=HOSTILE)]
    run = write_run(tmp_path / HOSTILE.replace("/", ""), rows, tmp_path, head=HOSTILE)
    page = write_gallery(run, tmp_path / "page.html")
    text = page.read_text("utf-8")
    assert (text.count("<script"), text.count("</script>"), text.count("<img")) == (2, 2, 0)
    content = content_of(page)
    assert content["names"] == [f"{HOSTILE}/caf\\xe9.png", "caf\\xe9.png"]
    assert (content["classes"], content["home_names"], content["head"]) == ([HOSTILE], [HOSTILE], HOSTILE)


def test_without_a_split_it_is_test_or_the_last_one_whatever_it_is_searched_in(tmp_path):
    rows = [query("a/1.png", "a", [("b/1.png", "b", 0.5)], 2, split="val")]
    assert made(write_run(tmp_path / "one", rows, name="val"))["split"] == "val"
    content = made(write_run(tmp_path / "other", rows, name="val against train"))
    assert (content["split"], content["n"]) == ("val against train", 1)


def refused(run: Path, **options) -> LikenessError:
    with pytest.raises(LikenessError) as raised:
        write_gallery(run, run / "page.html", **options)
    return raised.value


def test_a_folder_without_results_is_refused(run, tmp_path):
    assert refused(tmp_path).code == "RUN-MISSING"
    (run / "queries.csv").write_text("split,skipped,rank\ntest,0,x\n")
    assert "queries.csv cannot be read" in refused(run).cause
    (run / "queries.csv").unlink()
    assert refused(run).code == "RUN-MISSING"


def test_a_split_without_queries_is_refused_naming_those_there_are(run):
    error = refused(run, split="train")
    assert (error.code, error.cause) == ("DATA-SPLIT", "the run was scored on test")


def test_the_command_writes_beside_the_figures_or_where_it_is_told(run, tmp_path):
    assert called("gallery", f"run={run}").out.split() == [str(run / "figures" / "gallery.html")]
    done = called("gallery", f"run={run}", "split=test", f"out={tmp_path / 'a.html'}", "most_mb=0.001")
    assert (done.code, done.out.split()) == (0, [str(tmp_path / "a.html")])
    assert content_of(tmp_path / "a.html")["left_out"]["pictures"] == 7


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "run: missing"),
        (["run=x", "most_mb=-1"], "most_mb: -1 is no size from 0 up"),
        (["run=x", "most_mb=nan"], "most_mb: nan is no size"),
        (["run=x", "out=."], "is a folder"),
        (["run=x", "spilt=val"], "did you mean split?"),
    ],
)
def test_the_command_says_all_that_is_wrong_with_its_words(words, told):
    done = called("gallery", *words)
    assert done.code == 78
    assert told in done.err
