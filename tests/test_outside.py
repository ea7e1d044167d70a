"""Known pictures and pictures from outside, by cosines in NumPy and scikit-learn's AUROC."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from likeness import outside
from likeness.assembly import extracting, scoring
from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Extractor, Features
from likeness.images.decoding import Decoder
from likeness.images.listing import list_pictures
from likeness.images.preprocessing import Preprocessing
from likeness.images.table import Row, tabulate
from likeness.reports import rejection as report


class Unseen:
    """Stands for a backbone that is never asked for a feature."""

    def __call__(self, pictures):
        raise AssertionError("no picture is looked at here")

    def policy(self) -> dict:
        return {}

    def feature_shape(self, size: int) -> tuple[int, ...]:
        return (6,)


EXTRACTOR = Extractor(Decoder(), Preprocessing(size=8, mean=[0.0] * 3, std=[1.0] * 3), Unseen())
METHODS = {"head": lambda rows: rows[:, :3], "frozen": lambda rows: rows}
METRIC = {"ks": (1, 5), "exclude_home": False, "ties": "by_id", "vote_k": 5, "map_at_r": True}


def features(table, rows: np.ndarray) -> Features:
    keys = np.random.default_rng(len(table)).integers(256, size=(len(table), 32), dtype=np.uint8)
    return Features(table, torch.from_numpy(rows.astype(np.float32)), keys, 0, len(table))


def drawn(homes: bool = False) -> FeatureData:
    """120 pictures each of train, val and test, of four classes; with homes, three pictures of a class each of 120."""
    rng = np.random.default_rng(0)
    labels = np.arange(360) % 4
    rows = rng.normal(size=(360, 6)) + 0.8 * rng.normal(size=(4, 6))[labels]
    splits = np.repeat(["train", "val", "test"], 120)
    listed = [
        Row(f"{i:03d}", "abcd"[label], split, f"home{i // 120 * 40 + i % 40:03d}" if homes else "")
        for i, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]
    return FeatureData(features(tabulate(Path("/none"), listed, 0, (0.6, 0.2, 0.2)), rows), batch_size=8, seed=0)


def config(gallery: str | None = None, metric: dict | None = None, **options) -> dict:
    rejection = {"outside": None, "left_out": [], "rate": 0.1, "k": 3, **options}
    return {"rejection": rejection, "gallery": gallery, "metric": {**METRIC, **(metric or {})}, "data": {}}


def scored(data: FeatureData, config: dict, methods: dict = METHODS) -> outside.Rejection:
    found = outside.score_outside(methods, data, EXTRACTOR, config)
    assert found is not None
    return found


def means_of_nearest(queries: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, gallery)]
    return np.sort(unit[0] @ unit[1].T, axis=1)[:, -k:].mean(1)


def test_nothing_is_scored_where_nothing_is_named():
    assert outside.score_outside(METHODS, drawn(), EXTRACTOR, config()) is None


def test_a_class_that_is_left_out_is_outside_and_no_gallery():
    data = drawn()
    found = scored(data, config(left_out=["c"]))
    rows, table = data.features.rows.numpy().astype(np.float64), data.features.table
    known = table.labels != 2
    train, val, test = (table.splits == split for split in ("train", "val", "test"))
    of_test = means_of_nearest(rows[test], rows[train & known], 3)
    assert found.scored["frozen"].known == pytest.approx(of_test[known[test]], abs=1e-6)
    assert found.scored["frozen"].outside == pytest.approx(of_test[~known[test]], abs=1e-6)
    assert (found.summary["searched"], found.summary["n"]) == (90, {"held_out": 90, "known": 90, "outside": 30})
    frozen = found.summary["frozen"]
    assert frozen["auroc"]["value"] == pytest.approx(roc_auc_score(known[test], of_test))
    threshold = np.sort(means_of_nearest(rows[val & known], rows[train & known], 3))[8]  # ⌊0.1 × 91⌋ = 9
    assert frozen["threshold"]["value"] == pytest.approx(threshold, abs=1e-6)
    assert frozen["known_rejected"]["value"] == (of_test[known[test]] < threshold).mean()
    assert frozen["outside_accepted"]["value"] == (of_test[~known[test]] >= threshold).mean()
    gap = found.summary["head"]["auroc"]["value"] - frozen["auroc"]["value"]
    assert found.summary["paired"]["head-frozen"]["auroc"]["difference"] == pytest.approx(gap)


def test_hits_are_those_of_the_gallery_that_is_left_and_rise_with_fewer_answers():
    data = drawn()
    found = scored(data, config(left_out=["c"]))
    whole = scoring.score_splits(METHODS, data, ["test"], "train", METRIC).scores["test"]["frozen"]
    kept = whole.labels != 2
    hits = found.scored["frozen"].hits[1]
    assert len(hits) == int(kept.sum())
    assert hits.mean() >= whole.hit(1)[kept].mean().item()  # without c, fewer are in the way
    frozen = found.summary["frozen"]
    assert frozen["hit@1"]["all"]["value"] == pytest.approx(hits.mean())
    passed = found.scored["frozen"].known >= frozen["threshold"]["value"]
    assert frozen["hit@1"]["accepted"]["value"] == pytest.approx(hits[passed].mean())
    assert [row["coverage"] for row in frozen["coverage"]] == [1.0, 0.95, 0.9, 0.8, 0.5]
    assert frozen["coverage"][0]["hit@1"] == pytest.approx(hits.mean())
    surest = np.argsort(-found.scored["frozen"].known)[:45]
    assert frozen["coverage"][-1]["hit@1"] == pytest.approx(hits[surest].mean())


def test_a_gallery_that_is_a_split_of_its_own_finds_no_query_itself():
    data = drawn()
    found = scored(data, config("test", left_out=["c"]))
    table, rows = data.features.table, data.features.rows.numpy().astype(np.float64)
    own = np.flatnonzero((table.splits == "test") & (table.labels != 2))
    for place, row in enumerate(own):
        wanted = means_of_nearest(rows[[row]], rows[own[own != row]], 3)
        assert found.scored["frozen"].known[place] == pytest.approx(wanted[0], abs=1e-6)
    assert scored(data, config("all", left_out=["c"])).summary["searched"] == 270


def test_homes_are_left_out_where_they_are_and_widen_the_interval():
    data = drawn(homes=True)
    apart, together = (
        scored(data, config("test", {"exclude_home": exclude}, left_out=["c"])) for exclude in (True, False)
    )
    assert (apart.scored["frozen"].known <= together.scored["frozen"].known + 1e-9).all()
    assert (apart.scored["frozen"].known < together.scored["frozen"].known - 1e-3).any()
    alone = scored(drawn(), config("test", left_out=["c"])).summary["frozen"]["auroc"]
    housed = together.summary["frozen"]["auroc"]
    assert housed["value"] == pytest.approx(alone["value"])
    assert housed["low"] != pytest.approx(alone["low"])


def folder_of(place: Path, names: list[str]) -> Path:
    place.mkdir()
    for name in names:
        (place / name).touch()
    return place


def test_a_folder_is_outside_and_its_homes_are_those_of_the_same_name(tmp_path, monkeypatch):
    data = drawn(homes=True)
    folder = folder_of(tmp_path / "others", ["home080.jpg", "home200.jpg", "none.jpg"])
    rows = np.random.default_rng(5).normal(size=(3, 6))
    monkeypatch.setattr(extracting, "features_of", lambda table, *_: features(table, rows))
    asked = config(outside=str(folder)) | {"data": {"home_pattern": r"home\d+"}}
    found = scored(data, asked)
    train = data.features.table.splits == "train"
    wanted = means_of_nearest(rows.astype(np.float32), data.features.rows.numpy()[train], 3)
    assert found.scored["frozen"].outside == pytest.approx(wanted, abs=1e-6)
    assert found.scored["frozen"].outside_homes.tolist() == [80, 120, -1]
    assert found.summary["n"] == {"held_out": 120, "known": 120, "outside": 3}
    table = list_pictures([folder])
    assert outside._listed(folder, "house").home_names == table.home_names == ()


def test_pictures_of_the_gallery_are_not_outside(tmp_path, monkeypatch):
    data = drawn()
    folder = folder_of(tmp_path / "others", ["a.jpg", "b.jpg"])

    def copies(table, *_):
        found = features(table, np.ones((2, 6)))
        found.keys[1] = data.features.keys[5]
        return found

    monkeypatch.setattr(extracting, "features_of", copies)
    with pytest.raises(LikenessError, match=r"1 of 2 pictures of rejection.outside are in the gallery") as refusal:
        scored(data, config(outside=str(folder)))
    assert refusal.value.where == "b.jpg"


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ({"left_out": ["e"]}, "CONFIG", "no class is called e."),
        ({"left_out": ["a", "b", "c", "d"]}, "CONFIG", "no class is left."),
        ({"left_out": ["a"], "gallery": "unlabelled"}, "DATA-SPLIT", "no labelled pictures in unlabelled, the gallery"),
        ({"left_out": ["a"], "rate": 0.001}, "RETRIEVAL", "needs 999 known pictures"),
    ],
)
def test_what_cannot_be_scored_is_refused(options, code, told):
    with pytest.raises(LikenessError, match=told) as refusal:
        scored(drawn(), config(**{"gallery": None, **options}))
    assert refusal.value.code == code


@pytest.mark.filterwarnings("ignore:.*codes are zero")
def test_a_code_of_zeros_is_like_nothing():
    data = drawn()
    test = np.flatnonzero(data.features.table.splits == "test")
    data.features.rows[test[:2]] = 0
    found = scored(data, config(left_out=["c"]))
    assert found.scored["frozen"].known[:2].tolist() == [-np.inf, -np.inf]
    assert found.summary["frozen"]["known_rejected"]["value"] >= 2 / 90


def test_the_table_and_the_figure_say_what_the_summary_says(tmp_path):
    from PIL import Image
    from rich.console import Console

    found = scored(drawn(), config(left_out=["c"]))
    console = Console(width=110)
    with console.capture() as captured:
        console.print(report.rejection_table(found.summary))
    shown = captured.get()
    for name in ("head", "frozen"):
        assert f"{100 * found.summary[name]['auroc']['value']:.1f} [" in shown
    assert "rejection of c, percent with 95 % intervals" in shown
    assert "known rejected" in shown
    assert "(asked: 10.0)" in shown
    assert "calibrated on 90 of val, scored on 90 of test, 30 from outside" in shown
    assert "the 3 nearest of 90 in train" in shown
    assert "AUROC, head − frozen" in shown
    figure = report._rejection(found.scored, found.summary)
    head, _, coverage = figure.axes
    bars = [patch.get_height() for patch in head.patches]
    assert sum(bars) == pytest.approx(2)  # the shares of known, and those of outside
    assert head.lines[0].get_xdata()[0] == found.summary["head"]["threshold"]["value"]
    assert coverage.lines[1].get_xdata()[-1] == 1
    assert coverage.lines[1].get_ydata()[-1] == pytest.approx(found.scored["frozen"].hits[1].mean())
    found.draw(tmp_path)
    with Image.open(tmp_path / "rejection.png") as image:
        assert image.format == "PNG"
