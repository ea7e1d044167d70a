"""From a composed config to checked plain values, or all its faults at once."""

import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from likeness.config.graphs import graph_faults
from likeness.config.nodes import faults, fits, spelled, suggestion
from likeness.config.refusals import refuse, refused
from likeness.config.schema import Scoring
from likeness.config.secrecy import refuse_secrets
from likeness.config.seeds import stack_faults
from likeness.config.values import value_faults

# What train.py cannot do without.
_NODES = (
    "data",
    "backbone",
    "decoding",
    "preprocessing",
    "architecture",
    "scaling",
    "noise",
    "loss",
    "optimizer",
    "trainer",
)


def checked(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, every node of it checked; what is built later is built from these very values.

    Raises:
        LikenessError: CONFIG with all faults at once, each with its dotted path; where torch is not imported yet, with
            those that are seen without the seconds that this takes, if there are any.
    """
    try:
        plain = typing.cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        refuse(list(_missing(OmegaConf.to_container(cfg))))
        raise refused(error) from error
    refuse_secrets(plain)
    bare = _bare(plain) if "architecture" in plain else []
    values = [*value_faults(plain), *stack_faults(plain), *graph_faults(plain)]
    seen = [*_unknown(OmegaConf.get_type(cfg), plain), *bare, *values, *_missing(plain)]
    if "torch" not in sys.modules:
        refuse(seen)
    refuse(list(dict.fromkeys([*seen, *faults(plain)])))
    return plain


def scoring_faults(metric: Mapping[str, Any]) -> list[str]:
    """What is wrong with options of scoring that come from elsewhere than a config."""
    hints = typing.get_type_hints(Scoring)
    wrong = [
        f"metric.{name}: {value!r:.60} is not {spelled(hints[name])}"
        for name, value in metric.items()
        if name in hints and not fits(value, hints[name])
    ]
    return [*_unknown(Scoring, metric, "metric."), *wrong] or list(value_faults({"metric": metric}))


def of_each_seed(cfg: DictConfig) -> list[dict[str, Any]]:
    """The checked configs of the single runs that this one stands for: ``seeds`` of them, from ``seed`` up.

    Raises:
        LikenessError: CONFIG also when something that the heads of one job share follows the seed.
    """
    first = checked(cfg)
    if first["seeds"] == 1:
        return [first]
    seeds = range(first["seed"] + 1, first["seed"] + first["seeds"])
    others = [OmegaConf.to_container(OmegaConf.merge(cfg, {"seed": seed}), resolve=True) for seed in seeds]
    each = [first, *typing.cast(list[dict[str, Any]], others)]
    follow = [name for name in _SHARED if any(config[name] != first[name] for config in each)]
    refuse(
        [f"{name}: follows the seed, and all seeds of a job share it: give one value, or seeds=1" for name in follow]
    )
    return each


def _missing(node: Any, path: str = "") -> Iterator[str]:
    """Mandatory values that nobody gave, where other values refer to them and nothing can be resolved."""
    if node == MISSING:
        yield f"{path}: missing, give it with {path}=…"
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))


def _unknown(schema: Any, plain: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Options that no typed root has: Hydra's ``+name=`` adds them, and nothing would read them."""
    hints = typing.get_type_hints(schema) if is_dataclass(schema) else dict.fromkeys(plain)
    for name, value in plain.items():
        if name not in hints:
            yield f"{path}{name}: unknown{suggestion(name, hints)}"
        elif is_dataclass(hints[name]):
            yield from _unknown(hints[name], value, f"{path}{name}.")


def _bare(plain: Mapping[str, Any]) -> Iterator[str]:
    """What must name a class and does not."""
    nodes = {name: plain[name] for name in _NODES}
    for group in ("callbacks", "logger"):
        members = plain[group]
        nodes |= {f"{group}.{n}": m for n, m in members.items()} if isinstance(members, Mapping) else {group: members}
    for name, node in nodes.items():
        if node != MISSING and not (isinstance(node, Mapping) and "_target_" in node):
            yield f"{name}: {node!r} names no class (_target_)"


# What the heads of a job of several seeds have in common.
_SHARED = (
    *(name for name in _NODES if name != "architecture"),
    "scheduler",
    "callbacks",
    "metric",
    "batch_size",
    "hits_every_n_epochs",
    "compile_optimizer",
    "cuda_graph",
)
