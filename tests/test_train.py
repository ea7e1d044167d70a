"""The two commands as a user types them, on generated pictures and the bundled backbone."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, draw_striped
from safetensors.numpy import load_file

OUTPUTS = ("config.yaml", "metrics.json", "journal.jsonl", "queries.csv", "status.json", "csv/metrics.csv")
FIGURES = ("confusion", "neighbours_good", "neighbours_worst", "per_class", "projection", "training_curve")


def call(folder: Path, script: str, *overrides: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, str(ROOT / script), *overrides]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


def timeless(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if not name.startswith("seconds/")}


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


SMALL = (
    "preprocessing.size=64",
    "architecture=dense",
    "architecture.widths=[16]",
    "trainer.max_epochs=4",
    "batch_size=16",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Pictures of three classes from twenty homes, and a finished run on them."""
    place = tmp_path_factory.mktemp("some folder")
    for period, name in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for home in range(20):
            draw_striped(place / "photos" / name / f"home{home:03d}.png", period, home)
    data = ("data=folder", "data.root=photos", r"data.home_pattern=home\d+")
    done = call(place, "train.py", *data, *SMALL, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    (place / "terminal.txt").write_text(done.stdout)
    return place


def test_a_run_leaves_what_it_promises(place):
    for name in OUTPUTS:
        assert (place / "run" / name).stat().st_size > 0, name
    for name in ("best", "last", "baselines"):
        assert (place / "run" / "checkpoints" / f"{name}.ckpt").exists() or name == "last"
    for name in FIGURES:
        assert (place / "run" / "figures" / f"{name}.png").stat().st_size > 5000, name
    gallery = (place / "run" / "figures" / "gallery.html").read_text()
    assert '"left_out":{"queries":0,"pictures":0}' in gallery
    assert '"unreadable":0' in gallery
    assert "gallery.html" in (place / "terminal.txt").read_text()
    assert json.loads((place / "run" / "status.json").read_text())["state"] == "done"


def test_metrics_say_everything_a_script_needs(place):
    metrics = metrics_of(place / "run")
    assert metrics["schema"] == 1
    assert metrics["features"] == {"rows": 60, "computed": 60, "reused": 0, "bad": 0, "mostly_white": 0}
    assert (metrics["code_width"], metrics["epochs"]) == (16, 4)
    assert metrics["parameters"] == 2 * 16 * 1024 + 16 + 1024
    assert metrics["seconds"].keys() >= {"extract", "fit", "score"}
    test = metrics["splits"]["test"]
    assert test["n"] == 12
    for method in ("head", "frozen", "pca", "random_projection"):
        for measure in ("hit@1", "hit@5", "precision@5", "map@r", "mrr", "vote@5", "published_top5"):
            found = test[method][measure]
            assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1, (method, measure)
    for pair in ("head-frozen", "head-pca", "head-random_projection"):
        assert test["paired"][pair]["hit@1"].keys() == {"difference", "low", "high", "p"}
    assert test["chance"]["hit@1"] == pytest.approx(3 / 11)  # 4 of a class among 12: 3 right ones in 11 candidates
    assert len(metrics["extractor"]["fingerprint"]) == 64


def test_the_terminal_shows_the_numbers(place):
    shown, metrics = (place / "terminal.txt").read_text(), metrics_of(place / "run")
    for method in ("head", "frozen", "pca", "random_projection"):
        assert f"{100 * metrics['splits']['test'][method]['hit@1']['value']:.1f} [" in shown
    assert "head − frozen" in shown
    assert "0 reused, 60 computed" in shown


def stored_rows(place: Path) -> dict[bytes, np.ndarray]:
    shards = [load_file(path) for path in (place / "outputs" / "features").rglob("shard-*.safetensors")]
    return {key.tobytes(): row for shard in shards for key, row in zip(shard["keys"], shard["features"], strict=True)}


def by_hand(rows: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """hit@1 and hit@5 within a split: float64 cosines, ties by position, nothing of the project's."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    similarity = (unit @ unit.T).astype(np.float32)
    np.fill_diagonal(similarity, -2)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :5]
    right = labels[nearest] == labels[:, None]
    return right[:, 0].mean(), right.any(1).mean()


def check_frozen(place: Path, root: Path, run: Path) -> None:
    import hashlib

    stored = stored_rows(place)
    queries = rows_of(run / "queries.csv")
    for split, found in metrics_of(run)["splits"].items():
        own = [query for query in queries if query["split"] == split]
        digests = [hashlib.sha256((root / query["path"]).read_bytes()).digest() for query in own]
        rows, labels = np.stack([stored[digest] for digest in digests]), np.array([query["label"] for query in own])
        hit1, hit5 = by_hand(rows, labels)
        assert found["frozen"]["hit@1"]["value"] == pytest.approx(hit1, abs=1e-6)
        assert found["frozen"]["hit@5"]["value"] == pytest.approx(hit5, abs=1e-6)


def test_frozen_scores_are_those_of_numpy(place):
    check_frozen(place, place / "photos", place / "run")


def test_queries_name_their_neighbours(place):
    queries = rows_of(place / "run" / "queries.csv")
    test = [query for query in queries if query["split"] == "test"]
    hits = np.mean([query["label"] == query["label_1"] for query in test])
    assert hits == pytest.approx(metrics_of(place / "run")["splits"]["test"]["head"]["hit@1"]["value"])
    for query in queries:
        similarities = [float(query[f"similarity_{i}"]) for i in range(1, 6)]
        assert similarities == sorted(similarities, reverse=True)
        assert query["path"] not in [query[f"path_{i}"] for i in range(1, 6)]
        assert query["home"] == Path(query["path"]).stem
        first = next((i for i in range(1, 6) if query[f"label_{i}"] == query["label"]), 6)
        assert int(query["rank"]) == first or (first == 6 and int(query["rank"]) > 5)
    homes = {split: {query["home"] for query in queries if query["split"] == split} for split in ("val", "test")}
    assert not homes["val"] & homes["test"]


def test_evaluating_a_run_gives_its_numbers_exactly(place):
    done = call(place, "evaluate.py", "run=run", "hydra.run.dir=evaluated", "figures.draw=none")
    assert done.returncode == 0, done.stderr
    assert metrics_of(place / "evaluated")["splits"] == metrics_of(place / "run")["splits"]
    assert metrics_of(place / "evaluated")["features"]["computed"] == 0
    assert (place / "evaluated" / "queries.csv").read_text() == (place / "run" / "queries.csv").read_text()


def test_a_head_is_scored_on_other_pictures_and_against_a_gallery(place):
    for period, name in ((3, "thin"), (30, "thick")):
        for i in range(8):
            draw_striped(place / "others" / name / f"{i}.png", period, 100 + i)
    checkpoint = "checkpoint=run/checkpoints/best.ckpt"
    done = call(place, "evaluate.py", checkpoint, "data.root=others", "hydra.run.dir=elsewhere", "figures.draw=none")
    assert done.returncode == 0, done.stderr
    assert metrics_of(place / "elsewhere")["splits"]["all"]["n"] == 16
    left_out = ("rejection.left_out=[fine]", "rejection.rate=0.2", "rejection.k=3")
    against = ("gallery=train", "split=test", "hydra.run.dir=against", *left_out)
    done = call(place, "evaluate.py", checkpoint, *against)
    assert done.returncode == 0, done.stderr
    found = metrics_of(place / "against")["splits"]["test against train"]
    assert found["n"] == 12
    assert found["chance"]["hit@1"] == pytest.approx(1 / 3)  # 12 of each class in train
    assert sum(row["n"] for row in found["votes"].values()) == 12
    assert "test against train vote@5 of the head" in done.stdout
    rejection = metrics_of(place / "against")["rejection"]
    assert (rejection["searched"], rejection["n"]) == (24, {"held_out": 8, "known": 8, "outside": 4})
    assert 0 <= rejection["head"]["auroc"]["value"] <= 1
    assert "rejection of fine" in done.stdout
    for name in ("confusion", "rejection"):
        assert (place / "against" / "figures" / f"{name}.png").stat().st_size > 5000


def test_pictures_that_the_head_was_trained_on_are_named(place):
    where = ("data.root=photos", "split=train", "gallery=all", "metric.ks=[1,3]", "hydra.run.dir=trained_on")
    done = call(place, "evaluate.py", "run=run", *where, "figures.draw=none")
    assert done.returncode == 0, done.stderr
    splits = metrics_of(place / "trained_on")["splits"]["train against all"]
    trained = splits["n"]
    assert f"the head was trained on {trained} of these {trained} pictures" in done.stderr
    assert splits["head"].keys() >= {"hit@1", "hit@3"}
    assert splits["chance"]["hit@1"] == pytest.approx(19 / 59)


def test_the_store_of_training_is_found_from_anywhere(place, tmp_path):
    done = call(tmp_path, "evaluate.py", f"run={place / 'run'}", "hydra.run.dir=here", "figures.draw=none")
    assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "here")["features"]["computed"] == 0


LONG = (
    "data=folder",
    "data.root=photos",
    *SMALL[:3],
    "batch_size=16",
    "trainer.max_epochs=60",
    "noise=gaussian",
    "callbacks.early_stopping.patience=1000",
    "callbacks.resume.every_n_epochs=1",
    "figures.draw=none",
    "logger=csv",
)


def logged(folder: Path) -> int:
    """Lines in a run's journal so far."""
    path = folder / "journal.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def end_by(sent: signal.Signals, place: Path, lines: int, **environment: str) -> tuple[int, str]:
    """Start the long run, send a signal when its journal has that many lines, and give its exit code and last words."""
    command = [sys.executable, str(ROOT / "train.py"), *LONG, "hydra.run.dir=cut"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True) as job:
        while logged(place / "cut") < lines or not list((place / "cut" / "checkpoints").glob("resume-*")):
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.02)
        job.send_signal(sent)
        return job.wait(60), job.stderr.read()


@pytest.mark.fault("F35")
def test_a_run_that_was_killed_and_then_preempted_gives_the_numbers_of_one_that_was_not(place):
    """The same command, three times: SIGKILL, then Slurm's SIGUSR1, then to the end. Slurm is asked nothing by us."""
    (place / "bin").mkdir()
    (place / "bin" / "scontrol").write_text(f"#!/bin/sh\ntouch {place}/requeued")
    (place / "bin" / "scontrol").chmod(0o755)
    slurm = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost"}
    slurm |= dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "0")
    slurm["PATH"] = f"{place / 'bin'}:{os.environ['PATH']}"
    cut, status = place / "cut", place / "cut" / "status.json"

    assert end_by(signal.SIGKILL, place, 15)[0] == -signal.SIGKILL
    assert json.loads(status.read_text())["state"] == "running"
    code, said = end_by(signal.SIGUSR1, place, logged(cut) + 15, **slurm)
    assert code == 75, said
    found = int(re.search(r"\[RESUME\] found step (\d+)", said)[1])
    step = int(re.search(r"preempted at step (\d+); saved; resume with the same command\n$", said)[1])
    assert 0 < found < step
    assert json.loads(status.read_text())["state"] == "preempted"
    assert not (place / "requeued").exists()
    done = call(place, "train.py", *LONG, "hydra.run.dir=cut")
    assert done.returncode == 0, done.stderr
    assert f"[RESUME] found step {step}" in done.stderr
    assert not list(cut.glob("earlier-*"))
    assert [path.name for path in (cut / "checkpoints").glob("*.ckpt") if "resume" in path.name] == []

    done = call(place, "train.py", *LONG, "hydra.run.dir=uncut")
    assert done.returncode == 0, done.stderr
    own = ("seconds", "features")
    one, other = ({k: v for k, v in metrics_of(place / run).items() if k not in own} for run in ("cut", "uncut"))
    assert one == other
    one, other = (rows_of(place / run / "csv" / "metrics.csv") for run in ("cut", "uncut"))
    assert [timeless(row) for row in one] == [timeless(row) for row in other]
    events = [json.loads(line) for line in (cut / "journal.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "resumed_from"] == [found, step]


# train.py, with a signal in the third call of what is named first; it writes down which pictures the network saw.
SIGNALLED = """
import hashlib, itertools, runpy, signal, sys
from pathlib import Path
from likeness.features.extraction import Extractor
from likeness.heads.autoencoder import Autoencoder

def watch(owner, name, sent):
    def watched(self, batch, *rest):
        call = next(calls)
        if owner is Extractor:
            with open("seen.txt", "a") as file:
                file.writelines(hashlib.sha256(each.numpy().tobytes()).hexdigest() + "\\n" for each in batch)
        if sent and call == 3:
            signal.raise_signal(signal.Signals[sent])
        return real(self, batch, *rest)

    calls, real = itertools.count(1), getattr(owner, name)
    setattr(owner, name, watched)

_, extracting, training, script, *options = sys.argv
watch(Extractor, "__call__", extracting)
watch(Autoencoder, "_shown", training)
sys.argv = [script, *options]
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.fault("F36")
def test_a_run_that_is_ended_while_it_extracts_and_while_it_trains_goes_on_as_the_same_run(place):
    """No picture is shown to the network twice, and on wandb it is one run."""
    pytest.importorskip("wandb")
    (place / "signalled.py").write_text(SIGNALLED)
    options = ("data=folder", "data.root=photos", *SMALL, "extraction.batch_size=8", "paths.store=another")
    options += ("figures.draw=none", "logger=wandb", "hydra.run.dir=signalled")
    told = {}
    for extracting, training in (("SIGUSR1", ""), ("", "SIGTERM"), ("", "")):
        done = call(place, place / "signalled.py", extracting, training, str(ROOT / "train.py"), *options)
        told[extracting or training] = done.returncode, done.stderr.splitlines()[-1]
        seen = (place / "seen.txt").read_text().split()
        assert len(seen) == len(set(seen)), done.stderr
        assert 24 <= len(seen) < 60 if extracting else len(seen) == 60, done.stderr
    kept = "preempted; features and checkpoints are kept; resume with the same command"
    assert told["SIGUSR1"] == (75, kept)
    assert told["SIGTERM"] == (75, "preempted at step 3; saved; resume with the same command")
    assert told[""][0] == 0
    assert not list((place / "signalled").glob("earlier-*"))
    known = json.loads((place / "signalled" / "tracker.json").read_text())["wandb_id"]
    ids = [path.stem.removeprefix("run-") for path in (place / "signalled").glob("wandb/offline-run-*/run-*.wandb")]
    assert ids == [known, known], "one file a process that trained"


def test_another_backbone_under_a_checkpoint_is_refused(place):
    import torch
    from safetensors.torch import save_file

    from likeness.features.weights import read_bundled

    state = read_bundled("shufflenet_v2_x0_5")
    save_file({**state, "conv1.0.weight": state["conv1.0.weight"] + torch.tensor(0.5)}, place / "other.safetensors")
    done = call(place, "evaluate.py", "run=run", "backbone.weights=other.safetensors", "hydra.run.dir=refused")
    assert done.returncode == 65
    assert "[CKPT-EXTRACTOR]" in done.stderr
    assert "backbone.weights: trained with" in done.stderr


def test_a_sweep_ends_with_one_table_whatever_fails(place):
    data = ("data=folder", "data.root=photos", "figures.draw=none", "hydra.sweep.dir=sweep")
    grid = ("architecture=identity,conv", "seed=0,1")
    done = call(place, "train.py", "-m", *data, *(o for o in SMALL if "architecture" not in o), *grid)
    assert done.returncode == 1
    rows = rows_of(place / "sweep" / "scoreboard.csv")
    assert [row["state"] for row in rows] == ["done", "done", "failed", "failed"]
    assert {row["architecture"] for row in rows[:2]} == {"identity"}
    assert "spatial features" in rows[2]["error"]
    assert "2 heads tried" in done.stdout
    page = (place / "sweep" / "sweep.html").read_text()
    assert '"states":{"done":2,"failed":2}' in page
    assert '"left_out":0,"unreadable":0' in page
    assert all(metrics_of(place / "sweep" / row["folder"])["features"]["computed"] == 0 for row in rows[:2])


def test_bad_pictures_stop_the_run_with_all_their_names(place):
    for i in range(8):
        draw_striped(place / "spoilt" / "fine" / f"{i}.png", 4, i)
        draw_striped(place / "spoilt" / "coarse" / f"{i}.png", 25, i)
    for name in ("0.png", "1.png"):
        (place / "spoilt" / "fine" / name).write_bytes(b"<html>")
    data = ("data=folder", "data.root=spoilt", "preprocessing.size=64", "architecture=pca", "metric.ks=[1]")
    quick = ("figures.draw=none", "data.fractions=[0.5,0.25,0.25]", "architecture.width=4")
    done = call(place, "train.py", *data, *quick, "hydra.run.dir=stopped")
    assert done.returncode == 65
    assert "[IMG-BAD] 2 of 16" in done.stderr
    assert "fine/0.png" in done.stderr
    assert "fine/1.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((place / "stopped" / "status.json").read_text())["state"] == "failed"
    done = call(place, "train.py", *data, *quick, "data.on_bad_image=quarantine", "hydra.run.dir=went_on")
    assert done.returncode == 0, done.stderr
    assert metrics_of(place / "went_on")["features"] | {"mostly_white": 0} == {
        "rows": 14,
        "computed": 0,
        "reused": 14,
        "bad": 2,
        "mostly_white": 0,
    }
    assert len(rows_of(place / "went_on" / "bad_images.csv")) == 2


def test_real_photos_are_found_far_above_chance(rooms, squeezenet_weights, tmp_path):
    """SqueezeNet's ImageNet features of real rooms, 30 of each kind and split; the same numbers from NumPy."""
    for split in ("train", "val", "test"):
        for kind in sorted((rooms / split).iterdir()):
            folder = tmp_path / "some" / split / kind.name
            folder.mkdir(parents=True)
            for photo in sorted(kind.iterdir())[:30]:
                (folder / photo.name).symlink_to(photo)
    weights = (f"backbone.weights={squeezenet_weights}", "backbone=squeezenet1_1", "preprocessing=imagenet")
    data = ("data=folder", "data.root=some", "architecture=identity", "figures.draw=none", "hydra.run.dir=run")
    done = call(tmp_path, "train.py", *data, *weights)
    assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "run")["splits"]["test"]["frozen"]["hit@1"]["low"] > 1.5 / 6
    check_frozen(tmp_path, tmp_path / "some", tmp_path / "run")
