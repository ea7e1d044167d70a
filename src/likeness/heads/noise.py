"""What is done to a feature before the head must reproduce the clean one; no noise is a noise as well."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from likeness.errors import LikenessError


@runtime_checkable
class Noise(Protocol):
    """Corrupts a batch; ``drawn_once`` noise is drawn for a whole split before training and kept."""

    drawn_once: bool

    def __call__(self, clean: Float[Tensor, "n ..."], generator: torch.Generator) -> Float[Tensor, "n ..."]: ...


class NoNoise(nn.Module):
    """Leaves every feature as it is."""

    drawn_once = False

    def forward(self, clean: Float[Tensor, "n ..."], generator: torch.Generator) -> Float[Tensor, "n ..."]:
        return clean


class Gaussian(nn.Module):
    """Adds normal noise of standard deviation ``std``, in units of the scaled feature; fresh for each batch."""

    drawn_once = False

    def __init__(self, std: float = 0.3) -> None:
        super().__init__()
        self.std = _refuse_negative("noise.std", std)

    def forward(self, clean: Float[Tensor, "n ..."], generator: torch.Generator) -> Float[Tensor, "n ..."]:
        return clean + self.std * _normal(clean, generator)


class GaussianAsPublished(nn.Module):
    """The thesis' code: normal noise, the sum clipped to [0, 1], drawn once before training and used in every epoch."""

    drawn_once = True

    def __init__(self, std: float = 0.3) -> None:
        super().__init__()
        self.std = _refuse_negative("noise.std", std)

    def forward(self, clean: Float[Tensor, "n ..."], generator: torch.Generator) -> Float[Tensor, "n ..."]:
        return (clean + self.std * _normal(clean, generator)).clamp(0, 1)


class Masking(nn.Module):
    """Sets a random ``share`` of the values to zero (Vincent et al. 2008)."""

    drawn_once = False

    def __init__(self, share: float = 0.3) -> None:
        super().__init__()
        self.share = _refuse_no_share(share)

    def forward(self, clean: Float[Tensor, "n ..."], generator: torch.Generator) -> Float[Tensor, "n ..."]:
        return clean * (_uniform(clean, generator) >= self.share)


class SaltAndPepper(nn.Module):
    """Sets a random ``share`` of the values to the lowest or highest that their dimension takes in the batch."""

    drawn_once = False

    def __init__(self, share: float = 0.3) -> None:
        super().__init__()
        self.share = _refuse_no_share(share)

    def forward(self, clean: Float[Tensor, "n ..."], generator: torch.Generator) -> Float[Tensor, "n ..."]:
        if not len(clean):
            return clean
        chance = _uniform(clean, generator)
        peppered = torch.where(chance < self.share / 2, clean.amin(0, keepdim=True), clean)
        return torch.where((chance >= self.share / 2) & (chance < self.share), clean.amax(0, keepdim=True), peppered)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device)


def _refuse_negative(option: str, value: float) -> float:
    if value < 0:
        raise LikenessError(
            "CONFIG", f"{option}={value} is negative.", where=option, fix="Give a standard deviation of 0 or more."
        )
    return value


def _refuse_no_share(share: float) -> float:
    if not 0 <= share <= 1:
        raise LikenessError(
            "CONFIG", f"noise.share={share} is no share.", where="noise.share", fix="Give a number from 0 to 1."
        )
    return share
