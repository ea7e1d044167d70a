"""A fully connected autoencoder of any depth, with a mirrored decoder."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from likeness.errors import LikenessError

Activation = Literal["relu", "elu", "gelu", "tanh", "sigmoid", "softmax", "identity"]

_ACTIVATIONS = {
    "relu": torch.relu,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: torch.softmax(x, 1),
    "identity": lambda x: x,
}


class Dense(nn.Module):
    """``feature → widths[0] → … → widths[-1] = code → … → widths[0] → feature``.

    Args:
        feature_shape: Shape of one feature; maps are flattened.
        widths: From the first hidden layer to the code.
        activation: Of every hidden layer.
        code_activation: Of the code.
        output_activation: Of the reconstruction: what it can reach must cover the scaled features.
        tied: The decoder uses the encoder's weights, transposed, and biases of its own.
        l1: Weight of the code's L1 norm in the loss (mean over rows of the sum over the code).
        widths_for: Width of the features that ``widths`` were chosen for: on narrower features every width shrinks in
            proportion. None takes them as they are.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        widths: Sequence[int] = (128,),
        activation: Activation = "relu",
        code_activation: Activation = "identity",
        output_activation: Activation = "identity",
        tied: bool = False,
        l1: float = 0.0,
        widths_for: int | None = None,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise LikenessError(
                "HEAD",
                f"architecture.widths={list(widths)} are no layer widths.",
                where="architecture.widths",
                fix="Give one or more positive integers, e.g. architecture.widths='[1024, 256]'.",
            )
        self.feature_shape, self.tied, self.l1 = tuple(feature_shape), tied, l1
        self.widths = scaled_widths(widths, prod(feature_shape), widths_for)
        sizes = [prod(feature_shape), *self.widths]
        self.encoder: Any = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.decoder: Any = nn.ModuleList(nn.Linear(b, a) for a, b in reversed(list(pairwise(sizes))))
        if tied:
            for layer in self.decoder:
                del layer.weight
        hidden = [_ACTIVATIONS[activation]] * (len(widths) - 1)
        self._encoder_activations = [*hidden, _ACTIVATIONS[code_activation]]
        self._decoder_activations = [*hidden, _ACTIVATIONS[output_activation]]

    def encode(self, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b code"]:
        rows = rows.flatten(1)
        for layer, activation in zip(self.encoder, self._encoder_activations, strict=True):
            rows = activation(layer(rows))
        return rows

    def decode(self, code: Float[Tensor, "b code"]) -> Float[Tensor, "b ..."]:
        layers = reversed(self.encoder) if self.tied else self.decoder
        weights = [layer.weight.T if self.tied else layer.weight for layer in layers]
        for weight, layer, activation in zip(weights, self.decoder, self._decoder_activations, strict=True):
            code = activation(functional.linear(code, weight, layer.bias))
        return code.unflatten(1, self.feature_shape)


def scaled_widths(widths: Sequence[int], feature_width: int, widths_for: int | None) -> list[int]:
    """``widths``, shrunk in proportion where the features are narrower than those that they were chosen for.

    >>> scaled_widths([4096, 512], 1024, 4096), scaled_widths([4096, 512], 8192, 4096)
    ([1024, 128], [4096, 512])
    """
    if widths_for is None or feature_width >= widths_for:
        return list(widths)
    return [max(1, round(width * feature_width / widths_for)) for width in widths]
