"""How features are scaled before the head sees them: fitted on the training rows, kept with the head."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Kind = Literal["none", "max_abs", "standardize", "l2", "root"]


class Scaling(nn.Module):
    """(x − offset) / factor, each of a feature's channels on its own; ``l2`` divides every row by its norm.

    ``root`` takes the square root of each value, with its sign, before that: cosines of such rows are Hellinger's
    (Perronnin et al. 2010), in which a few large values do not drown the rest.

    Args:
        feature_shape: ``(d,)`` for vectors, ``(c, h, w)`` for maps: then one offset and factor a channel.
        kind: ``none``; ``max_abs`` (into [-1, 1]); ``standardize`` (mean 0, standard deviation 1); ``l2``;
            ``root``.

    A channel that never varies keeps the factor 1.
    """

    offset: Float[Tensor, "c ..."]
    factor: Float[Tensor, "c ..."]

    def __init__(self, feature_shape: tuple[int, ...], kind: Kind = "none") -> None:
        super().__init__()
        self.kind = kind
        channels = (feature_shape[0], *(1 for _ in feature_shape[1:]))
        self.register_buffer("offset", torch.zeros(channels))
        self.register_buffer("factor", torch.ones(channels))

    def fit(self, batches: Callable[[], Iterable[Float[Tensor, "b ..."]]]) -> None:
        """Set offset and factor from the training rows, in float64 and two passes at most."""
        if self.kind == "max_abs":
            largest = torch.stack([_by_channel(rows).abs().amax(1) for rows in batches()]).amax(0)
            self._set(torch.zeros_like(largest), largest)
        elif self.kind == "standardize":
            mean = _mean(_by_channel(rows) for rows in batches())
            variance = _mean((_by_channel(rows) - mean[:, None]).square() for rows in batches())
            self._set(mean, variance.sqrt())

    def _set(self, offset: Tensor, factor: Tensor) -> None:
        constant = factor <= 1e-12 * factor.amax()
        self.offset.copy_(offset.reshape(self.offset.shape))
        self.factor.copy_(factor.masked_fill(constant, 1.0).reshape(self.factor.shape))

    def forward(self, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        if self.kind == "root":
            rows = rows.sign() * rows.abs().sqrt()
        if self.kind in ("l2", "root"):
            return nn.functional.normalize(rows.flatten(1), dim=1).reshape(rows.shape)
        return rows if self.kind == "none" else (rows - self.offset) / self.factor


def _by_channel(rows: Float[Tensor, "b ..."]) -> Float[Tensor, "c m"]:
    return rows.double().flatten(2).movedim(1, 0).flatten(1) if rows.ndim > 2 else rows.double().T


def _mean(parts: Iterable[Float[Tensor, "c m"]]) -> Float[Tensor, " c"]:
    total, count = torch.zeros(()).double(), 0
    for part in parts:
        total, count = total + part.sum(1), count + part.shape[1]
    return total / count
