"""Every option trains: composed, checked, assembled, fitted for an epoch on drawn features, scored."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from hydra import compose, initialize_config_dir

from likeness.assembly import baselines, extracting, modules, reporting, restoring, scoring, training
from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Extractor, Features
from likeness.heads.autoencoder import row_batches
from likeness.heads.linear import PCA
from likeness.images.decoding import Decoder
from likeness.images.preprocessing import Preprocessing
from likeness.images.table import Row, tabulate
from likeness.runs.folder import RunFolder

VARIANTS = [
    *(
        ["architecture=dense", f"noise={name}"]
        for name in ("none", "gaussian", "masking", "salt_and_pepper", "gaussian_as_published")
    ),
    *(["architecture=dense", f"scaling={name}"] for name in ("none", "max_abs", "standardize", "l2", "root")),
    ["architecture=neighbour_average", "architecture.width=5"],
    *(["architecture=dense", f"loss={name}"] for name in ("mse", "cosine", "huber")),
    *(["architecture=dense", f"optimizer={name}"] for name in ("adadelta", "adamw", "sgd")),
    *(["architecture=dense", f"scheduler={name}"] for name in ("none", "cosine", "plateau")),
    ["architecture=identity"],
    ["architecture=pca", "architecture.width=5"],
    ["architecture=random_projection", "architecture.width=5"],
    ["architecture=dense", "architecture.widths=[12,5]", "architecture.output_activation=sigmoid"],
    ["architecture=dense", "architecture.widths=[12,5]", "architecture.tied=true", "architecture.l1=0.001"],
    ["architecture=conv", "architecture.channels=[6,4]"],
]


class Shaped:
    """Stands for a backbone that is never asked for a feature."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __call__(self, pictures):
        raise AssertionError("no picture is looked at here")

    def policy(self) -> dict:
        return {"network": "none", "weights": "none", "shape": list(self.shape)}

    def feature_shape(self, size: int) -> tuple[int, ...]:
        return self.shape


def drawn(shape: tuple[int, ...]) -> FeatureData:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    rows = rng.normal(size=(60, *shape)) + rng.normal(size=(3, *shape))[labels]
    splits = np.repeat(["train", "val", "test"], 20)
    listed = [Row(f"{i:02d}", "abc"[label], split) for i, (label, split) in enumerate(zip(labels, splits, strict=True))]
    table = tabulate(Path("/none"), listed, 0, (0.6, 0.2, 0.2))
    return FeatureData(
        Features(table, torch.from_numpy(rows.astype(np.float32)), np.zeros((60, 32), np.uint8), 0, 60),
        batch_size=8,
        seed=0,
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
def test_every_option_trains_and_is_scored(variant, tmp_path):
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = ["data=folder", "data.root=/none", "logger=none", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
        config = checked(compose("train", [*overrides, *variant]))
    shape = (4, 3, 3) if "architecture=conv" in variant else (9,)
    data = drawn(shape)
    extractor = Extractor(Decoder(), Preprocessing(size=8, mean=[0.0] * 3, std=[1.0] * 3), Shaped(shape))
    folder = RunFolder(tmp_path, config)
    card = modules.build_card(config, {"architecture": "x", "backbone": "y"}, extractor, data)
    module = modules.build_head(config, data.feature_shape, card)
    trainer = training.build_trainer(config, folder)
    training.fit(trainer, module, data, folder)
    methods = baselines.fit_methods(module, data, 0, folder)
    results = scoring.score_splits(methods, data, ("val", "test"), None, config["metric"])
    metrics = reporting.write_results(results, module, data, folder, trainer)
    assert metrics["splits"]["test"]["n"] == 20
    assert 0 <= reporting.validation_value(metrics) <= 1
    saved = training.checkpoint.open_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    for name, value in module.state_dict().items():
        assert torch.equal(saved["state_dict"][name], value), name


def test_a_narrower_pca_of_the_same_rows_is_not_solved_again_and_is_bit_for_bit_what_it_would_be(monkeypatch):
    data, solved = drawn((9,)), []
    fit = PCA.fit
    monkeypatch.setattr(PCA, "fit", lambda pca, batches: solved.append(pca.axes.shape[1]) or fit(pca, batches))
    for width, known_by in ((5, ("a", "b")), (3, ("a", "b")), (5, ("a", "b")), (6, ("a", "b")), (2, ("a", "c"))):
        fitted, alone = PCA((9,), width), PCA((9,), width)
        baselines._fit_pca(fitted, data, known_by)
        fit(alone, row_batches(data.training_split()))
        assert torch.equal(fitted.axes, alone.axes)
        assert torch.equal(fitted.mean, alone.mean)
    assert solved == [5, 6, 2]


def test_the_same_seed_gives_the_same_numbers_whatever_ran_before(tmp_path):
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = ["data=folder", "data.root=/none", "logger=none", "trainer.max_epochs=3", "noise=gaussian"]
        overrides += ["architecture=dense"]
        config = checked(compose("train", overrides))
    states = []
    for attempt in range(2):
        torch.manual_seed(attempt)
        data = drawn((9,))
        extractor = Extractor(Decoder(), Preprocessing(size=8, mean=[0.0] * 3, std=[1.0] * 3), Shaped((9,)))
        folder = RunFolder(tmp_path / str(attempt), config)
        card = modules.build_card(config, {"architecture": "x", "backbone": "y"}, extractor, data)
        module = modules.build_head(config, data.feature_shape, card)
        training.fit(training.build_trainer(config, folder), module, data, folder)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_beside_a_slurm_is_not_told_to_use_srun(tmp_path, monkeypatch):
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = checked(compose("train", ["logger=none", "trainer.accelerator=cpu"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.build_trainer(config, RunFolder(tmp_path, config))


def test_a_head_of_bf16_features_gets_them_and_no_others(tmp_path):
    """A card that says the other precision, either way, is of features that this head was not trained on."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = checked(compose("train", ["data=folder", "data.root=/none", "logger=none", "backbone.precision=bf16"]))
    data = drawn((1024,))
    evaluation = {"backbone": {"weights": None}, "extraction": {**config["extraction"], "device": "cpu"}}
    for own, other in (("bf16", "fp32"), ("fp32", "bf16")):
        config["backbone"]["precision"] = own
        extractor = extracting.build_extractor({**config, "extraction": evaluation["extraction"]})
        card = modules.build_card(config, {"architecture": "x", "backbone": "y"}, extractor, data)
        head = modules.build_head(config, data.feature_shape, card)
        training._write_head(head, tmp_path / "best.ckpt")
        assert restoring.restore(tmp_path / "best.ckpt", evaluation)[1].backbone.precision == own
        head.card["backbone"]["precision"] = other
        training._write_head(head, tmp_path / "best.ckpt")
        with pytest.raises(LikenessError, match="features that this head was trained on") as refusal:
            restoring.restore(tmp_path / "best.ckpt", evaluation)
        assert "backbone.precision: trained with" in refusal.value.where
