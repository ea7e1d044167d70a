import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Features
from likeness.heads.autoencoder import Autoencoder, codes_of
from likeness.heads.dense import Dense
from likeness.heads.linear import PCA
from likeness.heads.noise import Gaussian, GaussianAsPublished, NoNoise
from likeness.heads.scaling import Scaling
from likeness.images.table import Row, tabulate
from likeness.retrieval.metric import SimilarityRetrieval

D = 12


@pytest.fixture
def data() -> FeatureData:
    """Three clusters on a 3-dimensional plane in 12 dimensions: 96 rows to train on, 48 for val."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(144) % 3
    plane = torch.randn(3, D, generator=generator)
    rows = (
        torch.nn.functional.one_hot(labels, 3).float() @ plane * 2
        + torch.randn(144, 3, generator=generator) @ plane * 0.2
    )
    listed = [Row(f"{i:03d}", "abc"[label], "train" if i < 96 else "val") for i, label in enumerate(labels.tolist())]
    table = tabulate(Path("/x"), listed, 0, (0.6, 0.2, 0.2))
    return FeatureData(Features(table, rows, np.zeros((144, 32), np.uint8), 0, 144), batch_size=16, seed=0)


def module_of(noise=None, scaling="none", lr=0.01, seed=0, l1=0.0, loss=None, width=3, **options) -> Autoencoder:
    torch.manual_seed(seed)
    return Autoencoder(
        head=Dense((D,), widths=[width], code_activation="identity", l1=l1),
        scaling=Scaling((D,), scaling),
        noise=noise or NoNoise(),
        loss=loss or nn.MSELoss(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0),
        seed=seed,
        **options,
    )


def fit(module: Autoencoder, data: FeatureData, epochs: int = 3, **options) -> pl.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*srun.*")
        trainer.fit(module, data)
    return trainer


def weights(module: Autoencoder) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.head.parameters()]


def test_a_linear_head_finds_the_plane_that_the_features_lie_in(data):
    """With as many dimensions as the plane has, reconstruction comes close to nothing; codes keep the clusters."""
    module = module_of(metric=SimilarityRetrieval(map_at_r=False))
    trainer = fit(module, data, epochs=60)
    assert float(trainer.callback_metrics["val/loss"]) < 0.01
    assert float(trainer.callback_metrics["val/hit@1"]) == 1.0
    assert float(trainer.callback_metrics["val/hit@1_best"]) == 1.0


def test_the_logged_losses_are_the_mean_over_rows(data):
    module = module_of(lr=0.0)
    data.batch_size = 36  # the last batch is smaller
    trainer = fit(module, data, epochs=1)
    for split in ("train", "val"):
        rows = data.split(split).rows
        with torch.no_grad():
            expected = float(nn.functional.mse_loss(module.head.decode(module.head.encode(rows)), rows))
        assert float(trainer.callback_metrics[f"{split}/loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("noise", [NoNoise(), Gaussian(0.2)], ids=["none", "gaussian"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(data, noise):
    runs = []
    for seed in (1, 1, 2):
        module = module_of(noise, seed=seed)
        torch.manual_seed(len(runs))  # the global state must not matter
        fit(module, data)
        runs.append(weights(module))
    assert all(map(torch.equal, runs[0], runs[1]))
    assert not all(map(torch.equal, runs[0], runs[2]))


def test_fresh_noise_differs_by_step_and_published_noise_does_not(data):
    seen: dict[str, list[torch.Tensor]] = {"fresh": [], "published": []}

    class Spy(Autoencoder):
        def objective(self, noisy, clean):
            seen[self.tag].append((noisy - clean).detach())
            return super().objective(noisy, clean)

    for tag, noise in (("fresh", Gaussian(0.3)), ("published", GaussianAsPublished(0.3))):
        module = module_of(noise)
        module.__class__, module.tag = Spy, tag
        data.batch_size = 96
        fit(module, data, epochs=2)
    train_first, val_first, train_second, val_second = seen["fresh"]
    assert (val_first == 0).all()
    assert (val_second == 0).all()
    assert not torch.equal(train_first, train_second)
    train_first, val_first, train_second, val_second = (drawn.sort(0).values for drawn in seen["published"])
    assert torch.equal(train_first, train_second)  # the same rows in another order
    assert torch.equal(val_first, val_second)
    assert (val_first != 0).any()


def test_codes_are_of_clean_scaled_features(data):
    module = module_of(Gaussian(5.0), scaling="standardize")
    fit(module, data, epochs=1)
    rows = data.split("val").rows
    expected = module.head.encode((rows - module.scaling.offset) / module.scaling.factor)
    torch.testing.assert_close(codes_of(module.encode, data.split("val")), expected)
    assert float(module.scaling(data.split("train").rows).std(0, correction=0).mean()) == pytest.approx(1, abs=1e-4)


def test_the_l1_penalty_is_the_mean_of_the_codes_norms(data):
    rows = data.split("val").rows
    plain, sparse = module_of(), module_of(l1=0.5)
    penalty = 0.5 * plain.head.encode(rows).abs().sum(1).mean()
    torch.testing.assert_close(sparse.objective(rows, rows), plain.objective(rows, rows) + penalty)


@pytest.mark.fault("F42")
def test_a_loss_that_is_not_finite_stops_and_says_why(data):
    with pytest.raises(LikenessError, match=r"loss is (nan|inf)") as refusal:
        fit(module_of(lr=1e30), data, epochs=5)
    assert refusal.value.code == "NAN-LOSS"
    assert "optimizer.lr" in refusal.value.fix


def test_a_loss_never_broadcasts(data):
    module = module_of()
    module.head.decode = lambda code: torch.zeros(len(code), 1)
    with pytest.raises(AssertionError, match="reconstruction"):
        module.objective(torch.zeros(2, D), torch.zeros(2, D))


def test_a_closed_form_is_fitted_on_scaled_training_rows(data):
    module = module_of(scaling="standardize")
    module.head = PCA((D,), 3)
    module.fit_closed_form(data.training_split())
    rows = data.split("train").rows
    codes = module.encode(rows)
    assert codes.shape == (96, 3)
    torch.testing.assert_close(codes.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    scaled = (rows - rows.mean(0)) / rows.std(0, correction=0)
    assert float(codes.square().sum() / scaled.square().sum()) > 0.99


def test_two_processes_train_the_head_that_one_would(tmp_path):
    """Shares of each batch without padding, gradients averaged, losses and hits over all rows: the same numbers."""

    def results(processes: int) -> list[list[float]]:
        script = str(Path(__file__).with_name("two_processes.py"))
        done = subprocess.run(
            [sys.executable, script, str(processes)], cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
        assert len(found) == processes, done.stderr
        return [[float(value) for value in line] for line in found]

    (alone,) = results(1)
    for process in results(2):
        assert process == pytest.approx(alone, abs=2e-5)
