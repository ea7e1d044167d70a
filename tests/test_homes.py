"""``likeness homes`` on a small run: what it prints and leaves, and what it refuses."""

import json
from pathlib import Path

import pytest
from helpers import ROOT, called, draw_striped
from hydra import compose, initialize_config_dir
from PIL import Image

from likeness import homes
from likeness.assembly import baselines, extracting, modules, splitting, training
from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.reports.homes import RULES
from likeness.retrieval import homes as pooling
from likeness.runs.folder import RunFolder

KINDS = {"fine": 4, "medium": 9, "coarse": 25}


def trained(place: Path, *options: str) -> Path:
    """A run on ``place/photos``: a random network, and a head that is solved."""
    register()
    small = ("backbone=random", "preprocessing=simple", "preprocessing.size=32", "architecture=pca")
    data = ("data=folder", f"data.root={place / 'photos'}", f"paths.store={place / 'store'}", "metric.ks=[1]")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = checked(compose("train", [*data, *small, "architecture.width=4", "logger=none", *options]))
    folder = RunFolder(place / "run", config)
    extractor = extracting.build_extractor(config)
    data = splitting.build_data(config, extracting.find_features(config, extractor))
    card = modules.build_card(config, {"architecture": "pca", "backbone": "random"}, extractor, data)
    module = modules.build_head(config, data.feature_shape, card)
    training.fit(training.build_trainer(config, folder), module, data, folder)
    baselines.fit_methods(module, data, config["seed"], folder)
    return folder.path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """12 homes of three kinds of picture, two of each; one picture is another home's as well."""
    place = tmp_path_factory.mktemp("place")
    for name, period in KINDS.items():
        for home in range(12):
            for i in range(2):
                draw_striped(place / "photos" / name / f"home{home:02d}_{i}.png", period, 2 * home + i)
    copied = (place / "photos" / "fine" / "home03_0.png").read_bytes()
    (place / "photos" / "fine" / "home07_1.png").write_bytes(copied)
    return trained(place, r"data.home_pattern='home\d+'")


@pytest.fixture(scope="module")
def scored(run):
    done = called("homes", f"run={run}", "split=all", "seed=0,1", "k=1,5")
    assert done.code == 0, done.err
    return done.out, json.loads((run / "homes" / "homes.json").read_text())


def test_every_rule_of_every_method_is_scored_beside_chance(scored):
    _, metrics = scored
    random, kinds = metrics["halvings"]["random"], metrics["halvings"]["kinds"]
    assert (metrics["homes"], metrics["pictures"], metrics["split"]) == (12, 71, "all")
    assert list(random["head"]) == list(pooling.RULES)
    assert (random["each"], random["queries"], random["candidates"]) == (["seed 0", "seed 1"], 24, [12, 12])
    assert kinds["each"] == ["coarse", "fine", "medium"]
    assert (kinds["queries"], kinds["incomparable"]) == (36, ["by_kind"])
    assert random["chance"]["hit@5"] == pytest.approx(5 / 12)
    for method in ("head", "frozen", "pca", "random_projection"):
        assert list(random[method]["mean"]) == ["hit@1", "hit@5", "mrr"]
    assert sorted(random["paired"]) == ["head-frozen", "head-pca", "head-random_projection"]


def test_the_table_names_rules_methods_and_what_wins(scored):
    out, metrics = scored
    for told in ("random halves, 12 homes ask among 12, 24 queries", "kinds held out", "random projection", "chance"):
        assert told in out
    assert all(name in out for name in RULES.values())
    winner = RULES[metrics["halvings"]["random"]["winner"]["head"]["rule"]]
    assert f"head: {winner} − " in out
    assert "by kind: cannot compare a half with its other half" in out
    assert "71 pictures of 12 homes · 1 with the same bytes as another left out" in out


def test_each_way_of_halving_has_a_figure(run, scored):
    for name in ("random", "kinds"):
        with Image.open(run / "homes" / f"{name}.png") as figure:
            assert figure.width > figure.height > 400


def test_copies_are_kept_where_that_is_asked(run, tmp_path):
    done = called("homes", f"run={run}", "split=all", "copies=true", "halves=kinds", "k=1", f"out={tmp_path}")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "homes.json").read_text())
    assert (metrics["pictures"], metrics["copies"]) == (72, {"found": 1, "kept": True})
    assert "1 with the same bytes as another kept" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["homes.json", "kinds.png"]


def test_other_pictures_are_scored_whole_with_their_own_pattern(run, tmp_path):
    for name, period in KINDS.items():
        for home in range(6):
            draw_striped(tmp_path / "others" / name / f"villa{home}.png", period, 500 + home)
    (tmp_path / "others" / "fine" / "garden.png").write_bytes((tmp_path / "others/fine/villa0.png").read_bytes())
    options = (f"data={tmp_path / 'others'}", r"home_pattern=villa\d", "halves=random", "k=1", f"out={tmp_path}")
    done = called("homes", f"run={run}", *options)
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "homes.json").read_text())
    assert (metrics["split"], metrics["homes"], metrics["pictures"], metrics["homeless"]) == ("all", 6, 18, 1)


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["home_pattern=villa"], 65, "home_pattern is found in none of 72 file names"),
        (["k=1,12"], 78, "k=12, and all has 12 homes"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_a_picture_is_looked_at(run, monkeypatch, options, code, told):
    monkeypatch.setattr(extracting, "find_features", lambda *_: pytest.fail("pictures were looked at"))
    done = called("homes", f"run={run}", "split=all", *options)
    assert done.code == code
    assert told in done.err


def test_homes_of_one_picture_each_are_refused(run, monkeypatch, tmp_path):
    monkeypatch.setattr(extracting, "find_features", lambda *_: pytest.fail("pictures were looked at"))
    for i, name in enumerate(KINDS):
        draw_striped(tmp_path / "others" / name / f"villa{i}.png", 4, i)
    done = called("homes", f"run={run}", f"data={tmp_path / 'others'}", r"home_pattern=villa\d")
    assert (done.code, "none of 3 homes in all has two pictures" in done.err) == (65, True)
    done = called("homes", f"run={run}", f"data={tmp_path / 'others'}")
    assert (done.code, "no home of 3 pictures in all is known" in done.err) == (65, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "run: missing, give it with run=FOLDER"),
        (["run=x", "halves=kind"], "halves: 'kind' is not one of random, kinds; did you mean kinds?"),
        (["run=x", "halves=random,random"], "halves: random is given more than once"),
        (["run=x", "k=0"], "k: 0 is less than 1"),
        (["run=x", "seed=-1"], "seed: -1 is less than 0"),
        (["run=x", "copies=drop"], "copies: 'drop' is neither true nor false"),
        (["run=x", "split=val,test"], "split: 'val,test' is not one of train, val, test, all"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_opened(monkeypatch, words, told):
    monkeypatch.setattr(homes, "score_homes", lambda *_: pytest.fail("it was opened"))
    done = called("homes", *words)
    assert done.code == 78
    assert told in done.err
    assert "likeness homes --help" in done.err
