"""Dashboards mirror the journal; one that fails is named once and never stops a run."""

import logging
import netrc
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from likeness.errors import LikenessError
from likeness.runs.dashboard import Media, Mode, WandbRun
from likeness.runs.journal import logged, read

log = logging.getLogger(__name__)

_SECONDS_TO_ANSWER = 2.0


class Tolerant(Logger):
    """Passes everything on to a tracker until the tracker fails; then says so and goes on without it."""

    def __init__(self, make: Callable[[], Logger], title: str) -> None:
        super().__init__()
        self._title = title
        self._inner: Logger | None = None
        self._try(lambda: setattr(self, "_inner", make()))

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except LikenessError:
            raise
        except (Exception, SystemExit) as error:
            log.warning("[TRACKER] %s failed and is left out (%s); everything is in journal.jsonl", self._title, error)
            self._inner = None

    @property
    def name(self) -> str:
        return self._title

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if (inner := self._inner) is not None:
            self._try(lambda: inner.log_metrics(dict(metrics), step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        if (inner := self._inner) is not None:
            self._try(lambda: inner.log_hyperparams(dict(params)))

    @rank_zero_only
    def save(self) -> None:
        if (inner := self._inner) is not None:
            self._try(inner.save)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if (inner := self._inner) is not None:
            self._try(lambda: inner.finalize(status))

    def log_media(self, make: Callable[[], Media], drawn: bool) -> None:
        """What ``make`` gives, to a tracker that shows pictures; where no figure was ``drawn``, if it was asked to."""
        if isinstance(inner := self._inner, WandbRun) and (drawn or inner.media):
            try:
                inner.log_media(make())
            except Exception as error:
                log.warning("[TRACKER] pictures are not sent to %s (%s)", self._title, error)


def wandb_logger(
    folder: str,
    project: str = "likeness",
    group: str | None = None,
    name: str | None = None,
    job_type: str | None = None,
    tags: list[str] | None = None,
    mode: Literal["online", "offline"] | None = None,
    media: bool = False,
) -> Logger:
    """Weights & Biases; offline when there is no key or the server does not answer, unless ``mode`` says otherwise.

    What is None is as the ``run`` event of the folder's journal says. The run's id is kept in ``folder``, so that a job
    that continues there continues the same wandb run. ``media`` sends pictures even where no figure is drawn.

    Raises:
        LikenessError: CONFIG-EXTRA when wandb is not installed.
    """
    need("wandb")
    asked = mode or os.environ.get("WANDB_MODE")
    cause = f"mode={asked}" if asked else why_offline()
    chosen: Mode = "disabled" if asked == "disabled" else "offline" if cause and asked != "online" else "online"
    if chosen == "offline":
        log.info("wandb is offline (%s); send later with: likeness sync %s", cause, folder)
    options = {"project": project, "group": group, "name": name, "job_type": job_type, "tags": tags}
    return WandbRun(Path(folder), options, chosen, media)


def why_offline() -> str:
    """Why nothing can be sent to wandb's server: no key, or no answer. Empty where it can."""
    address = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    host = address.hostname or ""
    try:
        known = bool(os.environ.get("WANDB_API_KEY")) or netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        known = False
    if not known:
        return f"no key for {host or 'the server'}"
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, ValueError) as error:
        return f"{host or 'the server'} does not answer: {error}"
    return ""


def tensorboard_logger(folder: str) -> Logger:
    """TensorBoard event files in ``folder/tensorboard``."""
    need("tensorboard")
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)


def mlflow_logger(folder: str, experiment: str = "likeness", uri: str | None = None, name: str | None = None) -> Logger:
    """MLflow; without a ``uri`` an SQLite file in the run's folder."""
    need("mlflow")
    from pytorch_lightning.loggers import MLFlowLogger

    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(folder).absolute()}/mlflow.db"
    return MLFlowLogger(experiment_name=experiment, tracking_uri=uri, run_name=name)


def csv_logger(folder: str) -> Logger:
    """``csv/metrics.csv`` in the run's folder; a resumed run's is made anew from its journal, and goes on."""
    from pytorch_lightning.loggers import CSVLogger

    logger = CSVLogger(save_dir=folder, name="csv", version="", flush_logs_every_n_steps=1000)
    _log_again(logger, Path(folder))
    return logger


@rank_zero_only
def _log_again(logger: Logger, folder: Path) -> None:
    (folder / "csv" / "metrics.csv").unlink(missing_ok=True)
    for event in logged(read(folder / "journal.jsonl")):
        logger.log_metrics({k: v for k, v in event.items() if k not in ("time", "event", "step")}, event["step"])


def need(package: str) -> None:
    """Raises CONFIG-EXTRA when ``package``, which a tracker is made with, is not installed."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise LikenessError(
            "CONFIG-EXTRA",
            f"logger={package} was asked for, and {package} is not installed.",
            where="logger",
            fix=f'pip install "likeness[{package}]", or leave logger=csv.',
        )
