"""What wandb really has of a run: read back from its own file, over HTTP from a small server, after outages."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from helpers import ROOT, called, draw_striped
from PIL import Image
from wandb_server import WandbServer, serving

from likeness.runs import dashboard
from likeness.runs.dashboard import Media, WandbRun, read_tracker
from likeness.runs.journal import Journal, JournalLogger, epochs, read
from likeness.runs.trackers import Tolerant

wandb = pytest.importorskip("wandb")

KEY = "canary0key" * 4
SECRETS = {"WANDB_API_KEY": KEY, "AWS_SECRET_ACCESS_KEY": "canary0aws" * 4}
SMALL = (
    "backbone=random",
    "preprocessing=simple",
    "preprocessing.size=32",
    "architecture=dense",
    "architecture.widths=[6]",
    "noise=gaussian",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "batch_size=16",
)


def places(folder: Path) -> dict[str, str]:
    """Where wandb keeps what it keeps outside of a run's folder."""
    return {name: str(folder / name) for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "HOME")}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Two jobs of one process: wandb is offline in the first, and finds no server in the second."""
    place = tmp_path_factory.mktemp("place")
    for period, name in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for i in range(20):
            draw_striped(place / "photos" / name / f"{i}.png", period, i)
    environment = {**os.environ, **SECRETS, **places(place / "wandb"), "OMP_NUM_THREADS": "1"}
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "2", "WANDB_ERROR_REPORTING": "false"}
    options = ("data=folder", "data.root=photos", *SMALL, "logger=wandb", "logger.wandb.media=true")
    jobs = ("logger.wandb.mode=offline,online", "hydra.sweep.dir=outputs/widths", "hydra.sweep.subdir=${hydra.job.num}")
    jobs += (
        "hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    )  # they differ in that
    command = [sys.executable, str(ROOT / "train.py"), "-m", *options, *jobs]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (place / "terminal.txt").write_text(done.stdout + done.stderr)
    return place / "outputs" / "widths"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[WandbServer]:
    """A server for all tests of this file: wandb reads its address once in a process."""
    wandb.teardown()
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {**places(tmp_path_factory.mktemp("wandb")), "WANDB_API_KEY": KEY}.items():
            patch.setenv(name, value)
        patch.setenv("WANDB_BASE_URL", server.url)
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_FINISH_TIMEOUT", "2")
        yield server
        wandb.teardown()


def records(run: Path) -> list[dict[str, Any]]:
    """What wandb wrote, by its own reader."""
    (place,) = run.glob("wandb/offline-run-*")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", place]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in told.splitlines()]


@pytest.fixture(scope="module")
def offline(sweep) -> SimpleNamespace:
    """The first job's run as wandb's own file has it."""
    found = SimpleNamespace(run={}, config={}, summary={}, history=[])
    for record in records(sweep / "0"):
        content = record.get(record["type"], {})
        if record["type"] == "run":
            found.run = content
        elif record["type"] == "config":
            found.config |= content["update"]
        elif record["type"] == "summary":
            found.summary |= content["update"]
        elif record["type"] == "history":
            found.history.append(content["item"])
    return found


def test_a_run_is_grouped_by_its_sweep_and_named_by_its_options(offline):
    assert (offline.run["run_group"], offline.run["job_type"]) == ("widths", "train")
    assert offline.run["tags"] == ["random", "dense", "folder"]
    assert offline.run["display_name"].startswith("data=folder backbone=random preprocessing=simple size=32")
    assert offline.run["project"] == "likeness"


def test_columns_are_scalars_that_can_be_axes(offline, sweep):
    expected = {"backbone": "random", "preprocessing": "simple", "scaling": "standardize", "data": "folder"}
    expected |= {"noise": "gaussian", "noise_std": 0.3, "noise_amount": 0.3, "loss": "mse", "optimizer": "adamw"}
    expected |= {"code_width": 6, "depth": 1, "feature_width": 1024, "parameters": 2 * 6 * 1024 + 6 + 1024, "seed": 0}
    expected |= {"optimizer_lr": 0.001, "batch_size": 16, "folder": str(sweep / "0")}
    assert {name: offline.config[name] for name in expected} == expected
    assert all(isinstance(value, str | int | float) for name, value in offline.config.items() if name != "_wandb")
    assert not any("." in name for name in offline.config)
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    if revision:
        assert revision.startswith(offline.config["git"].removesuffix("-dirty"))


def test_the_summary_has_every_method_with_its_interval_and_every_gain(offline, sweep):
    splits = json.loads((sweep / "0" / "metrics.json").read_text())["splits"]
    for split in ("val", "test"):
        for method, prefix in {"head": "", "frozen": "frozen/", "pca": "pca/"}.items():
            found = splits[split][method]["hit@1"]
            for name, column in {"value": "hit@1", "low": "hit@1_low", "high": "hit@1_high"}.items():
                assert offline.summary[f"{split}/{prefix}{column}"] == found[name]
        for other in ("frozen", "pca", "random_projection"):
            found = splits[split]["paired"][f"head-{other}"]["hit@1"]
            for name, end in {"difference": "", "low": "_low", "high": "_high", "p": "_p"}.items():
                assert offline.summary[f"{split}/gain_over_{other}{end}"] == found[name]
    assert offline.summary["val/hit@1_best"] == max(row["val/hit@1"] for row in offline.history if "val/hit@1" in row)
    assert all(offline.summary[f"seconds/{part}"] > 0 for part in ("extract", "fit", "score"))


def test_the_journal_has_the_same_names_and_values(offline, sweep):
    *_, final = [e for e in read(sweep / "0" / "journal.jsonl") if e["event"] == "metrics" and "epoch" not in e]
    values = {name: value for name, value in final.items() if name not in ("time", "event", "step")}
    assert len(values) > 100
    assert {name: offline.summary[name] for name in values} == values


def test_history_goes_over_epochs_and_loses_no_value(offline, sweep):
    events = read(sweep / "0" / "journal.jsonl")
    logged = [row for row in offline.history if "queries._type" not in row]
    assert [row["epoch"] for row in logged] == [0, 0, 1, 1]
    seen: dict[int, dict[str, float]] = {}
    for row in logged:
        seen.setdefault(row["epoch"], {}).update({k: v for k, v in row.items() if "/" in k})
    assert [{"epoch": epoch, **values} for epoch, values in seen.items()] == epochs(events)
    axes = [record["metric"] for record in records(sweep / "0") if record["type"] == "metric"]
    assert {axis["glob_name"]: axis["step_metric"] for axis in axes if "glob_name" in axis} == {"*": "epoch"}


def test_the_table_shows_queries_with_small_pictures_of_their_neighbours(offline, sweep):
    (path,) = (sweep / "0").glob(f"wandb/offline-run-*/files/{offline.summary['queries.path']}")
    table = json.loads(path.read_text())
    assert table["columns"][:6] == ["query", "label", "rank", "nearest 1", "label 1", "similarity 1"]
    ranks = [row[2] for row in table["data"]]
    assert len(ranks) == 12
    assert ranks == sorted(ranks, reverse=True)
    (artifact,) = [record["artifact"] for record in records(sweep / "0") if record["type"] == "artifact"]
    pictures = [each for each in artifact["manifest"]["contents"] if each["path"].endswith(".jpg")]
    assert len(pictures) == 12  # each picture once, in however many rows it stands
    assert all(int(each["size"]) < 4000 for each in pictures)
    for each in pictures:
        with Image.open(each["local_path"]) as image:
            assert (image.format, max(image.size)) == ("JPEG", 32)


@pytest.mark.fault("F48")
def test_no_server_at_the_start_costs_neither_the_run_nor_a_value(sweep, figure):
    assert json.loads((sweep / "1" / "status.json").read_text())["state"] == "done"
    without, with_wandb = (read(sweep / job / "journal.jsonl") for job in "10")
    assert epochs(without) == epochs(with_wandb)
    kinds = [[event["event"] for event in events] for events in (without, with_wandb)]
    assert kinds[0] == kinds[1]
    told = (sweep.parents[1] / "terminal.txt").read_text()
    assert "[TRACKER] wandb failed and is left out" in told
    assert f"likeness sync {sweep / '0'}" in told
    figure(
        "G15",
        "no server at the start: epochs missing in the journal",
        0,
        len(epochs(with_wandb)) - len(epochs(without)),
    )


@pytest.mark.fault("F46")
def test_no_secret_of_the_environment_is_in_any_file(sweep):
    files = [path for path in sweep.parents[1].rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if b"canary0" in path.read_bytes()] == []


@pytest.fixture(scope="module")
def sent(sweep, server) -> SimpleNamespace:
    """The sweep as if wandb had never been on, with a figure, sent twice."""
    copy = sweep.with_name("copied")
    shutil.copytree(sweep, copy, ignore=shutil.ignore_patterns("wandb", "tracker.json"))
    (copy / "0" / "figures").mkdir()
    Image.new("RGB", (40, 30), "teal").save(copy / "0" / "figures" / "per_class.png")
    first = called("sync", copy)
    assert first.code == 0, first.err
    arrived = {job: server.runs[read_tracker(copy / job)["wandb_id"]] for job in "01"}
    asked = len(server.operations)
    second = called("sync", copy / "0", copy / "1")
    again = server.operations[asked:]
    return SimpleNamespace(folder=copy, first=first, second=second, arrived=arrived, again=again)


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what wandb counts itself."""
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


@pytest.mark.fault("F48")
def test_a_run_that_never_had_wandb_arrives_whole(sent, offline, sweep):
    run = sent.arrived["0"]
    assert run.config == {name: value for name, value in offline.config.items() if name != "_wandb"}
    assert bare(run.history[:4]) == bare(offline.history[:4])
    numbers = {name: value for name, value in offline.summary.items() if "/" in name}
    assert {name: run.summary[name] for name in numbers} == numbers
    assert run.identity == {
        "project": "likeness",
        "groupName": "widths",
        "displayName": offline.run["display_name"],
        "jobType": "train",
        "tags": ["random", "dense", "folder"],
    }
    assert run.complete == 0
    assert [row["_timestamp"] for row in run.history[:4]] == [
        event["time"] for event in read(sweep / "0" / "journal.jsonl") if event["event"] == "metrics"
    ][:4]


def test_figures_and_the_table_are_sent_as_well(sent):
    run = sent.arrived["0"]
    (figure,) = [content for name, content in run.files.items() if name.startswith("media/images/figures/per_class")]
    with Image.open(io.BytesIO(figure)) as image:
        assert image.size == (40, 30)
    assert any(name.startswith("media/table/queries") for name in run.files)
    assert len(run.history) == 5


def test_nothing_of_the_sending_machine_or_its_environment_is_sent(sent):
    for run in sent.arrived.values():
        assert not {"wandb-metadata.json", "requirements.txt", "output.log"} & run.files.keys()
        everything = json.dumps([run.config, run.history, run.summary, run.identity]).encode() + b"".join(
            run.files.values()
        )
        assert b"canary0" not in everything


@pytest.mark.fault("F48")
def test_a_second_sync_sends_nothing_and_says_so(sent):
    assert (sent.second.code, sent.again) == (0, [])
    assert sent.second.out.count("nothing new") == 2
    assert "tester/likeness/runs" in sent.first.out
    events = len(read(sent.folder / "0" / "journal.jsonl"))
    assert read_tracker(sent.folder / "0") | {"wandb_id": ""} == {"wandb_id": "", "sent": events, "media": True}


def begin(folder: Path) -> tuple[Journal, JournalLogger, Tolerant]:
    """A run in this process, its journal first and wandb second."""
    journal = Journal(folder / "journal.jsonl")
    journal.write("run", name="small", job_type="train")
    loggers = JournalLogger(journal), Tolerant(lambda: WandbRun(folder, {"project": "p"}, "online"), "wandb")
    for logger in loggers:
        logger.log_hyperparams({"code_width": 4})
    return journal, *loggers


def log_epoch(loggers: tuple[JournalLogger, Tolerant], epoch: int) -> None:
    for logger in loggers:
        logger.log_metrics({"val/loss": 1 / (epoch + 1), "epoch": epoch}, 10 * epoch)


@pytest.mark.fault("F48")
@pytest.mark.parametrize("fails", [500, "gone"])
def test_a_server_that_dies_in_mid_run_costs_nothing_and_the_rest_is_sent_later(
    server, tmp_path, caplog, fails, figure
):
    _, *loggers = begin(tmp_path)
    run = server.runs[read_tracker(tmp_path)["wandb_id"]]
    log_epoch(loggers, 0)
    dashboard.finish()
    assert [row["epoch"] for row in run.history] == [0]

    loggers[1] = Tolerant(lambda: WandbRun(tmp_path, {"project": "p"}, "online"), "wandb")
    loggers[1].log_hyperparams({"code_width": 4})  # as a resumed job does
    server.fails = fails
    for epoch in (1, 2, 3):
        log_epoch(loggers, epoch)
    for logger in loggers:
        logger.log_metrics({"test/hit@1": 0.5})
    dashboard.finish()
    server.fails = 0
    assert "wandb did not finish" in caplog.text
    assert "sent" not in read_tracker(tmp_path)
    kept = [row["epoch"] for row in epochs(read(tmp_path / "journal.jsonl"))]
    figure("G15", f"wandb's server {fails}: epochs missing in the journal, of 4", 0, len({0, 1, 2, 3} - set(kept)))

    (tmp_path / "status.json").write_text('{"state": "done"}')
    done = called("sync", tmp_path)
    assert done.code == 0, done.err
    assert [(row["epoch"], row["val/loss"]) for row in run.history] == [(0, 1), (1, 0.5), (2, 1 / 3), (3, 0.25)]
    assert run.summary["test/hit@1"] == 0.5
    figure("G15", f"wandb's server {fails}: epochs missing there after likeness sync, of 4", 0, 4 - len(run.history))


def test_runs_of_one_process_do_not_merge_and_a_failed_one_is_marked(server, tmp_path):
    ids = []
    for name, exit_code in (("a", 0), ("b", 1)):
        log_epoch(begin(tmp_path / name)[1:], 0)
        dashboard.finish(exit_code)
        ids.append(read_tracker(tmp_path / name)["wandb_id"])
        assert wandb.run is None
    assert [(len(server.runs[each].history), server.runs[each].complete) for each in ids] == [(1, 0), (1, 1)]


@pytest.mark.fault("F48")
def test_without_a_key_sync_says_what_is_kept_and_the_way_out(server, tmp_path, monkeypatch):
    Journal(tmp_path / "9" / "journal.jsonl").write("metrics", epoch=0)
    monkeypatch.delenv("WANDB_API_KEY")
    done = called("sync", tmp_path)
    assert done.code == 69
    assert "[NET] 1 run is not sent to wandb." in done.err
    assert "no key for 127.0.0.1" in done.err
    assert "Every value is in the runs' journals" in done.err
    assert "wandb login" in done.err


@pytest.mark.fault("F48")
def test_a_server_that_goes_while_sending_leaves_the_rest_for_later(server, tmp_path, monkeypatch):
    for name in "ab":
        Journal(tmp_path / name / "journal.jsonl").write("metrics", step=0, epoch=0, loss=1.0)

    def gone(self: WandbRun, media: Media) -> None:
        server.fails = "gone" if self.folder.name == "b" else 0

    monkeypatch.setattr(WandbRun, "log_media", gone)
    done = called("sync", tmp_path)
    server.fails = 0
    assert done.code == 69
    assert "[NET] 1 run is not sent to wandb." in done.err
    assert [read_tracker(tmp_path / name).get("sent") for name in "ab"] == [1, None]


@pytest.mark.fault("F48")
def test_rows_that_the_server_refuses_are_not_taken_for_sent(server, tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "_SECONDS_BETWEEN_ASKING", 0.01)
    Journal(tmp_path / "journal.jsonl").write("metrics", step=0, epoch=0, loss=1.0)
    server.refuses = True
    done = called("sync", tmp_path)
    server.refuses = False
    assert done.code == 69
    assert "wandb's server did not take everything: it has the run as running" in done.err
    assert "sent" not in read_tracker(tmp_path)


def test_a_run_that_is_still_going_is_left_for_later(server, tmp_path):
    Journal(tmp_path / "journal.jsonl").write("metrics", epoch=0)
    with FileLock(tmp_path / ".lock"):
        done = called("sync", tmp_path)
    assert done.code == 0
    assert "still running, left for later" in done.out


def test_a_folder_without_a_run_is_named(server, tmp_path):
    done = called("sync", tmp_path)
    assert done.code == 66
    assert f"where : {tmp_path}" in done.err


def test_what_a_later_run_set_aside_is_not_sent_and_jobs_go_in_order(tmp_path):
    from likeness.runs.sync import find_runs

    for name in ("10", "9", "9/earlier-1"):
        Journal(tmp_path / name / "journal.jsonl").write("metrics", epoch=0)
    assert [path.name for path in find_runs([tmp_path, tmp_path / "9"])] == ["9", "10"]


def test_numbers_that_are_not_finite_come_back_from_the_journal(tmp_path):
    logger = JournalLogger(Journal(tmp_path / "journal.jsonl"))
    logger.log_metrics({"a": float("inf"), "b": 1.5, "epoch": 0}, 3)
    logger.log_metrics({"c": 2.0})
    events = read(tmp_path / "journal.jsonl")
    assert dashboard.history(events) == [
        {"_timestamp": events[0]["time"], "a": float("inf"), "b": 1.5, "epoch": 0, "global_step": 3}
    ]
    assert dashboard.results(events) == {"c": 2.0}
