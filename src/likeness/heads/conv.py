"""A convolutional autoencoder on the spatial features of an earlier layer."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from likeness.errors import LikenessError
from likeness.heads.dense import _ACTIVATIONS, Activation


class Conv(nn.Module):
    """``[c, h, w] → channels[0] → … → channels[-1]``, 3 × 3 each and halved each time; the code is the last map, flat.

    The decoder mirrors it: the map is enlarged to the size that it had, then convolved.

    Args:
        feature_shape: ``(c, h, w)``: a backbone's spatial layer with ``backbone.pooling=none``.
        channels: Of each encoder layer; the last one's are the code's.
        stride: Of each encoder layer.
        l1: Weight of the code's L1 norm in the loss (mean over rows of the sum over the code).
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        channels: Sequence[int] = (256, 64),
        stride: int = 2,
        activation: Activation = "relu",
        code_activation: Activation = "identity",
        output_activation: Activation = "identity",
        l1: float = 0.0,
    ) -> None:
        super().__init__()
        if len(feature_shape) != 3:
            raise LikenessError(
                "HEAD",
                f"a convolutional head needs spatial features [c, h, w]; these have shape {list(feature_shape)}.",
                where="architecture=conv",
                fix="Set backbone.pooling=none and a backbone.layer before the pooling, or take architecture=dense.",
            )
        if not channels or min(channels) < 1:
            raise LikenessError(
                "HEAD",
                f"architecture.channels={list(channels)} are no numbers of channels.",
                where="architecture.channels",
                fix="Give one or more positive integers, e.g. architecture.channels='[256, 64]'.",
            )
        self.l1 = l1
        sizes = [feature_shape[0], *channels]
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, 3, stride, padding=1) for a, b in pairwise(sizes))
        self.decoder = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(list(pairwise(sizes))))
        self._map_sizes = [tuple(feature_shape[1:])]
        for _ in channels:
            self._map_sizes.append(tuple((side - 1) // stride + 1 for side in self._map_sizes[-1]))
        self._code_shape = (channels[-1], *self._map_sizes[-1])
        hidden = [_ACTIVATIONS[activation]] * (len(channels) - 1)
        self._encoder_activations = [*hidden, _ACTIVATIONS[code_activation]]
        self._decoder_activations = [*hidden, _ACTIVATIONS[output_activation]]

    def encode(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b code"]:
        for layer, activation in zip(self.encoder, self._encoder_activations, strict=True):
            maps = activation(layer(maps))
        return maps.flatten(1)

    def decode(self, code: Float[Tensor, "b code"]) -> Float[Tensor, "b c h w"]:
        assert code.shape[1] == prod(self._code_shape)
        maps = code.unflatten(1, self._code_shape)
        sizes = reversed(self._map_sizes[:-1])
        for layer, size, activation in zip(self.decoder, sizes, self._decoder_activations, strict=True):
            maps = activation(layer(functional.interpolate(maps, size=size, mode="nearest")))
        return maps
