"""A look at what Hydra would call, open or write on a config's word, before it does."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from likeness.config.refusals import refuse
from likeness.config.secrecy import refuse_secrets
from likeness.config.targets import allowed
from likeness.errors import LikenessError

# Of Hydra's own config: what it calls itself, and what of that a log may be made of.
_CALLED = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")
_OF_A_LOG = {
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.handlers.RotatingFileHandler"),
    *("colorlog.ColoredFormatter", "ext://sys.stdout", "ext://sys.stderr"),
}


def guarded(load: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """``load``, after which a config is looked at before Hydra calls, opens or writes anything on its word."""

    @functools.wraps(load)
    def loaded(*given: Any, **named: Any) -> DictConfig:
        cfg = load(*given, **named)
        with open_dict(cfg):
            refuse_secrets(OmegaConf.to_container(cfg))
            refuse_secrets({f"hydra.{kind}.dir": _or_none(cfg.hydra[kind], "dir") for kind in ("run", "sweep")})
            refuse([fault for name in _CALLED for fault in _called_faults(cfg.hydra.get(name), f"hydra.{name}")])
        return cfg

    return loaded


def _called_faults(node: Any, path: str) -> Iterator[str]:
    """What Hydra may not call: it makes plugins of its own, callbacks of this package, and a log's usual handlers."""
    if isinstance(node, DictConfig):
        for key in map(str, node):
            value = _or_none(node, key)
            if key in ("_target_", "()", "class", "stream"):
                yield from _called_fault(str(value), f"{path}.{key}")
            elif isinstance(value, str) and value.startswith(("ext://", "cfg://")):
                yield f"{path}.{key}: {value} is not allowed"
            yield from _called_faults(value, f"{path}.{key}")
    elif isinstance(node, ListConfig):
        for index in range(len(node)):
            yield from _called_faults(_or_none(node, index), f"{path}[{index}]")


def _called_fault(value: str, path: str) -> Iterator[str]:
    owner, _, key = path.rpartition(".")
    if key != "_target_":
        fine = value in _OF_A_LOG
    elif owner in ("hydra.launcher", "hydra.sweeper"):
        fine = value.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))  # of these, Hydra takes plugins
    else:
        fine = owner == "hydra.sweeper.sampler" and re.fullmatch(r"optuna\.samplers\.\w+Sampler", value) is not None
    if not fine and key == "_target_":
        try:
            allowed(value)
        except LikenessError as error:
            yield f"{path}: {error.what}"
    elif not fine:
        yield f"{path}: {value} is not allowed"


def _or_none(node: Any, key: Any) -> Any:
    """A value with its interpolations followed; None where they lead nowhere yet."""
    try:
        return node[key]
    except OmegaConfBaseException:
        return None
