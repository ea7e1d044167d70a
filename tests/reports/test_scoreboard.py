import csv
import json
from pathlib import Path

import pytest
from rich.console import Console

from likeness.errors import LikenessError
from likeness.reports.scoreboard import run_table, sweep_rows, sweep_table, write_scoreboard


def about(value):
    return {"value": value, "low": value - 0.03, "high": value + 0.03}


def method(first, five, mean):
    return {"hit@1": about(first), "hit@5": about(five), "map@r": about(mean)}


def paired(difference, low, high, p):
    return {"hit@1": {"difference": difference, "low": low, "high": high, "p": p}}


def split(gain=0.012):
    return {
        "n": 1071,
        "skipped": 0,
        "zero": {"head": 0, "frozen": 0},
        "chance": {"hit@1": 0.168, "hit@5": 0.6},
        "head": method(0.582 + gain, 0.873, 0.351),
        "frozen": method(0.582, 0.869, 0.334),
        "pca": method(0.58, 0.8745, 0.33),
        "random_projection": method(0.55, 0.84, 0.31),
        "paired": {
            "head-frozen": paired(gain, gain - 0.016, gain + 0.016, 0.14),
            "head-pca": paired(0.03, 0.014, 0.046, 0.0002),
            "head-random_projection": paired(-0.044, -0.063, -0.025, 0.03),
        },
    }


def metrics(gain=0.012):
    return {
        "schema": 1,
        "splits": {"val": split(gain), "test": split(gain / 2)},
        "features": {"rows": 5358, "computed": 0, "reused": 5358},
        "seconds": {"extract": 1.24, "fit": 8.1, "score": 3.0},
        "code_width": 512,
        "parameters": 1050624,
        "epochs": 57,
        "head": "dense",
        "backbone": "shufflenet_rooms",
    }


def lines(renderable, styled=False) -> list[str]:
    console = Console(width=100, force_terminal=styled, color_system="standard" if styled else None)
    with console.capture() as capture:
        console.print(renderable)
    return [text.rstrip() for text in capture.get().splitlines()]


def line(found: list[str], start: str) -> list[str]:
    (one,) = [text for text in found if text.startswith(start)]
    return [cell.strip() for cell in one.split("  ") if cell.strip()]


def test_a_run_has_a_row_a_method():
    found = lines(run_table(metrics()))
    assert found[0] == "shufflenet_rooms → dense, percent with 95 % intervals"
    assert found[1].split() == ["val", "val", "test", "test", "test"]
    assert found[2].split() == ["hit@1", "hit@5", "hit@1", "hit@5", "map@r"]
    assert line(found, "head  ") == [
        "head", "59.4 [56.4–62.4]", "87.3 [84.3–90.3]", "58.8 [55.8–61.8]", "87.3 [84.3–90.3]", "35.1",
    ]  # fmt: skip
    assert line(found, "random projection")[1] == "55.0 [52.0–58.0]"
    assert line(found, "chance") == ["chance", "16.8", "60.0", "16.8", "60.0", "–"]


def test_comparisons_say_what_the_numbers_mean():
    found = lines(run_table(metrics()))
    assert "test hit@1, query by query" in found
    assert line(found, "head − frozen") == [
        "head − frozen", "+0.6 points", "[−1.0, +2.2]", "p = 0.14", "→ inside the noise",
    ]  # fmt: skip
    assert line(found, "head − PCA")[1:] == ["+3.0 points", "[+1.4, +4.6]", "p < 0.001", "→ better"]
    assert line(found, "head − random projection")[1:] == ["−4.4 points", "[−6.3, −2.5]", "p = 0.03", "→ worse"]


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (0.001, 0.02, 0.06, "→ inside the noise"),
        (-0.001, 0.02, 0.04, "→ inside the noise"),
        (0.0, 0.02, 0.04, "→ inside the noise"),
        (0.001, 0.02, 0.049, "→ better"),
        (None, None, 0.001, "→ no interval"),
        (0.001, 0.02, None, "→ no interval"),
    ],
)
def test_both_the_interval_and_p_must_leave_the_noise(low, high, p, said):
    content = metrics()
    content["splits"]["test"]["paired"] = {"head-frozen": paired(0.01, low, high, p)}
    assert line(lines(run_table(content)), "head − frozen")[-1] == said


def test_the_costs_stand_below():
    assert lines(run_table(metrics()))[-2:] == [
        "n: val 1,071, test 1,071 · code width 512 · 1,050,624 parameters · 57 epochs",
        "rows: 5,358 reused, 0 computed · seconds: extract 1.2, fit 8.1, score 3.0",
    ]


def test_the_best_of_a_column_is_bold_ties_included():
    content = metrics(gain=0.0)
    row = {text.split("  ")[0]: text for text in lines(run_table(content), styled=True)}
    bold = "\x1b[1m"
    assert [row[name].count(bold) for name in ("head", "frozen", "PCA", "random projection")] == [3, 2, 2, 0]


def test_what_is_null_or_absent_is_a_dash():
    content = metrics() | {"parameters": None, "epochs": None, "seconds": None, "features": {}}
    content["splits"]["test"] |= {"random_projection": None, "head": {"hit@1": None}}
    content["splits"]["test"]["paired"]["head-pca"] = {"hit@1": None}
    found = lines(run_table(content))
    assert line(found, "head  ")[3:] == ["–", "–", "–"]
    assert line(found, "random projection")[3:] == ["–", "–", "–"]
    assert line(found, "head − PCA") == ["head − PCA", "–"]
    assert found[-2].endswith("– parameters · – epochs")
    assert found[-1] == "rows: – reused, – computed · seconds: –"


def test_an_evaluation_has_one_split_and_any_name():
    content = metrics()
    content["splits"] = {"test against train": split() | {"skipped": 3, "zero": {"pca": 2}}}
    found = lines(run_table(content))
    assert found[1].count("test against train") == 3
    assert "test against train hit@1, query by query" in found
    assert found[-2:] == [
        "test against train: 3 queries skipped, as none of their candidates has their class",
        "test against train: 2 codes of PCA are zero",
    ]


def test_everything_fits_in_a_hundred_columns_even_when_all_is_right():
    content = metrics()
    for part in content["splits"].values():
        for name in ("head", "frozen", "pca", "random_projection"):
            part[name] = {key: {"value": 1.0, "low": 0.996, "high": 1.0} for key in ("hit@1", "hit@5", "map@r")}
    found = lines(run_table(content))
    assert max(map(len, found)) <= 100
    assert line(found, "head  ")[1:] == ["100.0 [99.6–100.0]"] * 4 + ["100.0"]


@pytest.fixture
def sweep(tmp_path):
    def job(number: int, overrides=(), state="done", gain=None, error=None) -> Path:
        folder = tmp_path / "sweep" / str(number)
        folder.mkdir(parents=True)
        status = {"state": state, "overrides": list(overrides), "error": error, "job": number}
        (folder / "status.json").write_text(json.dumps(status))
        if gain is not None:
            (folder / "metrics.json").write_text(json.dumps(metrics(gain)))
        return folder

    job(0, ["head=dense", "head.width=64"], gain=0.01)
    job(1, ["head=conv", "head.width=64"], gain=0.03)
    job(2, ["head=dense", "+head.noise=[a,b]"], state="failed", error="out of memory\nTraceback")
    job(10, ["head=dense", "head.width=[32]"], gain=0.03)
    return job


@pytest.fixture
def folder(sweep, tmp_path):
    return tmp_path / "sweep"


def test_rows_are_flat_and_best_first_by_val(folder):
    rows = sweep_rows(folder)
    assert [row["job"] for row in rows] == [1, 10, 0, 2]
    best = rows[0]
    assert (best["state"], best["folder"], best["head"], best["head.width"]) == ("done", "1", "conv", "64")
    assert (best["val/hit@1"], best["val/hit@1_low"], best["val/hit@1_high"]) == pytest.approx((0.612, 0.582, 0.642))
    assert best["test/hit@1"] == pytest.approx(0.597)
    assert (best["val/gain_over_frozen"], best["val/p_over_frozen"], best["val/gain_over_pca"]) == (0.03, 0.14, 0.03)
    assert (best["test/gain_over_frozen"], best["code_width"], best["seconds.fit"]) == (0.015, 512, 8.1)
    assert rows[-1] | {"state": "failed", "error": "out of memory", "head.noise": "[a,b]"} == rows[-1]


@pytest.mark.parametrize("content", [None, "", '{"splits": {"val"', "[1]", "{}", '{"splits": null}', b"\xff\xfe\x00"])
def test_a_job_that_is_done_without_readable_metrics_is_lost(sweep, folder, content):
    path = sweep(3) / "metrics.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (row,) = [row for row in sweep_rows(folder) if row["job"] == 3]
    assert (row["state"], row["val/hit@1"]) == ("lost", None)


@pytest.mark.parametrize("content", ["{", "[]", '{"state": null, "overrides": 5}'])
def test_a_job_with_a_broken_status_keeps_its_result(sweep, folder, content):
    (sweep(3, gain=0.5) / "status.json").write_text(content)
    best = sweep_rows(folder)[0]
    assert (best["job"], best["state"]) == ("3", "done")


def test_nan_and_wrong_types_are_not_known(sweep, folder):
    path = sweep(3) / "metrics.json"
    path.write_text('{"splits": {"val": {"head": {"hit@1": {"value": NaN, "low": "x"}}}, "test": 7}}')
    (row,) = [row for row in sweep_rows(folder) if row["job"] == 3]
    assert (row["state"], row["val/hit@1"], row["val/hit@1_low"], row["test/hit@1"]) == ("done", None, None, None)
    assert [row["job"] for row in sweep_rows(folder)] == [1, 10, 0, 3, 2]


def test_an_option_named_like_a_column_is_set_apart(sweep, folder):
    sweep(3, ["code_width=8"], gain=0.5)
    assert (sweep_rows(folder)[0]["override code_width"], sweep_rows(folder)[0]["code_width"]) == ("8", 512)


def test_a_sweep_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LikenessError, match="RUN-MISSING"):
        sweep_rows(tmp_path / "nowhere")


def test_the_scoreboard_is_a_csv_with_a_column_an_option(folder):
    path = write_scoreboard(folder)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert path == folder / "scoreboard.csv"
    assert [row["job"] for row in rows] == ["1", "10", "0", "2"]
    assert list(rows[0])[:7] == ["job", "folder", "state", "head", "head.width", "head.noise", "val/hit@1"]
    assert (rows[0]["head.noise"], rows[1]["head.width"], rows[3]["head.width"]) == ("", "[32]", "")
    assert (rows[3]["val/hit@1"], rows[3]["error"]) == ("", "out of memory")
    assert write_scoreboard(folder).read_bytes() == path.read_bytes()


def test_an_empty_sweep_has_a_header_and_says_so(tmp_path):
    assert write_scoreboard(tmp_path).read_text().startswith("job,folder,state,val/hit@1,")
    assert lines(sweep_table(sweep_rows(tmp_path))) == ["No result yet."]


def test_the_ranking_shows_what_varies_and_how_the_winner_was_chosen(folder):
    found = lines(sweep_table(sweep_rows(folder)))
    assert found[2].split() == ["job", "head", "width", "hit@1", "hit@1", "−", "frozen", "p", "−", "PCA"]
    assert line(found, "1 ") == [
        "1", "conv", "64", "61.2 [58.2–64.2]", "59.7 [56.7–62.7]", "+1.5", "0.14", "+3.0",
    ]  # fmt: skip
    assert line(found, "10 ")[:3] == ["10", "dense", "[32]"]
    assert ("4 jobs, 3 heads tried. Job 1 was chosen on val, which flatters its val figure; test had no say.") in found
    assert "job 2 failed: out of memory" in found


def test_options_that_do_not_vary_have_no_column(sweep, folder):
    rows = [row for row in sweep_rows(folder) if row["job"] in (0, 10)]
    assert lines(sweep_table(rows))[2].split()[:3] == ["job", "width", "hit@1"]


def test_jobs_without_a_result_are_named_with_their_state(sweep, folder):
    sweep(3, state="running")
    sweep(4)
    found = lines(sweep_table(sweep_rows(folder)))
    assert "job 3 running" in found
    assert "job 4 lost: no readable metrics.json" in found


def test_a_large_sweep_is_cut_to_a_page(sweep, folder):
    for number in range(20, 60):
        sweep(number, [f"head.width={number}"], gain=number / 1000)
        sweep(number + 100, state="failed", error="no")
    found = lines(sweep_table(sweep_rows(folder)))
    assert found[0] == "best by val hit@1, 20 of 43, percent with 95 % intervals"
    assert "… and 21 more jobs without a result" in found
