"""The LightningModule that a config describes, and the card that travels in its checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from likeness.assembly.building import Config, build
from likeness.config.targets import recorded
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Extractor
from likeness.heads.autoencoder import Autoencoder
from likeness.heads.compiling import compiled
from likeness.heads.linear import ClosedForm
from likeness.heads.recording import CudaRecorder
from likeness.retrieval.metric import SimilarityRetrieval
from likeness.runs import checkpoint


def build_head(config: Config, feature_shape: tuple[int, ...], card: dict[str, Any] | None = None) -> Autoencoder:
    """The LightningModule, its weights drawn from the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(config["seed"])
        head = build(config["architecture"], feature_shape=feature_shape)
    metric = {name: value for name, value in config["metric"].items() if name in ("ks", "ties")}
    optimizer = build(config["optimizer"])
    module = Autoencoder(
        head=head,
        scaling=build(config["scaling"], feature_shape=feature_shape),
        noise=build(config["noise"]),
        loss=build(config["loss"]),
        optimizer=compiled(optimizer) if config["compile_optimizer"] else optimizer,
        scheduler=build(config["scheduler"]) if config["scheduler"] else None,
        metric=SimilarityRetrieval(only_hits=True, exclude_group=config["metric"]["exclude_home"], **metric),
        hits_every_n_epochs=config["hits_every_n_epochs"],
        seed=config["seed"],
        card=card,
        recorder=CudaRecorder if config["cuda_graph"] else None,
    )
    if not isinstance(head, ClosedForm):
        module.configure_optimizers()  # an impossible option is told now, not in the first epoch
    return module


def build_heads(each: Sequence[Config], feature_shape: tuple[int, ...], card: dict[str, Any]) -> list[Autoencoder]:
    """A LightningModule for each config of one job; its card is that of the first, with its own seed."""
    return [
        build_head(
            config,
            feature_shape,
            {**card, "seed": config["seed"], "architecture": recorded(config["architecture"])},
        )
        for config in each
    ]


def build_card(config: Config, options: Mapping[str, Any], extractor: Extractor, data: FeatureData) -> dict[str, Any]:
    """What travels in a checkpoint: all that scoring needs, as plain values, classes by name."""
    backbone = config["backbone"]
    if Path(backbone["weights"]).is_file():
        backbone = {**backbone, "weights": str(Path(backbone["weights"]).absolute())}
    places = {
        name: str(Path(config["data"][name]).absolute()) for name in ("root", "manifest") if config["data"].get(name)
    }
    nodes = {name: recorded(config[name]) for name in ("architecture", "scaling", "decoding")}
    return {
        "schema": checkpoint.SCHEMA,
        **nodes,
        "backbone": recorded(backbone),
        "preprocessing": {"class": "Preprocessing", **_plain(asdict(extractor.preprocessing))},
        "data": recorded({**config["data"], **places}),
        "store": str(Path(config["paths"]["store"]).absolute()),
        "metric": dict(config["metric"]),
        "seed": config["seed"],
        "options": dict(options),
        "extractor": extractor.identity(),
        "fingerprint": extractor.fingerprint,
        "feature_shape": list(data.feature_shape),
        "classes": list(data.classes),
        "pictures": data.digest(),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
