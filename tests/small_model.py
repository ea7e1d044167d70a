"""Models whose heads saw noise alone: enough where only what is computed from them counts."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from likeness.features.extraction import Extractor
from likeness.heads.autoencoder import Autoencoder
from likeness.heads.linear import ClosedForm
from likeness.heads.noise import NoNoise
from likeness.heads.scaling import Scaling
from likeness.images.decoding import Decoder
from likeness.images.preprocessing import Preprocessing
from likeness.model import Model

SIZE = 16


class SmallNetwork(nn.Module):
    """One convolution, and a mean over positions for the asking."""

    def __init__(self, spatial: bool = False) -> None:
        super().__init__()
        self.name, self.spatial = "small", spatial
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 12, 3, 2, padding=1).requires_grad_(False)

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b ..."]:
        maps = self.conv(pictures)
        return maps if self.spatial else maps.mean((2, 3))

    def policy(self) -> dict[str, Any]:
        return {"network": self.name, "spatial": self.spatial}

    def feature_shape(self, size: int) -> tuple[int, ...]:
        return tuple(self(torch.zeros(1, 3, size, size)).shape[1:])


def modelled(
    make_head: Callable[[tuple[int, ...]], nn.Module],
    network: Any = None,
    scaling: str = "standardize",
    size: int = SIZE,
    **options: Any,
) -> Model:
    """A network and a head, drawn with seed 0; scaling, and a head in closed form, fitted on 24 squares of noise.

    Args:
        options: Of the preprocessing.
    """
    options = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], **options}
    extractor = Extractor(Decoder(), Preprocessing(size, **options), network or SmallNetwork())
    shape = tuple(extractor.feature_shape())
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        head, scaled = make_head(shape), Scaling(shape, scaling)
        rows = extractor(torch.randint(0, 256, (24, size, size, 3), dtype=torch.uint8))
        scaled.fit(lambda: [rows])
        if isinstance(head, ClosedForm):
            head.fit(lambda: [scaled(rows)])
    module = Autoencoder(head, scaled, NoNoise(), nn.MSELoss(), torch.optim.SGD).eval()
    named = {"architecture": type(head), "scaling": Scaling, "backbone": type(extractor.backbone)}
    card = {name: {"class": kind.__name__} for name, kind in named.items()}
    card["backbone"]["name"] = extractor.backbone.name
    return Model(extractor, module, {**card, "feature_shape": list(shape)})
