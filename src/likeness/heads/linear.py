"""Heads in closed form: the identity (the frozen baseline), PCA, a random projection, an average over neighbours."""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional

from likeness.errors import LikenessError

Parts = Callable[[], Iterable[Float[Tensor, "b ..."]]]  # gives the training rows, a batch at a time, as often as asked
_LARGEST_SOLVED = 8192
_QUERIES_AT_ONCE = 1024


@runtime_checkable
class ClosedForm(Protocol):
    """A head that needs no training: ``fit`` sees the training rows and is done."""

    def fit(self, batches: Parts) -> None: ...

    def encode(self, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b code"]: ...


class Identity(nn.Module):
    """The feature is the code: what any head must beat."""

    def __init__(self, feature_shape: tuple[int, ...]) -> None:
        super().__init__()

    def fit(self, batches: Parts) -> None:
        """Nothing to learn."""

    def encode(self, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b code"]:
        return rows.flatten(1)


class RandomProjection(nn.Module):
    """A seeded Gaussian projection to ``width`` dimensions (Johnson and Lindenstrauss 1984): what any width gives."""

    matrix: Float[Tensor, "d code"]

    def __init__(self, feature_shape: tuple[int, ...], width: int = 512, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("matrix", torch.randn(prod(feature_shape), width, generator=generator) / width**0.5)

    def fit(self, batches: Parts) -> None:
        """Nothing to learn."""

    def encode(self, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b code"]:
        return rows.flatten(1) @ self.matrix


class PCA(nn.Module):
    """Centred rows on their first ``width`` principal axes; width is cut to the feature's where it is larger.

    Axes beyond the rank of the training rows are zero. Solved in float64 on the smaller of the two Gram matrices,
    so that 3000 rows of 25 000 numbers cost as much as 3000 rows of 3000; where both sides exceed 8192, on an even
    sample of 8192 rows.
    """

    mean: Float[Tensor, " d"]
    axes: Float[Tensor, "d code"]

    def __init__(self, feature_shape: tuple[int, ...], width: int = 512) -> None:
        super().__init__()
        d = prod(feature_shape)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("axes", torch.zeros(d, min(width, d)))

    def fit(self, batches: Parts) -> None:
        n = sum(len(rows) for rows in batches())
        d, width = self.axes.shape
        self.mean.copy_(torch.stack([rows.flatten(1).double().sum(0) for rows in batches()]).sum(0) / n)
        axes = (
            _from_covariance(batches, self.mean.double())
            if d <= min(n, _LARGEST_SOLVED)
            else _from_gram(_even_sample(batches, n), self.mean.double())
        )
        self.axes.zero_()
        self.axes[:, : axes.shape[1]] = axes[:, :width]

    def encode(self, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b code"]:
        return (rows.flatten(1) - self.mean) @ self.axes


class NeighbourAverage(nn.Module):
    """Each row is moved towards the training rows that it is most like, and what comes out goes through a PCA.

    What a picture shares with others of its kind is kept, what sets it apart is averaged out: features that a gallery
    is augmented with (Turcot and Lowe 2009; Arandjelović and Zisserman 2012), here from training rows alone and without
    a label. A row is centred and brought to unit length; to it the mean of its ``k`` nearest training rows is added,
    each weighed by its cosine. The training rows are kept: all, or an even sample of 8192.

    Args:
        width: Of the code; cut to the feature's where it is larger.
        k: Neighbours that are averaged.
    """

    mean: Float[Tensor, " d"]
    kept: Float[Tensor, "m d"]

    def __init__(self, feature_shape: tuple[int, ...], width: int = 128, k: int = 10) -> None:
        super().__init__()
        d = prod(feature_shape)
        self.k = k
        self.pca = PCA((d,), width)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("kept", torch.zeros(0, d))

    def fit(self, batches: Parts) -> None:
        """Keep the training rows, and fit the PCA on what they become; a row is no neighbour of its own.

        Raises:
            LikenessError: HEAD when there are not more than ``k`` training rows.
        """
        rows = _even_sample(batches, sum(len(rows) for rows in batches()))
        if len(rows) <= self.k:
            raise LikenessError(
                "HEAD",
                f"architecture.k={self.k} neighbours are asked of {len(rows)} training pictures.",
                where="architecture=neighbour_average",
                kept="All features.",
                fix=f"Give more pictures, or architecture.k={max(1, len(rows) - 1)} or less.",
            )
        self.mean.copy_(rows.mean(0))
        self.kept = self._centred(rows.to(self.mean.dtype))
        self.pca.fit(self._averaged_training_rows)

    def encode(self, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b code"]:
        rows = self._centred(rows.flatten(1))
        return self.pca.encode(self._moved(rows, rows @ self.kept.T))

    def _averaged_training_rows(self) -> Iterable[Float[Tensor, "b d"]]:
        for start in range(0, len(self.kept), _QUERIES_AT_ONCE):
            rows = self.kept[start : start + _QUERIES_AT_ONCE]
            similarity = rows @ self.kept.T
            similarity.diagonal(start).fill_(-torch.inf)
            yield self._moved(rows, similarity)

    def _centred(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return functional.normalize(rows - self.mean, dim=1)

    def _moved(self, rows: Float[Tensor, "b d"], similarity: Float[Tensor, "b m"]) -> Float[Tensor, "b d"]:
        """``rows`` plus the mean of their nearest kept rows, by weight; one with none on its side stays as it is."""
        if not len(self.kept):
            return rows
        weights, nearest = similarity.topk(min(self.k, len(self.kept)), 1)
        weights = weights.clamp(min=0)
        mean = (weights[..., None] * self.kept[nearest]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1e-9)
        return rows + mean

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """As many rows as were kept, which no option says."""
        self.kept = self.kept.new_empty(len(state.get(f"{prefix}kept", self.kept)), self.kept.shape[1])
        super()._load_from_state_dict(state, prefix, *rest)


def _from_covariance(batches: Parts, mean: Float64[Tensor, " d"]) -> Float64[Tensor, "d m"]:
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for rows in batches():
        centred = rows.flatten(1).double() - mean
        scatter += centred.T @ centred
    return _signed(torch.linalg.eigh(scatter).eigenvectors.flip(1))


def _from_gram(rows: Float64[Tensor, "n d"], mean: Float64[Tensor, " d"]) -> Float64[Tensor, "d m"]:
    centred = rows - mean
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    kept = values > 1e-12 * values[-1]
    return _signed((centred.T @ vectors[:, kept] / values[kept].sqrt()).flip(1))


def _signed(axes: Float64[Tensor, "d m"]) -> Float64[Tensor, "d m"]:
    """Each axis with its largest entry positive, so that two solvers agree."""
    return axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()


def _even_sample(batches: Parts, n: int) -> Float64[Tensor, "n d"]:
    every = max(1, -(-n // _LARGEST_SOLVED))
    return torch.cat([rows.flatten(1) for rows in batches()])[::every].double()
