"""A few pictures, a network that costs nothing and writes down what it saw, and jobs that fill a store with both."""

import os
from collections import Counter
from pathlib import Path

import torch
from features.mean_colour import MeanColour, extractor_of
from helpers import draw_striped
from torch import Tensor

from likeness.features import extraction
from likeness.features.extraction import Features, extract
from likeness.features.store import Shelf
from likeness.images.folder import ImageFolder

BATCH = 4
SHARD = 12  # rows


class SmallStore:
    """Pictures in ``place/photos``, and what a run that nothing disturbs makes of them."""

    def __init__(self, place: Path, pictures: int) -> None:
        self.place, self.photos = place, place / "photos"
        for number in range(pictures):
            draw_striped(self.photos / "abc"[number % 3] / f"{number:03d}.png", 4 + number % 5, number, size=16)
            os.utime(self.photos / "abc"[number % 3] / f"{number:03d}.png", (1e9, 1e9))  # old enough for the ledger
        whole = self.fill(place / "undisturbed", place / "whole.txt", batch_size=1)
        self.rows: Tensor = whole.rows
        self.keys = whole.keys
        looks = (place / "whole.txt").read_text().split()
        self._key_of = dict(zip(looks, map(bytes, whole.keys), strict=True))

    def fill(self, store: Path, log: Path, seconds: float = 0.0, batch_size: int = BATCH) -> Features:
        """Extract in shards of 12 rows."""
        extraction._SHARD_BYTES = SHARD * 3 * 4
        network = MeanColour(log, seconds)
        return extract(
            extractor_of(network), ImageFolder(str(self.photos)).table(), store, batch_size=batch_size, workers=1
        )

    def looks(self, *logs: Path) -> Counter[bytes]:
        """How often the network saw each picture; a last line that was cut was not seen to its end."""
        lines = [line for log in logs if log.exists() for line in log.read_text().split()]
        return Counter(self._key_of[line] for line in lines if line in self._key_of)

    def committed(self, store: Path) -> set[bytes]:
        """The pictures whose rows are in whole shards on disk."""
        return set(map(bytes, self.shelf(store)._keys))

    def shelf(self, store: Path) -> Shelf:
        shelf = Shelf(store, extractor_of(MeanColour()).identity())
        shelf.refresh()
        return shelf

    def assert_right(self, features: Features) -> None:
        """Every row is there and what the undisturbed run has, bit for bit."""
        assert (features.keys == self.keys).all()
        assert torch.equal(features.rows, self.rows)


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".tmp-*")]


def damaged(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.corrupt-*")]
