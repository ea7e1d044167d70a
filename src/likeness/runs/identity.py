"""What a dashboard calls a run, and the code that it ran."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_UNNAMED = ("hydra.", "paths.", "logger", "figures.", "extraction.", "debug", "data.root", "data.manifest")
_GROUPS = (
    "data",
    "backbone",
    "preprocessing",
    "scaling",
    "architecture",
    "noise",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "protocol",
    "experiment",
)
_CLASS = ("_target_", "_partial_", "class")
_MOST = 80  # characters; what a dashboard shows without folding


def short_name(overrides: Sequence[str]) -> str:
    """What differs from the default, without places and what changes no number.

    >>> short_name(["data=folder", "data.root=/photos", "architecture.widths=[16]", "experiment=thesis/table3_512"])
    'data=folder widths=[16] experiment=table3_512'
    >>> short_name(["logger=wandb"])
    'default'
    """
    parts = [_short(each.lstrip("+~")) for each in overrides if not each.lstrip("+~").startswith(_UNNAMED)]
    name = " ".join(parts) or "default"
    return name if len(name) <= _MOST else name[: _MOST - 1] + "…"


def _short(override: str) -> str:
    key, equals, value = override.partition("=")
    return key.rpartition(".")[2] + equals + value.rstrip("/").rpartition("/")[2]


def columns(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> dict[str, Any]:
    """A run's options as flat scalars: ``noise`` is the kind that was chosen, ``noise_std`` its number.

    No name has a dot, which a dashboard reads as a nest; a list is text, since it can be no axis.

    >>> columns({"noise": {"_target_": "Gaussian", "std": 0.3}, "batch_size": 16}, {"noise": "gaussian"})
    {'noise': 'gaussian', 'noise_std': 0.3, 'batch_size': 16, 'noise_amount': 0.3}
    """
    found: dict[str, Any] = {name: choices[name] for name in _GROUPS if choices.get(name)}
    for group in _GROUPS:
        for option, value in (config.get(group) or {}).items():
            if value is not None and option not in _CLASS:
                found[f"{group}_{option}"] = str(value) if isinstance(value, list | dict) else value
    found |= {name: config[name] for name in ("batch_size",) if name in config}
    if "noise" in config:
        found["noise_amount"] = found.get("noise_std", found.get("noise_share", 0.0))
    return found


def git_revision() -> str | None:
    """The commit of the checkout that this code is in, ``-dirty`` where files differ from it; None where unknown."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
