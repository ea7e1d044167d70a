"""Heads in closed form: the identity (the frozen baseline), PCA and a random projection."""

from collections.abc import Callable, Iterable
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

Parts = Callable[[], Iterable[Float[Tensor, "b ..."]]]  # gives the training rows, a batch at a time, as often as asked
_LARGEST_SOLVED = 8192


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
