"""A finder over rows in memory, with the arithmetic of the real one written out."""

import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from likeness.finding import Finder, Found, HomeMatch, Match
from likeness.images.decoding import Decoder


def mean_colours(pictures: Sequence) -> np.ndarray:
    """The mean colour of each picture about grey: the code of the tests."""
    files = [data if isinstance(data, bytes) else Path(data).read_bytes() for data in pictures]
    return np.array([np.asarray(Decoder().decode(data).image, float).mean((0, 1)) - 127.5 for data in files])


def jpeg(image: Image.Image, longer_side: int = 256) -> bytes:
    image = image.convert("RGB")
    image.thumbnail((longer_side, longer_side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


class FakeFinder(Finder):
    """Rows of (label, home, path, thumbnail) with a code each."""

    title, labels, homes, size = "", (), (), 0  # properties of the real one

    def __init__(self, title: str, rows, codes, encode: Callable = mean_colours, threshold: float | None = None):
        self.title, self.threshold, self.encode = title, threshold, encode
        self.rows, self.codes = list(rows), normalized(codes)
        self.labels = tuple(sorted({row[0] for row in self.rows}))
        self.homes = tuple(sorted({row[1] for row in self.rows}))
        self.size = len(self.rows)

    def find(self, pictures: Sequence, k: int, *, labels: Collection[str] = (), homes: Collection[str] = ()) -> Found:
        code = normalized(normalized(self.encode(pictures)).mean(0, keepdims=True))[0]
        return self._nearest(code, k, labels, -1, {"decode": 3.04, "forward": 41.2, "head": 0.31, "search": 0.62})

    def find_homes(self, pictures: Sequence, k: int, *, rule: str | None = None, labels: Collection[str] = ()) -> Found:
        found = self.find(pictures, self.size, labels=labels)
        homes: dict[str, list[Match]] = {}
        for match in found.matches:
            homes.setdefault(match.home, []).append(match)
        ranked = [HomeMatch(home, float(np.mean([m.similarity for m in of])), of[:4]) for home, of in homes.items()]
        return found._replace(matches=sorted(ranked, key=lambda home: -home.similarity)[:k])

    def find_id(self, id: int, k: int, *, labels: Collection[str] = (), homes: Collection[str] = ()) -> Found:
        return self._nearest(self.codes[id], k, labels, id, {"search": 0.62})

    def sample(self, count: int, labels: Collection[str] = ()) -> list[Match]:
        chosen = np.random.default_rng(0).permutation(self.size)
        return [self._match(int(row), 1.0) for row in chosen if not labels or self.rows[row][0] in labels][:count]

    def _nearest(self, code, k: int, labels: Collection[str], but: int, milliseconds: dict[str, float]) -> Found:
        similarity = self.codes @ code
        wanted = [i for i in np.argsort(-similarity, kind="stable") if i != but]
        wanted = [i for i in wanted if not labels or self.rows[i][0] in labels]
        nearest = float(similarity[wanted[0]]) if wanted else float("nan")
        known = None if self.threshold is None else nearest >= self.threshold
        matches = [self._match(int(i), float(similarity[i])) for i in wanted[:k]]
        return Found(matches, known, nearest, self.threshold, milliseconds)

    def _match(self, row: int, similarity: float) -> Match:
        label, home, path, thumbnail = self.rows[row]
        return Match(row, similarity, label, home, path, thumbnail)


def normalized(rows) -> np.ndarray:
    rows = np.asarray(rows, float)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
