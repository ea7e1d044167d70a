"""The head beside its baselines, each a function from features to codes: fitted, kept and read again."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.assembly.describing import code_width
from likeness.assembly.restoring import loaded
from likeness.assembly.splitting import split_names
from likeness.features.datamodule import TRAINING_SPLITS, FeatureData
from likeness.heads.autoencoder import Autoencoder, row_batches
from likeness.heads.linear import PCA, Identity, RandomProjection
from likeness.runs import checkpoint
from likeness.runs.folder import RunFolder

log = logging.getLogger(__name__)

Encode = Callable[[Tensor], Tensor]
_BASELINES = "baselines.ckpt"
_last_pca: dict[tuple[str, str], PCA] = {}  # of the job before


def fit_methods(
    module: Autoencoder, data: FeatureData, seed: int, folder: RunFolder, others: Sequence[Autoencoder] = ()
) -> dict[str, Encode]:
    """The head and its baselines: frozen features, PCA and random projection of the head's width.

    The fitted baselines are kept beside the checkpoint, so that an evaluation compares with the same ones; those that
    follow the seed also for the other heads of the job.
    """
    baselines = _baselines(code_width(module, data), data.feature_shape, seed)
    _fit_pca(baselines["pca"], data, (module.card["fingerprint"], module.card["pictures"]))
    states = {name: baseline.state_dict() for name, baseline in baselines.items()}
    trained = np.isin(data.features.table.splits, TRAINING_SPLITS)
    content = {"states": states, "trained_on": _short(data.features.keys[trained])}
    content["by_seed"] = {head.seed: {"random_projection": projection_of(head, data).state_dict()} for head in others}
    content[checkpoint.CARD] = {"schema": checkpoint.SCHEMA}
    checkpoint.write_checkpoint(content, folder.path / "checkpoints" / _BASELINES)
    return _methods(module, baselines)


def _fit_pca(pca: PCA, data: FeatureData, known_by: tuple[str, str]) -> None:
    """Fit it, or where the job before had the same rows and as many axes, take those: a grid of heads solves it once.

    Args:
        known_by: Fingerprint of the features and digest of the pictures.
    """
    before = _last_pca.get(known_by)
    if before is None or before.axes.shape[1] < pca.axes.shape[1]:
        pca.fit(row_batches(data.training_split()))
        _last_pca.clear()
        _last_pca[known_by] = pca
    else:
        pca.mean.copy_(before.mean)
        pca.axes.copy_(before.axes[:, : pca.axes.shape[1]])


def _short(keys: np.ndarray) -> Tensor:
    """The first 8 bytes of each picture's SHA-256, as one number: enough to know a picture again."""
    return torch.from_numpy(np.ascontiguousarray(keys[:, :8]).view(np.int64)[:, 0].copy())


def read_methods(
    module: Autoencoder, data: FeatureData, splits: Sequence[str], card: Mapping[str, Any], folder: Path
) -> dict[str, Encode]:
    """The head and the baselines that lie beside its checkpoint; without those, the frozen features alone.

    Warns where pictures of ``splits`` are among those that the head was trained on.
    """
    path = folder / _BASELINES
    if not path.exists():
        log.warning("no %s beside the checkpoint: PCA and random projection are not scored", _BASELINES)
        return _methods(module, {})
    content = checkpoint.open_checkpoint(path)
    states, trained_on = _kept_states(content, card["seed"], path), content["trained_on"]
    asked = np.isin(data.features.table.splits, split_names(splits))
    seen = int(torch.isin(_short(data.features.keys[asked]), trained_on).sum())
    if seen:
        log.warning("[DATA-LEAK] the head was trained on %d of these %d pictures: they flatter it", seen, asked.sum())
    width = states["random_projection"]["matrix"].shape[1]
    shape = tuple(card["feature_shape"])
    baselines = {
        "pca": loaded(partial(PCA, shape, width), states["pca"], path),
        "random_projection": loaded(partial(RandomProjection, shape, width), states["random_projection"], path),
    }
    return _methods(module, baselines)


def _kept_states(content: Mapping[str, Any], seed: int, path: Path) -> dict[str, dict[str, Tensor]]:
    """The baselines' weights by name, and beside them the pictures that the head was trained on."""
    by_seed, trained_on = content.get("by_seed", {}), content.get("trained_on")
    states = content.get("states")
    own = by_seed.get(seed, {}) if isinstance(by_seed, dict) else None
    if not (isinstance(states, dict) and isinstance(own, dict)):
        raise checkpoint.not_as_written(path, ["states", "by_seed"])
    states = states | own
    wrong = [name for name in ("pca", "random_projection") if not checkpoint.is_state(states.get(name))]
    if wrong or getattr(states["random_projection"].get("matrix"), "ndim", 0) != 2:
        raise checkpoint.not_as_written(path, [f"states.{name}" for name in wrong or ["random_projection.matrix"]])
    if not isinstance(trained_on, Tensor) or trained_on.dtype != torch.int64:
        raise checkpoint.not_as_written(path, ["trained_on"])
    return states


def projection_of(head: Autoencoder, data: FeatureData) -> RandomProjection:
    """The random projection that a head of this seed is compared with."""
    return RandomProjection(data.feature_shape, code_width(head, data), head.seed)


def _baselines(width: int, feature_shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    return {"pca": PCA(feature_shape, width), "random_projection": RandomProjection(feature_shape, width, seed)}


def _methods(module: Autoencoder, baselines: Mapping[str, PCA | RandomProjection]) -> dict[str, Encode]:
    frozen = Identity(())
    return {"head": module.encode, "frozen": frozen.encode} | {name: each.encode for name, each in baselines.items()}
