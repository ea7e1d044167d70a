"""Small galleries of drawn codes, for tests of the index and of what searches it."""

import hashlib
from pathlib import Path

import numpy as np

from likeness.retrieval.generation import Entries
from likeness.retrieval.index import Index

MODEL = {"extractor": "e" * 64, "head": "d" * 64}
WIDTH = 5


def key(name: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint8)


def entries(names: list[str], seed: int = 0, ids: list[int] | None = None) -> Entries:
    """A picture a name, ``KIND/HOME-…``: its code is drawn from the name and the seed."""
    codes = [np.random.default_rng([seed, *name.encode()]).normal(size=WIDTH).astype(np.float32) for name in names]
    return Entries(
        np.stack(codes) if codes else np.empty((0, WIDTH), np.float32),
        np.stack([key(name) for name in names]) if names else np.empty((0, 32), np.uint8),
        [f"{name}.jpg" for name in names],
        [name.partition("/")[0] if "/" in name else "" for name in names],
        [name.rpartition("/")[2].partition("-")[0] if "-" in name else "" for name in names],
        [f"jpeg of {name}".encode() for name in names],
        None if ids is None else np.array(ids, np.int64),
    )


def made(folder: Path) -> Index:
    return Index.create(folder / "index", MODEL, WIDTH, {"title": "drawn"})
