"""The features by split, and what a split must have."""

from collections.abc import Sequence

import numpy as np

from likeness.assembly.building import Config
from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData, Split
from likeness.features.extraction import Features
from likeness.images.splits import SPLITS


def build_data(config: Config, features: Features) -> FeatureData:
    """The features by split.

    Raises:
        LikenessError: CONFIG when val or test has too few pictures for the largest of ``metric.ks``.
    """
    data = FeatureData(features, config["batch_size"], config["seed"])
    for split in ("val", "test"):
        if "architecture" in config and len(rows := data.split(split)):
            refuse_too_few(split, int((rows.is_gallery & (rows.labels >= 0)).sum()), config["metric"])
    return data


def split_names(splits: Sequence[str]) -> tuple[str, ...]:
    """The splits that are meant: ``all`` is each of them."""
    return SPLITS if "all" in splits else tuple(splits)


def rows_of(data: FeatureData, *splits: str) -> Split:
    """The rows of these splits together, in the table's order."""
    return data.split(*split_names(splits))


def counted(splits: np.ndarray) -> str:
    """How many pictures each split has, for a message."""
    return ", ".join(f"{count} in {name}" for name, count in zip(*np.unique(splits, return_counts=True), strict=True))


def refuse_too_few(split: str, gallery: int, options: Config) -> None:
    """Raises CONFIG where the largest of ``metric.ks`` asks for all of the gallery, or more."""
    if gallery <= max(options["ks"]):
        raise LikenessError(
            "CONFIG",
            f"metric.ks asks for {max(options['ks'])} neighbours; {split} has {gallery} labelled pictures to search.",
            where="metric.ks",
            kept="All features.",
            fix=f"Add pictures, or ask for fewer neighbours: metric.ks='{sorted({1, max(1, gallery - 1)})}'",
        )
