"""Where the options' files lie."""

from pathlib import Path


def checkout() -> Path:
    """Where ``conf`` lies beside the package, if it was installed from there."""
    return Path(__file__).parents[3]
