"""Find pictures that look alike: frozen features, autoencoder heads, exact retrieval, honest intervals."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from likeness.model import Model

__version__ = "0.1.0"


def load(path: str | os.PathLike[str], *, weights: str | None = None, device: str = "auto") -> "Model":
    """A trained model, as :func:`likeness.model.load`, which this imports only now: torch takes seconds."""
    from likeness.model import load

    return load(path, weights=weights, device=device)
