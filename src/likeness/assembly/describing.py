"""What a run says of itself: to its journal, and to trackers as columns."""

from math import prod
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from likeness.features.datamodule import FeatureData
from likeness.heads.autoencoder import Autoencoder
from likeness.runs.folder import RunFolder
from likeness.runs.identity import columns, git_revision, short_name
from likeness.runs.sweep import typed


def announce(job_type: str, module: Autoencoder, data: FeatureData, folder: RunFolder, heads: int = 1) -> None:
    """What the run is, into the journal and then to the trackers: they open when its head is known."""
    options = module.card["options"]
    tags = [options[name] for name in ("backbone", "architecture", "data") if options.get(name)]
    overrides, sweep = _called() if HydraConfig.initialized() else ([], None)
    folder.journal.write("run", group=sweep, name=short_name(overrides), job_type=job_type, tags=tags)
    described = _columns(module, data, folder) | ({"seeds": heads} if heads > 1 else {})
    for logger in folder.loggers:
        logger.log_hyperparams(described)


def _called() -> tuple[list[str], str | None]:
    """The job's overrides, and the name of its sweep's folder."""
    hydra = HydraConfig.get()
    return typed(hydra.overrides.task), Path(hydra.sweep.dir).name if in_multirun() else None


def _columns(module: Autoencoder, data: FeatureData, folder: RunFolder) -> dict[str, Any]:
    """Flat scalars for a dashboard's columns and axes."""
    card = module.card
    layers = card["architecture"].get("widths") or card["architecture"].get("channels") or []
    return {
        **columns({**folder.config, "architecture": card["architecture"]}, card["options"]),
        "seed": card["seed"],
        "depth": len(layers),
        **sizes(module, data),
        "feature_width": prod(data.feature_shape),
        "fingerprint": card["fingerprint"][:16],
        "data_root": str(data.features.table.root.absolute()),
        "folder": str(folder.path.absolute()),
        "git": git_revision(),
    }


def code_width(module: Autoencoder, data: FeatureData) -> int:
    """The width of a code, asked of the head."""
    with torch.inference_mode():
        return module.encode(torch.zeros(1, *data.feature_shape)).shape[1]


def sizes(module: Autoencoder, data: FeatureData) -> dict[str, int]:
    """The width of a code, and the parameters of the head."""
    return {
        "code_width": code_width(module, data),
        "parameters": sum(parameter.numel() for parameter in module.head.parameters()),
    }


def in_multirun() -> bool:
    """Whether this job is one of many."""
    return HydraConfig.get().mode == RunMode.MULTIRUN
