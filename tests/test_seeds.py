"""A job of several seeds from end to end: what single runs of those seeds leave, and their mean."""

import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import ROOT, draw_striped
from hydra import compose, initialize_config_dir
from rich.console import Console

from likeness.assembly import baselines, extracting, modules, reporting, restoring, scoring, splitting, training
from likeness.config import checking, composing, schema
from likeness.errors import LikenessError
from likeness.reports.jobs import find_jobs
from likeness.reports.page import page_content
from likeness.reports.replication import replication_rows
from likeness.reports.scoreboard import run_line, run_row, run_table, standing_table, sweep_rows, sweep_table
from likeness.reports.seeds import compared_seeds
from likeness.runs.checkpoint import newest_checkpoint
from likeness.runs.folder import RunFolder
from likeness.runs.journal import epochs, read

SMALL = (
    "architecture=dense",
    "backbone=random",
    "preprocessing=simple",
    "preprocessing.size=32",
    "architecture.widths=[6]",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=12",
    "callbacks.early_stopping.patience=2",
    "callbacks.resume.every_n_epochs=2",
    "batch_size=8",
    "noise=gaussian",
    "logger=none",
    "metric.ks=[1,3]",
)


def composed(*overrides: str) -> list[dict[str, Any]]:
    composing.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return checking.of_each_seed(compose("train", list(overrides)))


def trained(folder: Path, *overrides: str, small: Sequence[str] = SMALL) -> SimpleNamespace:
    """What train.py does, without its figures."""
    place = folder.parent
    each = composed(
        "data=folder", f"data.root={place / 'photos'}", f"paths.store={place / 'store'}", *small, *overrides
    )
    config, run = each[0], RunFolder(folder, each[0])
    trainer = training.build_trainer(config, run)
    extractor = extracting.build_extractor(config)
    data = splitting.build_data(config, extracting.find_features(config, extractor))
    card = modules.build_card(config, {"architecture": "dense", "backbone": "random"}, extractor, data)
    heads = modules.build_heads(each, data.feature_shape, card)
    learned = training.fit_heads(trainer, heads, data, run)
    methods = baselines.fit_methods(heads[0], data, config["seed"], run, heads[1:])
    results = scoring.score_splits(methods, data, ("val", "test"), None, config["metric"])
    by_seed = scoring.score_seeds(heads, learned, results, data, config["metric"])
    metrics = reporting.write_results(results, heads[0], data, run, trainer, by_seed)
    status = {"state": "done", "job": int(folder.name), "overrides": list(overrides)}
    (folder / "status.json").write_text(json.dumps(status))
    return SimpleNamespace(path=folder, metrics=metrics, heads=heads)


def evaluated(checkpoint: Path, store: Path) -> dict[str, Any]:
    """The splits of ``evaluate.py checkpoint=FILE``."""
    paths = schema.Paths(store=str(store))
    config = asdict(schema.Evaluate(data={}, backbone={}, checkpoint=str(checkpoint), paths=paths))
    module, extractor, card = restoring.restore(restoring.checkpoint_path(config), config)
    config = restoring.as_trained(config, card)
    data = splitting.build_data(config, extracting.find_features(config, extractor))
    methods = baselines.read_methods(module, data, config["splits"], card, checkpoint.parent)
    scores = scoring.score_splits(methods, data, config["splits"], None, config["metric"]).scores
    return {split: reporting.compare(found, data.classes, (1, 3)) for split, found in scores.items()}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("place")
    for period, name in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for i, split in enumerate(["train"] * 10 + ["val"] * 5 + ["test"] * 5):
            draw_striped(place / "sweep" / "photos" / split / name / f"{i}.png", period, i)
    return place / "sweep"


@pytest.fixture(scope="module")
def together(sweep) -> SimpleNamespace:
    return trained(sweep / "0", "seeds=3", "seed=5")


@pytest.fixture(scope="module")
def alone(sweep, together) -> list[SimpleNamespace]:
    return [trained(sweep / str(1 + seed), f"seed={seed}") for seed in (5, 6, 7)]


def test_each_seed_has_the_numbers_of_its_single_run(together, alone):
    assert [own["seed"] for own in together.metrics["seeds"]] == [5, 6, 7]
    for own, single in zip(together.metrics["seeds"], alone, strict=True):
        assert own["epochs"] == single.metrics["epochs"]
        for split in ("val", "test"):
            for name in ("head", "random_projection", "paired"):
                assert own["splits"][split][name] == single.metrics["splits"][split][name], (own["seed"], split, name)


def test_the_metrics_of_the_job_are_those_of_its_first_seed(together, alone):
    for name in ("schema", "splits", "head", "widths", "code_width", "parameters", "epochs", "seed"):
        assert together.metrics[name] == alone[0].metrics[name], name
    assert {"seeds", "over_seeds"} == together.metrics.keys() - alone[0].metrics.keys()


def test_every_seed_has_the_checkpoint_and_the_queries_of_its_single_run(together, alone):
    for seed, single in zip((5, 6, 7), alone, strict=True):
        kept = training.checkpoint.open_checkpoint(together.path / "checkpoints" / f"seed-{seed}.ckpt")
        other = training.checkpoint.open_checkpoint(single.path / "checkpoints" / "best.ckpt")
        assert kept["likeness"] == other["likeness"]
        assert kept["state_dict"].keys() == other["state_dict"].keys()
        for name, value in other["state_dict"].items():
            torch.testing.assert_close(kept["state_dict"][name], value, atol=1e-5, rtol=1e-5)
        name = "queries.csv" if seed == 5 else f"queries-seed-{seed}.csv"
        assert ranks(together.path / name) == ranks(single.path / "queries.csv")
    first = training.checkpoint.open_checkpoint(together.path / "checkpoints" / "best.ckpt")
    assert first["likeness"]["seed"] == 5


def ranks(path: Path) -> list[tuple[str, ...]]:
    rows = csv.DictReader(path.read_text().splitlines())
    return [(row["path"], row["rank"], row["frozen_rank"], row["random_projection_rank"]) for row in rows]


@pytest.mark.parametrize("seed", [5, 7])
def test_evaluating_a_seed_gives_what_the_job_reported(together, sweep, seed):
    found = evaluated(together.path / "checkpoints" / f"seed-{seed}.ckpt", sweep / "store")
    (own,) = [own for own in together.metrics["seeds"] if own["seed"] == seed]
    for split, summary in own["splits"].items():
        assert {name: found[split][name] for name in summary} == summary


def test_the_state_of_all_seeds_is_no_head(together, sweep):
    with pytest.raises(LikenessError, match="the training state of 3 heads") as refusal:
        evaluated(newest_checkpoint(together.path / "checkpoints"), sweep / "store")
    assert refusal.value.code == "CKPT-SCHEMA"
    assert "seed-5.ckpt" in refusal.value.fix


def test_the_mean_has_students_interval(together):
    for split in ("val", "test"):
        values = [own["splits"][split]["head"]["hit@1"]["value"] for own in together.metrics["seeds"]]
        mean, half = fmean(values), 4.3027 * stdev(values) / 3**0.5  # t(.975, 2) = 4.3027
        found = together.metrics["over_seeds"][split]["head"]["hit@1"]
        assert (found["value"], found["low"], found["high"]) == pytest.approx(
            (mean, mean - half, mean + half), abs=1e-4
        )
    assert reporting.validation_value(together.metrics) == pytest.approx(
        together.metrics["over_seeds"]["val"]["head"]["hit@1"]["value"]
    )


def test_the_journal_has_the_means(together):
    events = read(together.path / "journal.jsonl")
    final = next(event for event in events if "test/hit@1" in event)
    over = together.metrics["over_seeds"]["test"]
    assert final["test/hit@1"] == over["head"]["hit@1"]["value"]
    assert final["test/gain_over_frozen"] == over["paired"]["head-frozen"]["hit@1"]["difference"]
    first = epochs(events)[0]
    assert first["val/loss"] == pytest.approx(fmean(first[f"seed-{seed}/val/loss"] for seed in (5, 6, 7)))
    assert next(event for event in events if event["event"] == "config")["seeds"] == 3


def test_a_sweep_takes_the_job_for_its_seeds(together, alone, sweep):
    """Three single runs and the job of the same three seeds: the same rows, the same means, the same comparisons."""
    rows = sweep_rows(sweep)
    stacked = [row for row in rows if row["job"] == 0]
    singles = [row for row in rows if row["job"] != 0]
    same = [name for name in stacked[0] if name not in ("job", "folder", "seconds.fit")]
    assert [{name: row[name] for name in same} for row in stacked] == [
        {name: row[name] for name in same} for row in singles
    ]
    ours, theirs = (compared_seeds(sweep, found) for found in (stacked, singles))
    assert ours == theirs
    assert [(row["split"], row["seeds"]) for row in ours] == [("val", 3), ("test", 3)]
    over = together.metrics["over_seeds"]["test"]
    assert ours[1]["hit@1"] == pytest.approx(over["head"]["hit@1"]["value"])
    for name in ("frozen", "pca", "random_projection"):
        found = over["paired"][f"head-{name}"]["hit@1"]
        row = [ours[1][f"{part}_{name}"] for part in ("over", "low_over", "high_over", "p")]
        assert row == pytest.approx([found[key] for key in ("difference", "low", "high", "p")])
    assert "4 jobs, 6 heads tried" in shown(sweep_table(rows))
    assert "4 done" in shown(standing_table(sweep))
    assert {name: run_row(together.path)[name] for name in ("seed", "seeds", "val/hit@1")} == {
        "seed": "5",
        "seeds": "3",
        "val/hit@1": together.metrics["splits"]["val"]["head"]["hit@1"]["value"],
    }


def test_the_page_takes_the_job_for_its_seeds(together, alone, sweep):
    jobs = [job for job in find_jobs([sweep]) if job.row["job"] in (0, 6, 7, 8)]
    content = page_content(jobs, [])
    shown = {job["name"]: job for job in content["jobs"]}
    assert shown.keys() == {"0 seed 5", "0 seed 6", "0 seed 7", "6", "7", "8"}
    for seed in (5, 6, 7):
        ours, single = shown[f"0 seed {seed}"], shown[str(1 + seed)]
        same = ("state", "seed", "val", "test", "frozen", "pca", "epochs", "code_width")
        assert [ours[name] for name in same] == [single[name] for name in same]
        assert ours["curve"][:2] == single["curve"][:2]
        assert ours["curve"][2] == pytest.approx(single["curve"][2], rel=1e-3)
    by_class = {
        row["name"]: values for row, values in zip(*map(content["classes"].get, ("rows", "values")), strict=True)
    }
    assert all(by_class[f"0 seed {seed}"] == by_class[str(1 + seed)] for seed in (5, 6, 7))
    bits = {method["name"]: method["bits"] for method in content["compare"]["methods"]}
    assert all(bits[f"0 seed {seed}"] == bits[str(1 + seed)] for seed in (5, 6, 7))


def test_a_row_of_the_thesis_is_a_row_a_seed(together, tmp_path):
    options = {**together.metrics["options"], "experiment": "thesis/table3_512"}
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "metrics.json").write_text(json.dumps({**together.metrics, "options": options}))
    rows = [row for row in replication_rows(tmp_path) if (row["split"], row["measure"]) == ("test", "hit@1")]
    assert [row["seed"] for row in rows] == [5, 6, 7]
    hits = [own["splits"]["test"]["head"]["hit@1"]["value"] for own in together.metrics["seeds"]]
    assert [row["measured"] for row in rows] == hits


def shown(content) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(content)
    return capture.get()


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def test_the_terminal_shows_each_seed_and_the_mean():
    head = [{"hit@1": interval(value, 0.0, 1.0)} for value in (0.6, 0.7)]
    mean = {"hit@1": interval(0.65, 0.61, 0.69)}
    paired = {"head-frozen": {"hit@1": {"difference": 0.05, "low": 0.01, "high": 0.09, "p": 0.02}}}
    worse = {"head-frozen": {"hit@1": {"difference": -0.3, "low": -0.4, "high": -0.2, "p": 0.01}}}
    metrics = {
        "splits": {"test": {"n": 10, "skipped": 0, "head": head[0], "paired": worse}},
        "seeds": [{"seed": 3 + i, "epochs": 8 + i, "splits": {"test": {"head": head[i]}}} for i in range(2)],
        "over_seeds": {"test": {"n": 10, "seeds": 2, "head": mean, "paired": paired}},
        "seed": 3,
        "head": "dense",
        "backbone": "resnet50",
    }
    lines = [" ".join(text.split()) for text in shown(run_table(metrics)).splitlines()]
    assert "resnet50 → dense, seed 3, percent with 95 % intervals" in lines
    at = lines.index("head, 2 seeds, percent, mean with Student's 95 % interval")
    assert lines[at + 1 : at + 3] == ["test", "seed hit@1 epochs"]
    assert lines[at + 4 : at + 7] == ["3 60.0 8", "4 70.0 9", "mean 65.0 ± 4.0"]
    assert "test hit@1, averaged over seeds, query by query" in lines
    assert "head − frozen +5.0 points [+1.0, +9.0] p = 0.02 → better" in lines
    assert shown(run_line(metrics)) == "test hit@1 65.0 ± 4.0, +5.0 points over frozen, 2 seeds\n"


def test_the_last_weights_are_kept_where_no_callback_keeps_the_best(sweep, together, alone):
    job = trained(sweep / "20", "seeds=2", "seed=5", "callbacks=last_weights")
    for place in (0, 1):
        single = trained(sweep / str(21 + place), f"seed={5 + place}", "callbacks=last_weights")
        for name, value in single.heads[0].state_dict().items():
            torch.testing.assert_close(job.heads[place].state_dict()[name], value, atol=1e-5, rtol=1e-5)
        assert job.metrics["seeds"][place]["epochs"] == single.metrics["epochs"]


CLOSED = [part for part in SMALL if not part.startswith("architecture")]


def test_a_closed_form_that_follows_the_seed_is_fitted_for_each(tmp_path, sweep):
    (tmp_path / "photos").symlink_to(sweep / "photos")
    head = ("architecture=random_projection", "architecture.width=4")
    job = trained(tmp_path / "0", *head, "seeds=2", small=CLOSED)
    other = trained(tmp_path / "1", *head, "seed=1", small=CLOSED)
    assert torch.equal(job.heads[1].head.matrix, other.heads[0].head.matrix)
    assert not torch.equal(job.heads[0].head.matrix, job.heads[1].head.matrix)
    assert job.heads[1].card == other.heads[0].card
    found = evaluated(tmp_path / "0" / "checkpoints" / "seed-1.ckpt", tmp_path / "store")
    assert found["test"] == other.metrics["splits"]["test"]


def test_a_closed_form_that_does_not_is_fitted_once(tmp_path, sweep, monkeypatch):
    (tmp_path / "photos").symlink_to(sweep / "photos")
    fitted, fit = [], modules.Autoencoder.fit_closed_form
    monkeypatch.setattr(
        modules.Autoencoder, "fit_closed_form", lambda self, split: fitted.append(self.seed) or fit(self, split)
    )
    job = trained(tmp_path / "0", "architecture=pca", "architecture.width=4", "seeds=3", small=CLOSED)
    assert fitted == [0]
    assert all(torch.equal(head.head.axes, job.heads[0].head.axes) for head in job.heads)
    assert [own["epochs"] for own in job.metrics["seeds"]] == [0, 0, 0]
    hits = {own["splits"]["test"]["head"]["hit@1"]["value"] for own in job.metrics["seeds"]}
    assert hits == {job.metrics["over_seeds"]["test"]["head"]["hit@1"]["value"]}


def test_epochs_that_nothing_judged_are_told(tmp_path, sweep, caplog):
    (tmp_path / "photos").symlink_to(sweep / "photos")
    with caplog.at_level(logging.WARNING):
        trained(tmp_path / "0", "seeds=2", "trainer.max_epochs=0")
    assert "no epoch was validated and kept" in caplog.text


REFUSED = [
    (["scheduler=plateau"], "scheduler: plateau needs seeds=1: one rate would follow the mean loss of all seeds"),
    (
        ["trainer.gradient_clip_val=0.5"],
        "trainer.gradient_clip_val: 0.5 needs seeds=1: one norm would be taken over the",
    ),
    (["trainer.precision=16-mixed"], "trainer.precision: '16-mixed' needs seeds=1: one seed's overflow would skip"),
    (["trainer.devices=2"], "trainer.devices: 2 needs seeds=1: a job of several seeds trains on one device"),
    (["+trainer.num_nodes=2"], "trainer.num_nodes: 2 needs seeds=1: a job of several seeds trains on one device"),
    (
        ["+trainer.val_check_interval=1"],
        "trainer.val_check_interval: 1 needs seeds=1: seeds stop at the end of an epoch",
    ),
    (["+trainer.min_epochs=3"], "trainer.min_epochs: 3 needs seeds=1: each seed stops for itself"),
    (["+trainer.min_steps=3"], "trainer.min_steps: 3 needs seeds=1: each seed stops for itself"),
    (["+callbacks.best.save_top_k=2"], "callbacks.best.save_top_k: needs seeds=1; it is not followed for each seed"),
    (
        ["+callbacks.early_stopping.log_rank_zero_only=true"],
        "callbacks.early_stopping.log_rank_zero_only: needs seeds=1",
    ),
    (
        ["+callbacks.more={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: train/loss}"],
        "callbacks: early_stopping and more are more than one EarlyStopping that judges: that needs seeds=1",
    ),
    (["data.seed=${seed}"], "data: follows the seed, and all seeds of a job share it: give one value, or seeds=1"),
    (["seeds=0"], "seeds: 0 is less than 1"),
    ([f"seed={2**63 - 2}"], f"seed: {2**63} is greater than {2**63 - 1}"),
]


@pytest.mark.parametrize(("overrides", "told"), REFUSED, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_what_several_heads_cannot_do_at_once_is_refused_before_anything_is_opened(overrides, told):
    seeds = [] if overrides == ["seeds=0"] else ["seeds=3"]
    with pytest.raises(LikenessError) as refusal:
        composed("data=folder", "data.root=x", "logger=none", "architecture=dense", *seeds, *overrides)
    assert refusal.value.code == "CONFIG"
    assert told in refusal.value.where


def test_each_seed_is_the_config_of_its_single_run():
    given = ("data=folder", "data.root=x", "logger=none", "architecture=random_projection", "sweep.name=x")
    each = composed(*given, "seed=4", "seeds=3")
    for place, config in enumerate(each):
        (single,) = composed(*given, f"seed={4 + place}")
        assert {**config, "seeds": 1} == single
    assert [config["architecture"]["seed"] for config in each] == [4, 5, 6]
