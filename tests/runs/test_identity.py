"""What a dashboard calls a run, and its columns."""

import subprocess

import pytest
from helpers import ROOT

from likeness.runs import identity
from likeness.runs.identity import columns, git_revision, short_name


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "default"),
        (["logger=wandb", "paths.store=/x", "data.root=/photos", "figures.draw=none"], "default"),
        (["architecture=dense", "architecture.widths=[64, 16]", "seed=1"], "architecture=dense widths=[64, 16] seed=1"),
        (["experiment=thesis/table3_512", "+trainer.fast=1"], "experiment=table3_512 fast=1"),
        (["run=outputs/train/first/", "split=test"], "run=first split=test"),
        (["architecture=" + "x" * 100], "architecture=" + "x" * 66 + "…"),
    ],
)
def test_a_name_is_what_differs_from_the_default(overrides, expected):
    assert short_name(overrides) == expected


def test_columns_are_flat_and_a_list_is_text():
    config = {
        "noise": {"_target_": "likeness.heads.noise.Masking", "share": 0.2},
        "architecture": {"class": "Dense", "widths": [64, 16], "widths_for": None},
        "metric": {"ks": [1, 5]},
        "batch_size": 32,
    }
    assert columns(config, {"noise": "masking", "backbone": "random", "protocol": None, "hydra/launcher": "basic"}) == {
        "noise": "masking",
        "backbone": "random",
        "architecture_widths": "[64, 16]",
        "noise_share": 0.2,
        "batch_size": 32,
        "noise_amount": 0.2,
    }


def test_no_noise_is_an_amount_of_zero_and_an_evaluation_knows_none():
    assert columns({"noise": {"_target_": "likeness.heads.noise.NoNoise"}}, {}) == {"noise_amount": 0.0}
    assert columns({}, {}) == {}


def test_the_revision_is_the_checkouts_or_unknown(monkeypatch):
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if told.returncode == 0:
        assert told.stdout.startswith((git_revision() or "-").removesuffix("-dirty"))
    monkeypatch.setattr(identity, "__file__", "/nowhere/identity.py")
    assert git_revision() is None
