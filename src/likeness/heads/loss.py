"""Reconstruction losses that torch does not have."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class CosineLoss(nn.Module):
    """Mean of 1 − cos(reconstruction, feature): direction alone, which is all that retrieval looks at."""

    def forward(self, rebuilt: Float[Tensor, "b ..."], clean: Float[Tensor, "b ..."]) -> Float[Tensor, ""]:
        return 1 - functional.cosine_similarity(rebuilt.flatten(1), clean.flatten(1), dim=1).mean()
