import csv
import json

import pytest
from rich.console import Console

from likeness.reports.replication import published, replication_rows, replication_table, write_replication

COLUMNS = [
    *("row", "table", "protocol", "split", "measure", "published", "measured", "low", "high", "same_metric"),
    *("backbone", "widths", "published_widths", "epochs", "published_epochs", "seed", "data", "folder"),
]


def about(value):
    return {"value": value, "low": round(value - 0.03, 4), "high": round(value + 0.03, 4)}


def measured(first, top5, five):
    return {"head": {"hit@1": about(first), "published_top5": about(top5), "hit@5": about(five)}}


TEST, VAL = measured(0.5, 0.75, 0.8), measured(0.52, 0.76, 0.81)


@pytest.fixture
def job(tmp_path):
    """Leaves what a job leaves."""

    def leave(number, row, protocol="mended", state="done", options=None, splits=None, **facts):
        folder = tmp_path / str(number)
        folder.mkdir()
        chosen = {"experiment": f"thesis/{row}", "protocol": protocol} if options is None else options
        told = {"backbone": "shufflenet_rooms", "widths": [1024, 128], "epochs": 57, "seed": 0}
        told["data"] = {"root": "/somewhere/rooms", "manifest": None}
        metrics = {
            "options": chosen,
            "splits": {"val": VAL, "test": TEST} if splits is None else splits,
            **told,
            **facts,
        }
        (folder / "status.json").write_text(json.dumps({"state": state, "job": number}))
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return leave


def test_what_was_measured_stands_beside_what_was_published(job, tmp_path):
    job(3, "table3_512")
    rows = replication_rows(tmp_path)
    assert [
        tuple(row[name] for name in ("split", "measure", "published", "measured", "low", "high", "same_metric"))
        for row in rows
    ] == [
        ("val", "hit@1", 0.7832, 0.52, 0.49, 0.55, True),
        ("val", "published_top5", 0.9519, 0.76, 0.73, 0.79, True),
        ("val", "hit@5", 0.9519, 0.81, 0.78, 0.84, False),  # the true one; the published top-5 left the nearest out
        ("test", "hit@1", 0.7714, 0.5, 0.47, 0.53, True),
        ("test", "published_top5", 0.9448, 0.75, 0.72, 0.78, True),
        ("test", "hit@5", 0.9448, 0.8, 0.77, 0.83, False),
    ]
    for row in rows:
        assert {name: row[name] for name in ("row", "table", "protocol", "backbone", "seed", "data", "folder")} == {
            "row": "table3_512",
            "table": "Table 3",
            "protocol": "mended",
            "backbone": "shufflenet_rooms",
            "seed": 0,
            "data": "rooms",
            "folder": "3",
        }
        assert (row["widths"], row["published_widths"]) == ([1024, 128], [4096, 512])
        assert (row["epochs"], row["published_epochs"]) == (57, 122)


def test_rows_are_in_the_order_of_the_thesis_as_published_before_mended(job, tmp_path):
    for number, (row, protocol) in enumerate(
        [
            ("extra_flatten_l1", "mended"),
            ("table5_vgg16_places", "mended"),
            ("table3_2048", "mended"),
            ("table3_2048", "as_published"),
            ("baseline_vgg16_fc1_places", "as_published"),
            ("table3_128", "as_published"),
        ]
    ):
        job(number, row, protocol)
    assert list(dict.fromkeys((row["row"], row["protocol"]) for row in replication_rows(tmp_path))) == [
        ("baseline_vgg16_fc1_places", "as_published"),
        ("table3_2048", "as_published"),
        ("table3_2048", "mended"),
        ("table3_128", "as_published"),
        ("table5_vgg16_places", "mended"),
        ("extra_flatten_l1", "mended"),
    ]


def test_jobs_of_one_row_are_in_their_own_order(job, tmp_path):
    for number in (10, 9, 1):
        job(number, "table3_512", seed=number)
    assert list(dict.fromkeys(row["seed"] for row in replication_rows(tmp_path))) == [1, 9, 10]


@pytest.mark.parametrize("state", ["running", "failed", "interrupted"])
def test_unfinished_jobs_are_left_out(job, tmp_path, state):
    job(0, "table3_512", state=state)
    job(1, "table3_128")
    assert {row["row"] for row in replication_rows(tmp_path)} == {"table3_128"}


@pytest.mark.parametrize(
    "options",
    [
        None,
        "thesis/table3_512",
        {},
        {"experiment": None, "protocol": None},
        {"experiment": "rooms"},
        {"experiment": "thesis/table3"},
        {"experiment": "thesis/table3_512", "protocol": "improved"},
    ],
)
def test_jobs_that_are_no_row_of_the_thesis_are_left_out(job, tmp_path, options):
    path = job(0, "x", options={}) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"options": options}))
    assert replication_rows(tmp_path) == []


def test_other_files_and_what_cannot_be_read_are_left_out(job, tmp_path):
    (tmp_path / "scoreboard.csv").write_text("job\n")
    (tmp_path / "empty").mkdir()
    (job(0, "table3_512") / "metrics.json").write_text("{")
    (job(1, "table3_512") / "metrics.json").unlink()
    assert replication_rows(tmp_path) == []


@pytest.mark.parametrize("options", [{"protocol": None}, {}])
def test_without_a_protocol_a_row_is_mended(job, tmp_path, options):
    job(0, "", options={"experiment": "thesis/table3_512", **options})
    assert {row["protocol"] for row in replication_rows(tmp_path)} == {"mended"}


def test_data_is_named_by_its_folder_or_its_list(job, tmp_path):
    places = [{"root": "/a/rooms/"}, {"root": None, "manifest": "/a/homes.csv"}, {"name": "demo"}, None]
    for number, data in enumerate(places):
        job(number, "table3_512", data=data)
    assert [row["data"] for row in replication_rows(tmp_path)[::6]] == ["rooms", "homes.csv", None, None]


def test_a_measure_that_a_run_lacks_is_not_known(job, tmp_path):
    job(0, "table3_512", splits={"test": {"head": {"hit@1": about(0.5), "hit@5": None}}, "val": {}})
    rows = replication_rows(tmp_path)
    assert [(row["measured"], row["low"]) for row in rows] == [(0.5, 0.47)] + [(None, None)] * 5
    assert [row["published"] for row in rows] == [0.7714, 0.9448, 0.9448, 0.7832, 0.9519, 0.9519]


def test_a_row_without_published_figures_has_none(job, tmp_path):
    job(0, "extra_fc1_deeper_softmax")
    job(1, "table3_512", splits={"test against train": TEST})
    rows = replication_rows(tmp_path)
    assert [row["row"] for row in rows] == ["table3_512"] * 3 + ["extra_fc1_deeper_softmax"] * 6
    assert {row["published"] for row in rows} == {None}
    assert [row["measured"] for row in rows[:3]] == [0.5, 0.75, 0.8]


def test_every_row_of_a_whole_sweep_is_filled(job, tmp_path):
    thesis = published()["rows"]
    for number, (row, protocol) in enumerate(
        (row, protocol) for protocol in ("mended", "as_published") for row in thesis
    ):
        job(number, row, protocol, epochs=None if row.startswith("baseline") else 57)
    rows = replication_rows(tmp_path)
    assert len(thesis) == 30
    assert list(dict.fromkeys(row["row"] for row in rows)) == list(thesis)
    assert len(rows) == 30 * 2 * 2 * 3
    assert len({tuple(row[name] for name in ("row", "protocol", "split", "measure")) for row in rows}) == len(rows)
    assert all(row["measured"] is not None for row in rows)
    assert {row["row"] for row in rows if row["published"] is None} == {"extra_fc1_deeper_softmax"}
    write_replication(rows, tmp_path)
    table = (tmp_path / "replication.md").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in table] == ["row", "---", *thesis]
    for line in table[2:]:
        assert "50.0 [47.0–53.0] | 50.0 [47.0–53.0]" in line
        assert "75.0 | 75.0 | 80.0" in line
    assert len(lines(rows)) >= 30


def lines(rows, width=110, **named) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(replication_table(rows, **named))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_the_terminal_shows_published_beside_measured(job, tmp_path):
    job(0, "table3_512", "as_published", splits={"test": measured(0.4, 0.6, 0.7), "val": VAL})
    job(1, "table3_512", "mended")
    job(2, "table4_vgg16_simple", "mended")
    found = lines(replication_rows(tmp_path))
    assert found[0] == "published beside measured, test, percent with 95 % intervals"
    assert found[1] == "publ. as published mended publ. as p. mended mended"
    assert found[2] == "row hit@1 hit@1 hit@1 2–6 2–6 2–6 hit@5"
    assert found[4:6] == [
        "table3_512 77.1 40.0 [37.0–43.0] 50.0 [47.0–53.0] 94.5 60.0 75.0 80.0",
        "table4_vgg16_simple 54.1 – 50.0 [47.0–53.0] 83.0 – 75.0 80.0",
    ]
    told = " ".join(found[6:])
    assert "private" in told
    assert "other photos" in told
    assert "the published “top-5” left the nearest out" in told


def test_the_terminal_shows_another_split_when_asked(job, tmp_path):
    job(0, "table3_512")
    found = lines(replication_rows(tmp_path), split="val")
    assert found[0].startswith("published beside measured, val")
    assert found[4] == "table3_512 78.3 – 52.0 [49.0–55.0] 95.2 – 76.0 81.0"


def test_everything_fits_even_where_all_is_right(job, tmp_path):
    perfect = {
        "head": {name: {"value": 1.0, "low": 0.996, "high": 1.0} for name in ("hit@1", "published_top5", "hit@5")}
    }
    for number, protocol in enumerate(("as_published", "mended")):
        job(number, "extra_fc1_deeper_softmax", protocol, splits={"test": perfect})
    shown = "extra_fc1_deeper_softmax – 100.0 [99.6–100.0] 100.0 [99.6–100.0] – 100.0 100.0 100.0"
    assert lines(replication_rows(tmp_path))[4] == shown


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        ([{"seed": 0}, {"seed": 1}], ["table3_512, seed 0", "table3_512, seed 1"]),
        (
            [{"backbone": "shufflenet_rooms"}, {"backbone": "vgg16"}],
            ["table3_512, backbone shufflenet_rooms", "table3_512, backbone vgg16"],
        ),
        (
            [{"data": {"root": "/a/rooms"}}, {"data": {"root": "/b/[b]homes"}}],
            ["table3_512, data rooms", "table3_512, data [b]homes"],
        ),
        (
            [{"seed": 0, "backbone": "vgg16"}, {"seed": 1, "backbone": "resnet50"}],
            ["table3_512, backbone vgg16, seed 0", "table3_512, backbone resnet50, seed 1"],
        ),
        ([{}, {}], ["table3_512"]),
    ],
)
def test_jobs_of_one_row_are_told_apart_by_what_differs(job, tmp_path, facts, names):
    """Both protocols of each; another row beside them that differs in nothing."""
    for number, changed in enumerate(facts):
        job(2 * number, "table3_512", "as_published", **changed)
        job(2 * number + 1, "table3_512", "mended", **changed)
    job(20, "table3_128")
    write_replication(replication_rows(tmp_path), tmp_path)
    table = (tmp_path / "replication.md").read_text(encoding="utf-8").splitlines()[2:-2]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table] == [*names, "table3_128"]
    assert all("50.0 [47.0–53.0] | 50.0 [47.0–53.0]" in line for line in table[:-1])
    shown = " ".join(lines(replication_rows(tmp_path), width=160))
    assert all(f"{name} 77.1 50.0" in shown for name in names)


MARKDOWN = """\
| row | widths | published hit@1 | as published: hit@1 | mended: hit@1 | published ranks 2–6 \
| as published: ranks 2–6 | mended: ranks 2–6 | mended: hit@5 | epochs |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| baseline_vgg16_fc1_places | – | 76.9 | 40.0 [37.0–43.0] | – | 92.9 | 60.0 | – | – | – · – · – |
| table3_512 | 4096, 512 as 1024, 128 | 77.1 | – | 50.0 [47.0–53.0] | 94.5 | – | 75.0 | 80.0 | 122 · – · 57 |
| table4_vgg16_simple | 4096, 2048, 1028 | 54.1 | 40.0 [37.0–43.0] | 50.0 [47.0–53.0] | 83.0 | 60.0 | 75.0 | 80.0 \
| 1,803 · 1,200 · 57 |
| extra_fc1_deeper_softmax | 6000, 4000, 3000, 2000, 800 | – | – | 50.0 [47.0–53.0] | – | – | 75.0 | 80.0 | – · – · 57 |

"""


def test_the_markdown_is_the_test_split_with_widths_and_epochs(job, tmp_path):
    low, whole = {"test": measured(0.4, 0.6, 0.7)}, [4096, 2048, 1028]
    job(0, "baseline_vgg16_fc1_places", "as_published", splits=low, widths=None, epochs=None)
    job(1, "table3_512")
    job(2, "table4_vgg16_simple", "as_published", splits=low, widths=whole, epochs=1200)
    job(3, "table4_vgg16_simple", widths=whole)
    job(4, "extra_fc1_deeper_softmax", widths=None)
    write_replication(replication_rows(tmp_path), tmp_path)
    text = (tmp_path / "replication.md").read_text(encoding="utf-8")
    assert text.startswith(MARKDOWN)
    (legend,) = text.removeprefix(MARKDOWN).splitlines()
    assert "hit@5 is the true one" in legend


def test_a_bar_in_the_name_of_the_data_opens_no_cell(job, tmp_path):
    for number, place in enumerate(["/a/homes|rooms", "/a/rooms"]):
        job(number, "table3_512", data={"root": place})
    write_replication(replication_rows(tmp_path), tmp_path)
    heads, _, row = (tmp_path / "replication.md").read_text(encoding="utf-8").splitlines()[:3]
    assert row.startswith(r"| table3_512, data homes\|rooms | 4096, 512 as")
    assert heads.count("|") == row.replace(r"\|", "").count("|")


def test_the_csv_has_a_row_for_each_measure(job, tmp_path):
    job(0, "table3_512")
    job(1, "extra_fc1_deeper_softmax", "as_published", widths=None, epochs=None)
    path = write_replication(replication_rows(tmp_path), tmp_path)
    assert path == tmp_path / "replication.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert list(rows[3].values()) == [
        *("table3_512", "Table 3", "mended", "test", "hit@1", "0.7714", "0.5", "0.47", "0.53", "True"),
        *("shufflenet_rooms", "[1024, 128]", "[4096, 512]", "57", "122", "0", "rooms", "0"),
    ]
    assert [row["same_metric"] for row in rows] == ["True", "True", "False"] * 4
    assert (rows[6]["published"], rows[6]["widths"], rows[6]["epochs"], rows[6]["measured"]) == ("", "", "", "0.52")


def test_the_data_may_be_called_anything(job, tmp_path):
    for number, place in enumerate(["/a/\udcff", "/a/rooms"]):
        job(number, "table3_512", data={"root": place})
    write_replication(replication_rows(tmp_path), tmp_path)
    assert b",\xff,0\r\n" in (tmp_path / "replication.csv").read_bytes()
    assert b"table3_512, data \xff |" in (tmp_path / "replication.md").read_bytes()
