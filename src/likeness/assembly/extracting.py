"""From a config to the extractor, and to the features of its pictures."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from likeness.assembly.building import Config, build
from likeness.errors import LikenessError
from likeness.features.extraction import Cost, Extractor, Features, cost, extract
from likeness.features.store import Shelf
from likeness.features.weights import not_fetching
from likeness.files import canonical_json
from likeness.images.table import ImageTable
from likeness.runs import preemption


def build_extractor(config: Config, own_weights: Mapping[str, Tensor] | None = None) -> Extractor:
    """Decoding, preprocessing and the frozen network, on the device that ``extraction.device`` names.

    Args:
        own_weights: What an exported model brings, in the place of ``backbone.weights``.
    """
    device = _usable(config["extraction"]["device"])
    nodes = [config[name] for name in ("decoding", "preprocessing", "backbone")]
    if own_weights is None:
        return _last_extractor(canonical_json(nodes), device)
    return _extractor_of(nodes, device, state=own_weights)


def _usable(device: str) -> str:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LikenessError(
            "CONFIG",
            f"extraction.device={device} cannot be used here.",
            where="extraction.device",
            cause=str(error).splitlines()[0],
            fix="Give extraction.device=cpu, or auto for a GPU where there is one.",
        ) from error
    return device


@lru_cache(maxsize=1)  # of the job before: torch keeps the source of every network that is cut, 0.25 MB a job
def _last_extractor(nodes: str, device: str) -> Extractor:
    return _extractor_of(json.loads(nodes), device)


def _extractor_of(nodes: Sequence[Config], device: str, **of_backbone: Mapping[str, Tensor]) -> Extractor:
    decoder, preprocessing, backbone = build(nodes[0]), build(nodes[1]), build(nodes[2], **of_backbone)
    return Extractor(decoder, preprocessing, backbone.to(device, memory_format=torch.channels_last), device)


def find_features(config: Config, extractor: Extractor) -> Features:
    """The features of every picture of the data: found in the store, or computed now and kept there."""
    data = build(config["data"])
    return features_of(data.table(), config, extractor, data.on_bad_image, data.mostly_white)


def features_of(
    table: ImageTable, config: Config, extractor: Extractor, on_bad_image: str, mostly_white: float | None = None
) -> Features:
    """As ``find_features``, of a table; of the config ``paths.store`` and ``extraction`` count."""
    store = Path(config["paths"]["store"])
    return extract(
        extractor,
        table,
        store,
        on_bad_image=on_bad_image,
        mostly_white=mostly_white,
        memory_bytes=config["extraction"]["memory_gb"] * 1e9,
        undisturbed=preemption.undisturbed,
        rehash=config["extraction"]["rehash"],
        shelf=_last_shelf(store.absolute(), canonical_json(extractor.identity())),
        **pace_of(config, extractor.device),
    )


@lru_cache(maxsize=1)  # of the job before, which verified its rows; which of them are a picture's its bytes say anew
def _last_shelf(store: Path, identity: str) -> Shelf:
    return Shelf(store, json.loads(identity))


def extraction_cost(config: Config) -> Cost:
    """What ``find_features`` would compute; nothing is downloaded or kept, and what is wrong is the cost's fault."""
    try:
        with not_fetching():
            extractor = build_extractor(config)
        table, store = build(config["data"]).table(), Path(config["paths"]["store"])
        rehash = config["extraction"]["rehash"]
        return cost(extractor, table, store, rehash=rehash, **pace_of(config, extractor.device))
    except LikenessError as error:
        return Cost(str(config["backbone"]["name"]), fault=error)


def pace_of(config: Config, device: str, processes: int = 1) -> dict[str, int]:
    """Of one of so many processes of this machine."""
    options = config["extraction"]
    return {
        "batch_size": options["batch_size"] or (16 if device == "cpu" else 256),
        "workers": options["workers"] or max(1, (os.cpu_count() or 1) // processes),
    }
