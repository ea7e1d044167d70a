"""A dashboard mirrors what the journal has; one that fails is named once and left out."""

import csv
import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers.logger import Logger

from likeness.errors import LikenessError
from likeness.runs import dashboard, trackers
from likeness.runs.dashboard import Media, WandbRun
from likeness.runs.trackers import Tolerant, csv_logger, mlflow_logger, tensorboard_logger, wandb_logger


class Recorder(Logger):
    """Notes what reaches it, and fails at one of its methods."""

    def __init__(self, fails: str = "", error: BaseException | None = None) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []
        self._fails, self._error = fails, error or RuntimeError("server gone")

    def _note(self, method: str, value: Any) -> None:
        self.calls.append((method, value))
        if method == self._fails:
            raise self._error

    name = version = "recorder"

    def log_metrics(self, metrics, step=None):
        self._note("log_metrics", (metrics, step))

    def log_hyperparams(self, params, *args, **kwargs):
        self._note("log_hyperparams", params)

    def save(self):
        self._note("save", None)

    def finalize(self, status):
        self._note("finalize", status)


def log_all(logger: Logger) -> None:
    logger.log_hyperparams({"seed": 3})
    logger.log_metrics({"val/loss": 0.5}, 1)
    logger.log_metrics({"val/loss": 0.25}, 2)
    logger.save()
    logger.finalize("success")


ALL = [
    ("log_hyperparams", {"seed": 3}),
    ("log_metrics", ({"val/loss": 0.5}, 1)),
    ("log_metrics", ({"val/loss": 0.25}, 2)),
    ("save", None),
    ("finalize", "success"),
]


def test_a_tracker_that_works_gets_everything(caplog):
    inner = Recorder()
    log_all(Tolerant(lambda: inner, "wandb"))
    assert inner.calls == ALL
    assert caplog.messages == []


@pytest.mark.fault("F48")
@pytest.mark.parametrize(
    ("fails", "reached"), [("log_hyperparams", 1), ("log_metrics", 2), ("save", 4), ("finalize", 5)]
)
@pytest.mark.parametrize("error", [RuntimeError("server gone"), SystemExit("server gone"), OSError("server gone")])
def test_a_tracker_that_fails_is_named_once_and_left_out(caplog, fails, reached, error):
    inner = Recorder(fails, error)
    tolerant = Tolerant(lambda: inner, "wandb")
    log_all(tolerant)
    log_all(tolerant)
    assert inner.calls == ALL[:reached]
    (told,) = caplog.messages
    assert told == "[TRACKER] wandb failed and is left out (server gone); everything is in journal.jsonl"


@pytest.mark.parametrize("error", [RuntimeError("no network"), SystemExit("no network")])
def test_a_tracker_that_cannot_be_made_is_named_once_and_left_out(caplog, error):
    def make() -> Logger:
        raise error

    log_all(Tolerant(make, "mlflow"))
    assert caplog.messages == ["[TRACKER] mlflow failed and is left out (no network); everything is in journal.jsonl"]


def test_what_the_user_can_mend_and_an_interruption_pass_through():
    def missing() -> Logger:
        raise LikenessError("CONFIG-EXTRA", "not installed.", fix="pip install")

    with pytest.raises(LikenessError, match="not installed"):
        Tolerant(missing, "wandb")
    tolerant = Tolerant(lambda: Recorder("log_metrics", KeyboardInterrupt()), "wandb")
    with pytest.raises(KeyboardInterrupt):
        tolerant.log_metrics({})


@pytest.mark.parametrize(
    ("make", "package"), [(wandb_logger, "wandb"), (tensorboard_logger, "tensorboard"), (mlflow_logger, "mlflow")]
)
def test_a_missing_package_is_named_with_the_way_to_get_it(make, package, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LikenessError) as caught:
        make(str(tmp_path))
    assert (caught.value.code, caught.value.exit_code) == ("CONFIG-EXTRA", 78)
    assert f'pip install "likeness[{package}]"' in caught.value.fix


def test_csv_is_one_file_in_the_runs_folder(tmp_path):
    log_all(csv_logger(str(tmp_path)))
    with open(tmp_path / "csv" / "metrics.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"step": "1", "val/loss": "0.5"}, {"step": "2", "val/loss": "0.25"}]


def test_tensorboard_writes_its_events(tmp_path):
    pytest.importorskip("tensorboard")
    log_all(tensorboard_logger(str(tmp_path)))
    events = list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert any(b"val/loss" in path.read_bytes() for path in events)


@pytest.mark.fault("F48")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "no key for 127.0.0.1"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "127.0.0.1 does not answer"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": "http://127.0.0.1:port"}, "127.0.0.1 does not answer"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": "nonsense"}, "the server does not answer"),
        ({"WANDB_BASE_URL": "{server}"}, "no key for 127.0.0.1"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": "{server}"}, ""),
    ],
)
def test_wandb_is_online_only_with_a_key_and_a_server_that_answers(monkeypatch, tmp_path, variables, expected):
    import socket

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(server=address))
        told = trackers.why_offline()
        assert told.partition(":")[0] == expected


def test_wandb_says_why_it_is_offline_and_how_to_send_later(tmp_path, caplog, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    caplog.set_level(logging.INFO)
    wandb_logger(str(tmp_path))
    told = f"wandb is offline (no key for api.wandb.ai); send later with: likeness sync {tmp_path}"
    assert caplog.messages == [told]


def test_finishing_without_a_run_or_with_one_that_fails_is_quiet_or_told(monkeypatch, caplog):
    dashboard.finish()
    assert caplog.messages == []

    class Broken:
        folder = Path("run")

        @staticmethod
        def close(exit_code: int) -> None:
            raise RuntimeError("service died")

    monkeypatch.setattr(dashboard, "_OPEN", [Broken()])
    dashboard.finish()
    told = "[TRACKER] wandb did not finish (service died); everything is in journal.jsonl; send it with: "
    assert caplog.messages == [told + "likeness sync run"]


def test_pictures_that_cannot_be_made_are_a_warning_and_go_to_no_other_tracker(tmp_path, caplog):
    def fails() -> Media:
        raise OSError("no pictures")

    Tolerant(lambda: Recorder(), "mlflow").log_media(fails, drawn=True)
    Tolerant(lambda: WandbRun(tmp_path, {}, "offline"), "wandb").log_media(fails, drawn=False)
    assert caplog.messages == []
    Tolerant(lambda: WandbRun(tmp_path, {}, "offline"), "wandb").log_media(fails, drawn=True)
    assert caplog.messages == ["[TRACKER] pictures are not sent to wandb (no pictures)"]
