"""Hostile configs: what a target may lead to, counted; and that no secret is in what a run leaves."""

import pkgutil
from importlib import import_module

import pytest
from faults.sandbox import command
from helpers import draw_striped
from test_config import HOSTILE, OF_HYDRA, PLACES

import likeness
from likeness.config import targets
from likeness.errors import LikenessError

TORCHES = ("torch.optim", "torch.nn.modules.loss", "pytorch_lightning.trainer.", "pytorch_lightning.callbacks.")
SECRETS = {
    "WANDB_API_KEY": "canary0" + "f" * 33,
    "AWS_SECRET_ACCESS_KEY": "canary0aws0secret",
    "HF_TOKEN": "canary0hugging0face",
    "DATABASE_URL": "postgres://me:canary0password@localhost/x",
}


def accepted(target: object) -> object | None:
    try:
        return targets.allowed(target)
    except LikenessError:
        return None


@pytest.mark.fault("F46")
def test_no_hostile_target_is_resolved(figure):
    assert len(HOSTILE) >= 60
    led = [target for target in HOSTILE if accepted(target) is not None]
    figure("G9", f"of {len(HOSTILE)} hostile targets resolved", 0, led or 0)
    figure("G9", "further places and calls of Hydra's own in the tests", "> 20", len(PLACES) + len(OF_HYDRA), met=True)


@pytest.mark.fault("F46")
def test_whatever_a_target_may_name_is_a_class_of_ours_or_listed(figure):
    """Every name in every module of this package, and of the listed ones, is tried."""
    modules = [module.name for module in pkgutil.walk_packages(likeness.__path__, "likeness.")]
    names = [
        f"{module}.{name}" for module in [*modules, *targets._ALLOWED] for name in dir(import_module(module)) if name
    ]
    found = {name: target for name in names if (target := accepted(name)) is not None}
    assert len(found) > 40
    led = {name: getattr(target, "__module__", "") for name, target in found.items()}
    outside = [name for name, home in led.items() if not home.startswith(("likeness.", *TORCHES))]
    figure("G9", f"of {len(names)} names tried that lead out of the list", 0, outside or 0)


@pytest.mark.fault("F46")
def test_no_secret_is_in_what_a_run_leaves(tmp_path, monkeypatch, figure, count):
    """Training with every tracker that writes here and a refusal, its evaluation."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for period, name in ((4, "fine"), (25, "coarse")):
        for number in range(20):
            draw_striped(tmp_path / "photos" / name / f"{number}.png", period, number)
    quick = "backbone=random preprocessing=simple preprocessing.size=32 architecture=dense trainer.max_epochs=1"
    words = f"{quick} data=folder data.root=photos metric.ks=[1] logger=[csv,wandb,tensorboard]".split()
    done = command("train.py", *words, "hydra.run.dir=run", folder=tmp_path)
    assert done.code == 0, done.err
    if count(0, 1, 1):
        again = command("evaluate.py", "run=run", "hydra.run.dir=scored", folder=tmp_path)
        assert again.code == 0, again.err
    refused = command("train.py", *words, "seed=${oc.env:HF_TOKEN}", "hydra.run.dir=refused", folder=tmp_path)
    assert refused.code == 78
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 55
    assert any(path.suffix == ".wandb" for path in files)
    leaking = [str(path) for path in files if b"canary0" in path.read_bytes()]
    figure("G20", f"files of {len(files)} with one of {len(SECRETS)} secrets of the environment", 0, leaking or 0)
