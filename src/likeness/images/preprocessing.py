"""Pictures to the numbers that a network was trained on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from likeness.images.options import is_numbers, refuse_faults

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """A square of pixels, then ``(pixels * scale - mean) / std`` in the stated order of channels.

    Pixels stay 8-bit RGB until they are on the network's device: a quarter of the bytes to move, and the arithmetic
    is done where it is cheap.

    Args:
        size: Side of the square that the network gets, in pixels.
        resize: ``squash`` gives up the aspect ratio; ``crop`` scales the shorter side to ``short_side`` and cuts the
            middle out, as torchvision's Resize and CenterCrop do (to 1 grey level; 2 in a few pixels when bicubic or
            lanczos).
        short_side: At least ``size``, which it is when left out. Only with ``crop``.
        interpolation: Filter of the one resize; it averages over what it shrinks (antialias).
        channels: Order in which the network gets its channels, and in which ``mean`` and ``std`` stand.
        scale: Factor of the 0 to 255 pixels.
        mean: Three numbers, in units of ``pixels * scale``.
        std: Three numbers above 0, in the same units.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]
    resize: Literal["squash", "crop"] = "squash"
    short_side: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        refuse_faults("the preprocessing", self._faults())
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        object.__setattr__(self, "scale", float(self.scale))

    def _faults(self) -> list[str | None]:
        short, mean, std = self.short_side, self.mean, self.std
        mean_holds, std_holds = _are_three(mean), _are_three(std) and min(std) > 0
        return [
            None if self.size >= 1 else f"size: at least 1, not {self.size}",
            None if self.resize in ("squash", "crop") else f"resize: squash or crop, not {self.resize!r}",
            f"short_side: {short} has no meaning with resize=squash" if short and self.resize == "squash" else None,
            f"short_side: at least size={self.size}, not {short}" if short is not None and short < self.size else None,
            None
            if self.interpolation in _FILTERS
            else f"interpolation: one of {', '.join(_FILTERS)}, not {self.interpolation!r}",
            None if self.channels in ("rgb", "bgr") else f"channels: rgb or bgr, not {self.channels!r}",
            None if np.isfinite(self.scale) and self.scale > 0 else f"scale: above 0, not {self.scale}",
            None if mean_holds else f"mean: three finite numbers, not {mean!r}",
            None if std_holds else f"std: three finite numbers above 0, not {std!r}",
        ]

    def policy(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain values: a part of the extractor's fingerprint."""
        short_side = (self.short_side or self.size) if self.resize == "crop" else None
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "short_side": short_side}

    def pixels(self, image: Image.Image) -> UInt8[np.ndarray, "s s 3"]:
        """An RGB picture of any shape, resized and cut in one pass. The array is writable and its own."""
        box = _middle(*image.size, self.size, self.short_side or self.size) if self.resize == "crop" else None
        return np.array(image.resize((self.size, self.size), _FILTERS[self.interpolation], box=box))

    def normalize(self, batch: UInt8[Tensor, "b s s 3"]) -> Float[Tensor, "b 3 s s"]:
        """The network's input, float32, on the batch's device, in channels_last memory."""
        planes = batch.permute(0, 3, 1, 2).to(torch.float32)
        if self.channels == "bgr":
            planes = planes.flip(1)
        mean, std = (planes.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return planes.mul_(self.scale).sub_(mean).div_(std)


def _are_three(values: Any) -> bool:
    return is_numbers(values, 3) and bool(np.isfinite(values).all())


def _middle(width: int, height: int, size: int, short_side: int) -> tuple[float, float, float, float]:
    """The part of the picture that the centre crop shows; rounded as torchvision rounds."""
    short = min(width, height)
    new_width, new_height = (int(short_side * side / short) for side in (width, height))
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    across, down = width / new_width, height / new_height
    return left * across, top * down, (left + size) * across, (top + size) * down
