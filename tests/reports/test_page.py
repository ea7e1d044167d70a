"""What the sweep page says, read from the JSON that it carries; hand-made jobs, expected values written out."""

import csv
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_striped
from omegaconf import OmegaConf
from sweeps import picture, write_job

from likeness import app
from likeness.errors import LikenessError
from likeness.reports.jobs import find_jobs
from likeness.reports.page import verdict, write_page
from likeness.reports.sweep import EndOfSweep


def content_of(path: Path) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="content">(.*?)</script>', path.read_text(), re.S)[1]
    )


def made(*folders: Path) -> dict:
    return content_of(write_page(folders, folders[0].parent / "page.html"))


def job_of(content: dict, name: str) -> dict:
    (job,) = [job for job in content["jobs"] if job["name"] == name]
    return job


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Job 1 is best on val and job 0 on test; job 2 failed, job 3 runs."""
    folder = tmp_path / "sweep"
    write_job(folder, 0, ["architecture=dense", "noise=none"], val=0.60, test=0.70, p=0.5)
    write_job(folder, 1, ["architecture=conv", "noise=none"], val=0.65, test=0.55, p=0.01, ranks=(1, 2, 1, 1, 1, 2))
    trace = "Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: no\nRuntimeError: out of memory"
    write_job(folder, 2, ["architecture=wide", "noise=none"], state="failed", error="out of memory", traceback=trace)
    write_job(folder, 3, ["architecture=slow", "noise=none"], state="running")
    return folder


def test_the_winner_is_chosen_on_val_and_test_has_no_say(sweep):
    content = made(sweep)
    winner = content["winner"]
    assert content["jobs"][winner["job"]]["name"] == "1"
    assert (winner["val"], winner["test"]) == ([0.65, 0.6, 0.7], [0.55, 0.5, 0.6])
    # Holm over two heads: the smaller p doubles.
    assert winner["gains"]["frozen"] == pytest.approx([0.05, 0.015, 0.085, 0.02])
    assert winner["gains"]["pca"] == pytest.approx([0.03, -0.005, 0.065, 0.02])
    assert winner["verdict"] == (
        "It beats the frozen features beyond the noise; against PCA the difference is inside the noise."
    )


def test_the_counts_are_of_jobs_heads_and_states(sweep):
    content = made(sweep)
    assert content["counts"] == {"jobs": 4, "heads": 2, "seeds": 0, "states": {"done": 2, "failed": 1, "running": 1}}
    assert content["facts"]["queries"] == {"val": 100, "test": 6}


def test_only_options_that_differ_have_a_column(sweep):
    content = made(sweep)
    assert content["options"] == [{"name": "architecture", "label": "architecture"}]
    assert content["swept"] == [
        {"label": "architecture", "values": ["dense", "conv", "wide", "slow"], "more": 0},
        {"label": "noise", "values": ["none"], "more": 0},
    ]


def test_a_failed_job_shows_its_last_line_and_its_traceback(sweep):
    content = made(sweep)
    failed = job_of(content, "2")
    assert failed["error"] == "RuntimeError: out of memory"
    assert content["traces"][failed["trace"]].startswith("Traceback (most recent call last):")
    assert "val" not in failed


def test_a_message_of_ours_shows_its_first_line(tmp_path):
    told = str(LikenessError("DATA-MISSING", "there is no such folder.", where="/photos", fix="Give another."))
    write_job(tmp_path / "sweep", 0, [], state="failed", error=told, traceback="Traceback\n" + told)
    content = made(tmp_path / "sweep")
    assert content["jobs"][0]["error"] == "[DATA-MISSING] there is no such folder."
    assert (content["winner"], content["compare"], content["classes"]) == (None, None, None)


def test_jobs_that_fail_alike_share_one_traceback(tmp_path):
    for number in range(3):
        write_job(tmp_path / "sweep", number, [f"a={number}"], state="failed", error="no", traceback="T" * 9_000)
    content = made(tmp_path / "sweep")
    assert content["traces"] == ["…" + "T" * 4_000]
    assert [job["trace"] for job in content["jobs"]] == [0, 0, 0]


def seeds(tmp_path: Path) -> Path:
    """Head a has a better mean on val than b, whose seed 0 is the best job of all."""
    folder = tmp_path / "sweep"
    write_job(folder, 0, ["head=a", "seed=0"], val=0.62, test=0.5, ranks=(1, 1, 1, 2))
    write_job(folder, 1, ["head=a", "seed=1"], val=0.64, test=0.5, ranks=(1, 1, 2, 2))
    write_job(folder, 2, ["head=b", "seed=0"], val=0.66, test=0.5, ranks=(1, 2, 2, 2))
    write_job(folder, 3, ["head=b", "seed=1"], val=0.50, test=0.5, ranks=(2, 2, 2, 2))
    return folder


def test_jobs_that_differ_by_seed_alone_are_one_head(tmp_path):
    content = made(seeds(tmp_path))
    names = [[content["jobs"][place]["name"] for place in head["jobs"]] for head in content["heads"]]
    assert names == [["1", "0"], ["2", "3"]]
    assert content["options"] == [{"name": "head", "label": "head"}]
    # hit@1 of the seeds 3/4 and 2/4: mean .625, sd .176777, Student's half width 12.7062 * .176777 / sqrt(2) = 1.58828
    assert content["heads"][0]["test"] == pytest.approx([0.625, -0.963275, 2.213275], abs=1e-5)
    assert content["counts"] == {"jobs": 4, "heads": 2, "seeds": 2, "states": {"done": 4}}


def test_the_winner_over_seeds_has_an_interval_over_queries(tmp_path):
    winner = made(seeds(tmp_path))["winner"]
    # Hits of the four queries, averaged over the seeds, are 1, 1, .5 and 0.
    value, low, high = winner["test"]
    assert (value, winner["seeds"]) == (0.625, 2)
    draws = np.random.default_rng(1).choice([1, 1, 0.5, 0], (20_000, 4)).mean(1)
    assert (low, high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.13)
    # frozen finds queries 0 and 2: differences 0, 1, -.5, 0
    assert winner["gains"]["frozen"][0] == 0.125


def test_equals_on_val_are_told(tmp_path):
    for number in range(3):
        write_job(tmp_path / "sweep", number, [f"a={number}"], val=0.6)
    winner = made(tmp_path / "sweep")["winner"]
    assert (winner["job"], winner["ties"]) == (0, 2)


def test_curves_are_thinned_and_keep_first_best_and_last(tmp_path):
    folder = write_job(tmp_path / "sweep", 0, [], val=0.6)
    events = [{"event": "metrics", "epoch": epoch, "val/hit@1": 0.5 + 0.2 * (epoch == 777)} for epoch in range(1_000)]
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    epochs, hits, losses = made(tmp_path / "sweep")["jobs"][0]["curve"]
    assert (len(epochs), epochs[0], epochs[-1]) == (61, 0, 999)
    assert hits[epochs.index(777)] == 0.7
    assert set(losses) == {None}


def test_classes_are_in_rows_of_baselines_and_heads(sweep):
    classes = made(sweep)["classes"]
    assert classes["names"] == ["bath", "bed", "kitchen"]
    assert [row["name"] for row in classes["rows"]] == ["frozen", "PCA", "1", "0"]
    assert classes["values"] == [[0.5] * 3, [0.5] * 3, [0.55] * 3, [0.7] * 3]


def test_of_many_classes_those_stay_on_which_heads_differ_most(tmp_path):
    folder = write_job(tmp_path / "sweep", 0, [], val=0.6)
    metrics = json.loads((folder / "metrics.json").read_text())
    head = {f"c{i:03d}": {"n": 1, "hit@1": {"value": 0.5 + i / 1_000}} for i in range(100)}
    base = {f"c{i:03d}": {"n": 1, "hit@1": {"value": 0.5}} for i in range(100)}
    metrics["splits"]["test"]["per_class"] = {"head": head, "frozen": base, "pca": base}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    classes = made(tmp_path / "sweep")["classes"]
    assert (classes["names"][0], classes["names"][-1]) == ("c040", "c099")
    assert classes["left_out"] == {"classes": 40, "heads": 0}


def hits_of(compare: dict, name: str) -> list[int]:
    """From base 64, independently: bits of each byte from the highest."""
    (method,) = [method for method in compare["methods"] if method["name"] == name]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    bits = "".join(f"{alphabet.index(letter):06b}" for letter in method["bits"].rstrip("="))
    return [int(bit) for bit in bits[: len(compare["queries"])]]


def test_hits_of_every_head_and_baseline_come_as_bits(sweep):
    compare = made(sweep)["compare"]
    assert [method["name"] for method in compare["methods"]] == ["1", "frozen", "PCA", "0"]
    assert hits_of(compare, "1") == [1, 0, 1, 1, 1, 0]
    assert hits_of(compare, "0") == [1, 1, 0, 1, 0, 0]
    assert hits_of(compare, "frozen") == [1, 0, 1, 0, 1, 0]
    assert hits_of(compare, "PCA") == [1, 0, 0, 1, 0, 0]


def test_queries_that_differ_come_with_ranks_and_neighbours_of_both(sweep):
    compare = made(sweep)["compare"]
    names = compare["names"]
    near = compare["near"]["3"]["1"]
    # Job 0 finds query 1 (rank 1); its neighbours are pictures 2, 3, 4, 5 and 0.
    assert near[0] == 1
    assert [names[place] for place in near[1:]] == [
        "kitchen/2.jpg",
        "bath/3.jpg",
        "bed/4.jpg",
        "kitchen/5.jpg",
        "bath/0.jpg",
    ]
    # It differs from job 1 on queries 1, 2 and 4, and on 3 from the frozen features.
    assert set(compare["near"]["3"]) == {"1", "2", "3", "4"}
    assert compare["near"]["1"]["2"] == [1]


def test_jobs_that_answered_other_queries_are_not_compared(sweep):
    write_job(sweep, 4, ["architecture=other"], val=0.4, ranks=(1, 2, 1))
    compare = made(sweep)["compare"]
    assert (compare["compared"], "4" in [method["name"] for method in compare["methods"]]) == (2, False)


def test_a_broken_table_of_queries_costs_the_page_only_the_comparison(sweep):
    (sweep / "0" / "queries.csv").write_bytes(b"split,path\ntest,\xff\n")
    assert [method["name"] for method in made(sweep)["compare"]["methods"]] == ["1", "frozen", "PCA"]
    (sweep / "1" / "queries.csv").unlink()
    assert made(sweep)["compare"] is None


def test_pictures_lie_in_the_page_and_those_that_are_gone_are_named(tmp_path):
    for number in range(5):
        draw_striped(tmp_path / "photos" / picture(number)[0], 4, number, size=200)
    for number, ranks in enumerate([(1, 1, 2, 1, 3, 2), (2, 1, 1, 1, 1, 2)]):
        write_job(tmp_path / "sweep", number, [f"a={number}"], val=0.6, ranks=ranks, pictures=tmp_path / "photos")
    compare = made(tmp_path / "sweep")["compare"]
    gone = compare["names"].index(picture(5)[0])
    assert compare["pictures"][str(gone)] is None
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in compare["pictures"].values() if uri)
    assert (compare["unreadable"], compare["left_out"]) == (1, 0)


def test_pictures_end_at_the_budget(tmp_path, monkeypatch):
    for number in range(6):
        draw_striped(tmp_path / "photos" / picture(number)[0], 4, number, size=200)
    for number, ranks in enumerate([(1, 1, 2, 1, 3, 2), (2, 1, 1, 1, 1, 2)]):
        write_job(tmp_path / "sweep", number, [f"a={number}"], val=0.6, ranks=ranks, pictures=tmp_path / "photos")
    monkeypatch.setattr("likeness.reports.disagreement._PICTURE_BYTES", 10_000)
    compare = made(tmp_path / "sweep")["compare"]
    assert 0 < sum(map(len, compare["pictures"].values())) <= 10_000
    assert compare["left_out"] == 6 - len(compare["pictures"]) > 0


HOSTILE = "</script><script>alert(1)</script>"


def test_nothing_from_a_file_can_end_the_script(tmp_path):
    folder = write_job(tmp_path / HOSTILE.replace("/", "_"), 0, [f"head={HOSTILE}"], val=0.6)
    write_job(folder.parent, 1, ["head=b"], state="failed", error=HOSTILE, traceback=HOSTILE)
    text = (folder / "queries.csv").read_text().replace("bath", "</script><img src=x>")
    (folder / "queries.csv").write_text(text)
    path = write_page([folder.parent], tmp_path / "page.html")
    page = path.read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    assert job_of(content_of(path), "0")["options"] == [HOSTILE]
    assert content_of(path)["traces"] == [HOSTILE]


def test_names_that_are_no_text_do_not_stop_the_page(tmp_path):
    folder = write_job(tmp_path / "sweep", 0, ["a=1"], val=0.6)
    (folder / "queries.csv").write_bytes((folder / "queries.csv").read_bytes().replace(b"bath/", b"b\xe4d/"))
    assert "b\udce4d/0.jpg" in made(tmp_path / "sweep")["compare"]["names"]


def test_the_page_is_one_file_that_loads_nothing(sweep, tmp_path):
    page = write_page([sweep], tmp_path / "page.html").read_text()
    assert re.findall(r"https?:|//[a-z]+\.|@import|url\(", page) == []
    assert re.findall(r'<link[^>]*href="(.*?)"', page) == ["data:,"]
    assert re.findall(r"<script[^>]* src=|<img", page) == []
    assert "@" + "data@" not in page
    assert "default-src 'none'; img-src data:" in page


def test_runs_and_sweeps_are_taken_together_each_folder_once(sweep, tmp_path):
    run = write_job(tmp_path / "runs", 7, ["noise=masking"], val=0.9)
    found = find_jobs([sweep, run, sweep / "0", run])
    assert [job.name for job in found] == ["runs/7", "sweep/1", "sweep/0", "sweep/2", "sweep/3"]
    assert made(run)["title"] == "7"
    assert made(sweep, run)["title"] == "sweep, 7"


def test_an_option_left_at_its_default_is_read_from_the_run(tmp_path):
    one = write_job(tmp_path, 0, ["architecture=pca"], val=0.6)
    two = write_job(tmp_path, 1, [], val=0.5)
    metrics = json.loads((two / "metrics.json").read_text()) | {"options": {"architecture": "dense", "noise": "none"}}
    (two / "metrics.json").write_text(json.dumps(metrics))
    assert [job["options"] for job in made(one, two)["jobs"]] == [["pca"], ["dense"]]


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_without_runs_is_refused(tmp_path, folder):
    with pytest.raises(LikenessError, match="RUN-MISSING"):
        find_jobs([tmp_path / folder])


@pytest.mark.parametrize(
    ("frozen", "pca", "said"),
    [
        ([0.1, 0.05, 0.2, 0.01], [0.1, 0.05, 0.2, 0.04], "It beats the frozen features and PCA beyond the noise."),
        (
            [0.1, -0.1, 0.2, 0.3],
            [0.1, 0.0, 0.2, 0.04],
            "It beats neither the frozen features nor PCA beyond the noise.",
        ),
        (
            [-0.1, -0.2, -0.05, 0.01],
            [None] * 4,
            "It is worse than the frozen features beyond the noise; against PCA there is no comparison.",
        ),
        (
            [0.1, 0.05, 0.2, 0.05],
            [0.1, 0.05, 0.2, 0.049],
            "It beats PCA beyond the noise; against the frozen features the difference is inside the noise.",
        ),
    ],
)
def test_the_verdict_is_a_plain_sentence(frozen, pca, said):
    assert verdict({"frozen": frozen, "pca": pca}) == said


def test_the_command_writes_beside_the_sweep_or_where_it_is_told(sweep, tmp_path, capsys):
    app.main(["report", str(sweep)])
    app.main(["report", str(sweep), str(sweep / "0"), f"out={tmp_path / 'both.html'}"])
    assert capsys.readouterr().out.split() == [str(sweep / "sweep.html"), str(tmp_path / "both.html")]
    assert content_of(sweep / "sweep.html")["counts"]["jobs"] == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [(["out=a.html"], "FOLDER: missing"), (["x", "uot=a"], "did you mean out?"), (["x", "out=."], "is a folder")],
)
def test_the_command_says_all_that_is_wrong_with_its_words(words, told, capsys):
    with pytest.raises(SystemExit) as left:
        app.main(["report", *words])
    assert left.value.code == 78
    assert told in capsys.readouterr().err


def test_a_multirun_ends_with_the_page(sweep, capsys):
    with pytest.raises(SystemExit):  # a job failed
        EndOfSweep().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}}))
    assert f"the page: {sweep / 'sweep.html'}" in capsys.readouterr().out
    assert content_of(sweep / "sweep.html")["winner"]["job"] == 0


def test_a_page_that_cannot_be_made_costs_a_sweep_nothing(sweep, capsys, caplog):
    (sweep / "sweep.html").mkdir()
    (sweep / "sweep.html" / "file").touch()
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit):
        EndOfSweep().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}}))
    assert "[PAGE] no sweep.html" in caplog.text
    with open(sweep / "scoreboard.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert "the page:" not in capsys.readouterr().out
