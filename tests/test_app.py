"""The ``likeness`` command: its options, its refusals, and maps of a small run from end to end."""

import csv
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, called, draw_striped
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.numpy import save_file

from likeness import labelling
from likeness.assembly import (
    baselines,
    extracting,
    filling,
    modules,
    projecting,
    reporting,
    scoring,
    splitting,
    training,
)
from likeness.commands import project, weights
from likeness.config.checking import checked
from likeness.config.composing import composed, register
from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Features
from likeness.images.table import Row, tabulate
from likeness.model import load
from likeness.reports.projection import FEWEST_ROWS
from likeness.reports.projection_grid import Drawn
from likeness.runs.folder import RunFolder

SMALL = (
    "architecture=dense",
    "backbone=random",
    "preprocessing=simple",
    "preprocessing.size=32",
    "architecture.widths=[6]",
)
QUICK = ("trainer.max_epochs=2", "trainer.accelerator=cpu", "batch_size=8", "logger=none")


def trained(place: Path, *overrides: str) -> Path:
    """The folder of a run of a few seconds, made of the parts that train.py calls."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        data = ("data=folder", f"data.root={place / 'photos'}", f"paths.store={place / 'store'}")
        config = checked(compose("train", [*data, *SMALL, *QUICK, *overrides]))
    folder = RunFolder(place / "run", config)
    trainer = training.build_trainer(config, folder)
    extractor = extracting.build_extractor(config)
    data = splitting.build_data(config, extracting.find_features(config, extractor))
    card = modules.build_card(config, {"architecture": "dense", "backbone": "random"}, extractor, data)
    module = modules.build_head(config, data.feature_shape, card)
    training.fit(trainer, module, data, folder)
    methods = baselines.fit_methods(module, data, config["seed"], folder)
    results = scoring.score_splits(methods, data, ("val", "test"), None, config["metric"])
    reporting.write_results(results, module, data, folder, trainer)
    (folder.path / "status.json").write_text('{"state": "done"}')
    return folder.path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on 20 / 8 / 8 pictures of two classes."""
    place = tmp_path_factory.mktemp("place")
    for period, name in ((4, "fine"), (25, "coarse")):
        for i, split in enumerate(["train"] * 10 + ["val"] * 4 + ["test"] * 4):
            draw_striped(place / "photos" / split / name / f"{i}.png", period, i)
    return trained(place)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def projected(run) -> SimpleNamespace:
    """What ``likeness project`` says, and leaves, of val and test."""
    done = called("project", f"run={run}", "perplexity=3,6.5", "split=val,test")
    assert done.code == 0, done.err
    return SimpleNamespace(folder=run / "figures" / "projections", out=done.out)


def test_every_split_has_a_figure_and_all_have_a_table(projected):
    assert sorted(path.name for path in projected.folder.iterdir()) == [
        "kl.csv",
        "kl.md",
        "projection_test.png",
        "projection_val.png",
    ]
    with Image.open(projected.folder / "projection_test.png") as image:
        assert image.format == "PNG"
    rows = rows_of(projected.folder / "kl.csv")
    of_methods = [(name, at) for name in ("head", "frozen", "pca", "random_projection") for at in ("3.0", "6.5")]
    assert [(row["split"], row["method"], row["perplexity"]) for row in rows] == [
        (split, *pair) for split in ("val", "test") for pair in of_methods
    ]
    assert {row["rows"] for row in rows} == {"8"}
    assert all(float(row["kl"]) > 0 for row in rows)


def test_hits_are_those_of_training(run, projected):
    splits = json.loads((run / "metrics.json").read_text())["splits"]
    for row in rows_of(projected.folder / "kl.csv"):
        known = splits[row["split"]][row["method"]]["hit@1"]
        found = [float(row[name]) for name in ("hit@1", "hit@1_low", "hit@1_high")]
        assert found == [known["value"], known["low"], known["high"]]


def test_the_terminal_and_the_markdown_say_the_same(projected):
    for row in rows_of(projected.folder / "kl.csv"):
        assert f"{float(row['kl']):.2f}" in projected.out
    assert "random → dense, t-SNE" in projected.out
    told = (projected.folder / "kl.md").read_text()
    assert told.startswith("random → dense, t-SNE")
    assert "highest hit@1: " in told


def test_the_same_numbers_come_twice_wherever_they_go(run, projected, tmp_path):
    done = called("project", f"run={run}", "perplexity=[6.5]", "split=test", f"out={tmp_path / 'again'}")
    assert done.code == 0, done.err
    again = rows_of(tmp_path / "again" / "kl.csv")
    assert again == [
        row for row in rows_of(projected.folder / "kl.csv") if (row["split"], row["perplexity"]) == ("test", "6.5")
    ]
    assert len(again) == 4


def test_a_sample_is_said_to_be_one_and_hits_stay_those_of_the_split(run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        done = called("project", f"run={run}", "perplexity=2", "split=train", "rows=12", f"out={tmp_path}")
    assert done.code == 0, done.err
    assert "12 of 20" in done.out
    rows = rows_of(tmp_path / "kl.csv")
    assert {(row["rows"], row["labelled"]) for row in rows} == {("12", "20")}
    assert {round(20 * float(row["hit@1"]), 6) % 1 for row in rows} == {0.0}
    assert "DATA-LEAK" not in caplog.text


def test_a_split_that_is_too_small_for_a_perplexity_is_refused_before_the_first_map(run, tmp_path):
    done = called("project", f"run={run}", "perplexity=7.5,8", f"out={tmp_path / 'none'}")
    assert done.code == 78
    assert "[CONFIG] perplexity=8 needs at least 9 pictures" in done.err
    assert "val: 8 labelled pictures" in done.err
    assert "test: 8 labelled pictures" in done.err
    assert "train: 20" not in done.err
    assert not (tmp_path / "none").exists()


def test_a_folder_without_a_run_is_refused(tmp_path):
    done = called("project", f"run={tmp_path}")
    assert done.code == 66
    assert done.err.startswith("ERROR [RUN-MISSING]")


def drawn(labels: list[str | None], splits: list[str]) -> FeatureData:
    listed = [Row(f"{i:02d}", label, split) for i, (label, split) in enumerate(zip(labels, splits, strict=True))]
    table = tabulate(Path("/none"), listed, 0, (0.6, 0.2, 0.2))
    rows = torch.arange(float(len(labels)))[:, None]
    return FeatureData(Features(table, rows, np.zeros((len(labels), 32), np.uint8), 0, 0), batch_size=8, seed=0)


def test_a_split_without_a_labelled_picture_is_named_and_left_out(caplog):
    data = drawn(["a", "b"] * 4, ["train"] * 4 + ["test"] * 4)
    found = projecting._drawn(data, ["train", "val", "test"], [3.0], 3000)
    assert list(found) == [Drawn("train", 4, 4), Drawn("test", 4, 4)]
    assert "val has no labelled picture and is left out" in caplog.text
    with pytest.raises(LikenessError, match="no labelled picture in val") as refusal:
        projecting._drawn(data, ["val"], [3.0], 3000)
    assert refusal.value.code == "DATA-SPLIT"


def test_fewer_pictures_than_a_map_needs_are_refused_at_any_perplexity():
    data = drawn(["a", "b", "a", "b", "a", "b", "a"], ["train"] * 4 + ["test"] * 3)
    with pytest.raises(LikenessError, match="needs at least 4 pictures"):
        projecting._drawn(data, ["test"], [1.0], 3000)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "run: missing, give it with run=FOLDER"),
        (["run=x", "rum=x"], "rum: unknown; did you mean run?"),
        (["run=x", "colour=red"], "colour: unknown (it takes run, perplexity, split, rows, out, debug)"),
        (["run"], "run: has no value, give it with run=FOLDER"),
        (["run="], "run: has no value, give it with run=FOLDER"),
        (["run=x", "run=y"], "run: given more than once"),
        (["run=x", "perplexity=five"], "perplexity: 'five' is no number"),
        (["run=x", "perplexity=5,,20"], "perplexity: '' is no number"),
        (["run=x", "perplexity=0"], "perplexity: 0 is no number of neighbours from 1 up"),
        (["run=x", "perplexity=-5"], "perplexity: -5 is no number of neighbours"),
        (["run=x", "perplexity=nan"], "perplexity: nan is no number of neighbours"),
        (["run=x", "perplexity=inf"], "perplexity: inf is no number of neighbours"),
        (["run=x", "perplexity=5,5.0"], "perplexity: 5.0 is given more than once"),
        (["run=x", "perplexity=5,50", "rows=50"], "perplexity: 50 is not below rows=50"),
        (["run=x", "split=trian"], "split: 'trian' is not one of train, val, test, all; did you mean train?"),
        (["run=x", "split=val,val"], "split: val is given more than once"),
        (["run=x", "rows=3"], "rows: 3 is less than 4"),
        (["run=x", "rows=10.5"], "rows: '10.5' is no whole number"),
        (["run=x", "debug=yes"], "debug: 'yes' is neither true nor false"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_opened(monkeypatch, words, told):
    monkeypatch.setattr(projecting, "project_run", lambda *_: pytest.fail("it was opened"))
    done = called("project", *words)
    assert done.code == 78
    assert done.err.startswith("ERROR [CONFIG] 1 fault in the options.")
    assert told in done.err
    assert "likeness project --help" in done.err


def test_all_faults_are_told_at_once():
    done = called("project", "rum=x", "perplexity=a", "rows=1")
    assert "4 faults in the options" in done.err
    for name in ("rum", "perplexity", "rows", "run"):
        assert f" {name}: " in done.err


def test_options_are_read_and_the_others_have_their_defaults(monkeypatch):
    asked = []
    monkeypatch.setattr(projecting, "project_run", lambda *given: asked.append(given) or ({}, "title"))
    monkeypatch.setattr("likeness.reports.projection_grid.show_divergences", lambda *_: None)
    assert called("project", "run=a=b").code == 0
    given = ("perplexity=[2, 7.5]", "split=all", "rows=9", "out=c")
    assert called("project", "run=a", *given).code == 0
    splits = ("train", "val", "test")
    folder = Path("a=b/figures/projections")
    assert asked == [
        (Path("a=b"), (5.0, 20.0, 50.0), splits, folder, 2000),
        (Path("a"), (2.0, 7.5), ("all",), Path("c"), 9),
    ]


def test_the_limits_are_those_of_the_maps():
    assert project._FEWEST_ROWS == FEWEST_ROWS


def test_help_names_every_option_and_every_command():
    told = called("project", "--help")
    assert told.code == 0
    for name in ("run=FOLDER", "perplexity=5,20,50", "split=train,val,test", "rows=2000", "out=FOLDER"):
        assert name in told.out
    told = called("--help")
    assert told.code == 0
    assert all(name in told.out for name in ("weights", "extract", "project"))
    assert "shard=i/n" in called("extract", "--help").out


@pytest.mark.parametrize("words", [[], ["projct"], ["weights"], ["weights", "convert"]])
def test_what_is_no_command_is_a_usage_error(words):
    done = called(*words)
    assert done.code == 2
    assert done.err.startswith("usage: likeness")


def test_dashes_before_an_option_that_takes_none_are_told_how_it_is_written():
    done = called("export", "--run", "outputs")
    assert done.code == 2
    assert "unrecognized arguments: --run; likeness export takes NAME=VALUE, without dashes" in done.err


def test_help_answers_before_anything_heavy_is_imported():
    """Asked of a fresh interpreter, which leaves by SystemExit as argparse does."""
    program = (
        "import sys\nfrom likeness import app\ntry:\n    app.main(['project', '--help'])\nexcept SystemExit:\n    pass"
    )
    program += "\nprint(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "argparse" in told
    heavy = {"torch", "numpy", "sklearn", "matplotlib", "pytorch_lightning", "PIL", "hydra", "omegaconf", "rich"}
    assert heavy & set(told) == set()


@pytest.mark.parametrize("text", ["2/2", "-1/2", "x", "1", "0/0", "1/2/3", "0.5/2", "0/1234567"])
def test_what_is_no_share_is_refused(monkeypatch, text):
    monkeypatch.setattr(filling, "fill_store", lambda *_: pytest.fail("it was filled"))
    done = called("extract", "data=folder", "data.root=none", f"shard={text}")
    assert done.code == 78
    assert f"shard: {text!r} is no share i/n with 0 ≤ i < n: of four these are 0/4, 1/4, 2/4 and 3/4" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["architecure=dense"], "Did you mean architecture?"),
        (["data=folder"], "data.root: missing, give it with data.root=…"),
        (["batch_size=0", "seed=-1"], "2 faults in the config."),
        (["extraction.device=cpu"], "extraction.device: 'cpu' is not followed here: give trainer.accelerator"),
        (["trainer.strategy=fsdp"], "trainer.strategy: 'fsdp' is not one of auto, ddp"),
        (["shard=0/2", "shard=1/2"], "shard: given more than once"),
    ],
)
def test_an_extraction_is_refused_as_training_is(words, told):
    done = called("extract", *words)
    assert done.code == 78
    assert told in done.err


def test_an_extraction_fills_the_store_for_training_and_does_nothing_else(run, tmp_path, monkeypatch):
    """Of the options of a run as they are, its share alone; 36 pictures in all."""
    monkeypatch.chdir(tmp_path)
    words = ("data=folder", f"data.root={run.parent / 'photos'}", "paths.store=store", *SMALL, *QUICK)
    done = called("extract", *words, "shard=1/2")
    assert done.code == 0, done.err
    first = re.fullmatch(
        r"share 1/2: 0 rows found, (\d+) computed, 0 bad pictures, .+ pictures/s \(store\)\n", done.out
    )
    assert 0 < int(first[1]) < 36
    rest = called("extract", *words).out
    assert rest.startswith(f"share 0/1: {first[1]} rows found, {36 - int(first[1])} computed, 0 bad pictures")
    config = checked(composed(words))
    features = extracting.find_features(config, extracting.build_extractor(config))
    assert (features.computed, features.reused) == (0, 36)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_devices_that_slurm_has_no_tasks_for_are_refused(monkeypatch):
    for name, value in (("NTASKS", "1"), ("JOB_NAME", "wrap"), ("PROCID", "0"), ("LOCALID", "0"), ("NODEID", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    done = called("extract", "trainer.accelerator=cpu", "trainer.devices=2")
    assert done.code == 78
    assert "make 2 processes; this job of Slurm has 1." in done.err
    assert "srun" in done.err


def test_an_extraction_shows_its_options():
    done = called("extract", "backbone=random", "--cfg", "job")
    assert done.code == 0
    assert yaml.safe_load(done.out)["backbone"]["weights"] == "random"


def test_options_without_the_checkout_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("likeness.config.checkout.__file__", str(tmp_path / "src/likeness/config/checkout.py"))
    done = called("extract")
    assert done.code == 78
    assert str(tmp_path / "conf") in done.err


FACTS = {"network": "vgg16", "source": "places.h5", "digest": "ab12", "schema": "1"}
WANTED = {"size": 224, "channels": "bgr", "scale": 1.0, "mean": [104.006, 116.669, 122.679], "std": [1.0, 1.0, 1.0]}


def command(network: str, *tensors: str) -> str:
    facts = {**FACTS, "network": network, "preprocessing": json.dumps(WANTED)}
    *_, last = weights.converted_lines(Path("w.safetensors"), facts, tensors)
    return last.removeprefix("  python train.py data=folder data.root=PHOTOS ")


def test_a_converted_file_says_what_it_is_and_how_to_use_it(monkeypatch, tmp_path):
    asked = []

    def convert(source: Path, target: Path | None) -> Path:
        asked.append((source, target))
        preprocessing = {"preprocessing": json.dumps(WANTED)}
        save_file({"classifier.0.weight": np.zeros(1)}, tmp_path / "my places.safetensors", FACTS | preprocessing)
        return tmp_path / "my places.safetensors"

    monkeypatch.setattr("likeness.features.convert.convert", convert)
    done = called("weights", "convert", "places.h5", "--out", "there.safetensors")
    assert done.code == 0, done.err
    assert called("weights", "convert", "places.h5").code == 0
    assert asked == [(Path("places.h5"), Path("there.safetensors")), (Path("places.h5"), None)]
    path, *facts, heading, shown = done.out.splitlines()
    assert path == str(tmp_path / "my places.safetensors")
    assert [line.split(maxsplit=1) for line in facts] == [
        ["network", "vgg16"],
        ["source", "places.h5"],
        ["digest", "ab12"],
        ["preprocessing", "size 224, channels bgr, scale 1.0, mean [104.006, 116.669, 122.679], std [1.0, 1.0, 1.0]"],
    ]
    assert heading.startswith("use it with")
    assert shown == (f"  python train.py data=folder data.root=PHOTOS backbone=vgg16_fc1 'backbone.weights={path}'")


def test_the_command_follows_the_network_and_its_layers():
    assert command("vgg16", "features.0.weight") == "backbone=vgg16_flatten backbone.weights=w.safetensors"
    assert command("resnet50_caffe") == "backbone=resnet50_caffe backbone.weights=w.safetensors"
    assert command("alexnet") == "backbone.name=alexnet backbone.weights=w.safetensors"


def test_the_backbones_that_are_named_are_of_their_networks():
    for network, name in (*weights._BACKBONES.items(), ("vgg16", "vgg16_flatten")):
        assert yaml.safe_load((ROOT / "conf" / "backbone" / f"{name}.yaml").read_text())["name"] == network


def test_what_cannot_be_converted_is_a_message_and_an_exit_code(tmp_path):
    done = called("weights", "convert", tmp_path / "none.h5")
    assert done.code == 66
    assert done.err.startswith("ERROR [WEIGHTS-MISSING]")


@pytest.fixture
def strangers(run, tmp_path) -> Path:
    """Four new pictures of either class, and a copy of one that was trained on."""
    for period, name in ((4, "fine"), (25, "coarse")):
        for i in range(4):
            draw_striped(tmp_path / "new" / f"{name} {i}.png", period, 100 + i)
    copied = run.parent / "photos" / "train" / "fine" / "3.png"
    (tmp_path / "new" / "=copy.png").write_bytes(copied.read_bytes())
    return tmp_path / "new"


@pytest.mark.parametrize("weights", ["uniform", "similarity"])
def test_labels_are_the_votes_of_the_nearest_and_the_least_sure_come_first(run, strangers, tmp_path, weights):
    out = tmp_path / "labels.csv"
    done = called("label", strangers, f"run={run}", f"out={out}", "k=3", f"weights={weights}")
    assert done.code == 0, done.err
    rows = rows_of(out)
    train = sorted((run.parent / "photos" / "train").rglob("*.png"))
    model = load(run)
    codes = {path: code / np.linalg.norm(code) for path, code in zip(train, model.encode(train), strict=True)}
    assert sorted(row["path"] for row in rows) == sorted(map(str, strangers.iterdir()))
    for row in rows:
        code = model.encode([row["path"]])[0]
        cosines = {path: float(code @ own / np.linalg.norm(code)) for path, own in codes.items()}
        own = Path(row["path"]).read_bytes()
        nearest = sorted((path for path in train if path.read_bytes() != own), key=lambda path: -cosines[path])[:3]
        assert [row[f"neighbour_{i}"] for i in (1, 2, 3)] == list(map(str, nearest))
        ballots = {"fine": 0.0, "coarse": 0.0}
        for path in nearest:
            ballots[path.parent.name] += 1 if weights == "uniform" else max(0.0, cosines[path])
        label = max(ballots, key=lambda name: ballots[name])
        assert row["label"] == label
        assert float(row["confidence"]) == pytest.approx(ballots[label] / sum(ballots.values()), abs=1e-4)
        assert row["runner_up"] == ("" if len({path.parent for path in nearest}) == 1 else ({*ballots} - {label}).pop())
        assert float(row["similarity"]) == pytest.approx(cosines[nearest[0]], abs=1e-5)
    keys = [(float(row["confidence"]), float(row["similarity"])) for row in rows]
    assert keys == sorted(keys)
    unsure = sum(confidence < 0.75 for confidence, _ in keys)
    assert f"9 pictures labelled by 20: confidence 0 under 0.5, {unsure} under 0.75" in done.out


def test_a_bad_picture_is_refused_or_named_and_left_out(run, strangers, tmp_path, caplog):
    (strangers / "torn.png").write_bytes(b"no picture")
    words = ("label", strangers, f"run={run}", f"out={tmp_path / 'labels.csv'}")
    done = called(*words)
    assert done.code == 65
    assert "torn.png" in done.err
    assert not (tmp_path / "labels.csv").exists()
    with caplog.at_level(logging.WARNING):
        done = called(*words, "on_bad_image=quarantine")
    assert done.code == 0, done.err
    assert "torn.png" in caplog.text
    assert "1 bad pictures left out" in done.out
    assert len(rows_of(tmp_path / "labels.csv")) == 9
    alone = called("label", strangers / "torn.png", *words[2:], "on_bad_image=quarantine")
    assert alone.code == 65, "none is left"
    assert len(rows_of(tmp_path / "labels.csv")) == 9, "the file from before is as it was"


def test_more_neighbours_than_can_vote_are_refused(run, strangers, tmp_path):
    done = called("label", strangers, f"run={run}", f"out={tmp_path / 'a.csv'}", "k=8", "split=test")
    assert done.code == 78
    assert "k=8 neighbours are to vote, and test has 8 labelled pictures." in done.err
    assert called("label", strangers, f"run={run}", f"out={tmp_path / 'a.csv'}", "k=8", "split=all").code == 0


def test_where_copies_of_a_picture_leave_too_few_voters_the_option_is_named():
    voters = labelling._Voters(np.arange(4), torch.tensor([0, 0, 1, 1]), torch.eye(4))
    keys = np.array([7, 7, 8, 9], np.uint8)[:, None].repeat(32, 1)  # the first two are of the same bytes
    codes = torch.ones(2, 4)
    assert labelling._nearest(codes, keys[1:3], voters, keys, 2).indices.tolist() == [[2, 3], [0, 1]]
    with pytest.raises(LikenessError, match=r"k=3 .* for a picture of which 2 voters are copies 2 can") as caught:
        labelling._nearest(codes, keys[1:3], voters, keys, 3)
    assert (caught.value.code, caught.value.fix) == ("CONFIG", "Give a smaller k=, or another split=.")


def test_a_run_whose_classes_are_others_now_is_refused(run):
    features = drawn(["a", "b", "c"], ["train"] * 2 + ["val"]).features
    with pytest.raises(LikenessError, match="other classes than when its head was trained") as refusal:
        labelling._refuse_other_classes(features, ["a", "b"], run)
    assert refusal.value.code == "DATA-CHANGED"
    assert "now ['a', 'b', 'c'], then ['a', 'b']" in refusal.value.cause


def test_a_code_of_zeros_has_no_neighbours_and_no_label():
    voters = labelling._Voters(np.arange(4), torch.tensor([0, 0, 1, 1]), torch.eye(4))
    keys = np.arange(6, dtype=np.uint8)[:, None].repeat(32, 1)
    codes = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.5, 0.4, 0.0, 0.1]])
    found = labelling._nearest(codes, keys[[5, 0]], voters, keys[:4], 2)
    assert found.similarities[0].tolist() == [-np.inf, -np.inf]
    assert found.indices[1].tolist() == [1, 3]  # the nearest, 0, has the picture's own bytes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x"], "run: missing, give it with run=FOLDER"),
        (["run=x", "out=y"], "FOLDER or FILE: missing, name pictures"),
        (["x", "run=x", "out=/"], "out: / is a folder, not a file"),
        (["x", "run=x", "out=y", "k=0"], "k: 0 is less than 1"),
        (["x", "run=x", "out=y", "weights=similar"], "not one of uniform, similarity; did you mean similarity?"),
        (["x", "run=x", "out=y", "split=trian"], "split: 'trian' is not one of train, val, test, all"),
        (["x", "run=x", "out=y", "on_bad_image=skip"], "on_bad_image: 'skip' is not one of raise, quarantine"),
    ],
)
def test_wrong_options_of_labels_are_refused_before_anything_is_opened(monkeypatch, words, told):
    monkeypatch.setattr(labelling, "label", lambda *_, **__: pytest.fail("it was opened"))
    done = called("label", *words)
    assert done.code == 78
    assert told in done.err
    assert "likeness label --help" in done.err
