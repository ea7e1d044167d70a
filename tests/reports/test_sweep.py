import csv
import json

import pytest
from omegaconf import OmegaConf
from PIL import Image

from likeness.reports import gains
from likeness.reports.sweep import EndOfSweep

# Hits of val and test by seed; the frozen features have the first two of four.
HITS = {"0": ("1110", "1100"), "1": ("1111", "1110")}


@pytest.fixture
def job(tmp_path):
    """Leaves what a job leaves."""

    def leave(number, seed="0", experiment=None, protocol=None, state="done", width=128, **options):
        folder = tmp_path / str(number)
        folder.mkdir()
        chosen = {"experiment": experiment, "protocol": protocol, **options, "seed": seed}
        overrides = [f"{name.replace('__', '.')}={value}" for name, value in chosen.items() if value is not None]
        error = "out of memory" if state == "failed" else None
        status = {"state": state, "job": number, "overrides": overrides, "error": error}
        (folder / "status.json").write_text(json.dumps(status))
        if state != "done":
            return
        text, splits = "split,path,home,skipped,rank,frozen_rank\n", {}
        for split, hits in zip(("val", "test"), HITS[seed], strict=True):
            ranks = zip(*(["1" if hit == "1" else "3" for hit in found] for found in (hits, "1100")), strict=True)
            text += "".join(f"{split},{i}.jpg,,0,{','.join(rank)}\n" for i, rank in enumerate(ranks))
            share = {"value": hits.count("1") / 4, "low": 0.25, "high": 1.0}
            splits[split] = {"n": 4, "head": {"hit@1": share, "published_top5": share, "hit@5": share}}
        (folder / "queries.csv").write_text(text)
        metrics = {"splits": splits, "options": {"experiment": experiment, "protocol": protocol}, "code_width": width}
        metrics |= {"backbone": "shufflenet_rooms", "seed": int(seed), "epochs": 9, "data": {"root": "/a/rooms"}}
        (folder / "metrics.json").write_text(json.dumps(metrics))

    return leave


@pytest.fixture
def end(tmp_path, capsys):
    """Ends the sweep; returns what was printed."""

    def of_sweep():
        EndOfSweep().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
        return capsys.readouterr().out

    return of_sweep


def left_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_sweep_over_the_thesis_leaves_every_table_and_says_where(job, end, tmp_path):
    jobs = [(row, protocol, seed) for row in ("512", "128") for protocol in ("as_published", "mended") for seed in "01"]
    for number, (row, protocol, seed) in enumerate(jobs):
        job(number, seed, f"thesis/table3_{row}", protocol)
    said = end()
    tables = {"scoreboard.csv", "seeds.csv", "seeds.md", "replication.csv", "replication.md"}
    assert left_in(tmp_path) == tables | {"gains.png", "sweep.html"}
    for line in ("all jobs: {}/scoreboard.csv", "means over seeds: {}/seeds.csv"):
        assert line.format(tmp_path) in said.splitlines()
    assert f"published beside measured: {tmp_path}/replication.csv" in said.splitlines()
    assert said.index("best by val hit@1") < said.index("means over seeds, percent")
    assert said.index("means over seeds, percent") < said.index("published beside measured, test")

    assert len(rows_of(tmp_path / "scoreboard.csv")) == 8
    seeds = rows_of(tmp_path / "seeds.csv")
    assert [(row["split"], row["seeds"], row["hit@1"]) for row in seeds] == [("val", "2", "0.875")] * 4 + [
        ("test", "2", "0.625")
    ] * 4
    assert {row["over_frozen"] for row in seeds[4:]} == {"0.125"}
    measured = rows_of(tmp_path / "replication.csv")
    assert len(measured) == 8 * 2 * 3
    assert [row["published"] for row in measured if row["measure"] == "hit@1"] == ["0.7832", "0.7714"] * 4 + [
        "0.7738",
        "0.7752",
    ] * 4
    names = [line.split(" | ")[0] for line in (tmp_path / "replication.md").read_text(encoding="utf-8").splitlines()]
    assert names[2:6] == [f"| table3_{row}, seed {seed}" for row in ("512", "128") for seed in "01"]
    assert len((tmp_path / "seeds.md").read_text(encoding="utf-8").splitlines()) == 10
    with Image.open(tmp_path / "gains.png") as image:
        assert image.format == "PNG"


def test_a_sweep_over_widths_leaves_a_curve_and_nothing_of_the_thesis(job, end, tmp_path):
    for number, (width, seed) in enumerate((width, seed) for width in (8, 16, 32) for seed in "01"):
        job(number, seed, width=width, architecture__widths=f"[{width}]")
    said = end()
    assert left_in(tmp_path) == {"scoreboard.csv", "seeds.csv", "seeds.md", "gains.png", "widths.png", "sweep.html"}
    assert "published" not in said


def test_figures_are_of_the_last_split(job, end, monkeypatch):
    drawn = {}
    for draw in ("draw_gains", "draw_widths"):
        monkeypatch.setattr(gains, draw, lambda rows, path: drawn.update({path.name: [row["split"] for row in rows]}))
    for number, seed in enumerate("01"):
        job(number, seed)
    end()
    assert drawn == {"gains.png": ["test"], "widths.png": ["test"]}


def test_without_seeds_there_is_one_table(job, end, tmp_path):
    job(0, noise="none")
    job(1, noise="masking")
    assert "over seeds" not in end()
    assert left_in(tmp_path) == {"scoreboard.csv", "sweep.html"}


def test_a_job_that_failed_fails_the_sweep_after_every_table_was_written(job, end, tmp_path, capsys):
    for number, seed in enumerate("01"):
        job(number, seed, "thesis/table3_512", "mended")
    job(2, "0", "thesis/table3_128", "mended", state="failed")
    with pytest.raises(SystemExit) as ended:
        end()
    assert ended.value.code == 1
    assert "job 2 failed: out of memory" in capsys.readouterr().out
    assert {"scoreboard.csv", "seeds.csv", "replication.csv"} <= left_in(tmp_path)
    assert {row["row"] for row in rows_of(tmp_path / "replication.csv")} == {"table3_512"}
