"""Real photos enter an index and leave it while somebody asks: no answer mixes the states before a change and after."""

import hashlib
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import small_model

from likeness import indexing
from likeness.finding import Finder
from likeness.heads.linear import Identity
from likeness.model import Model
from likeness.retrieval.index import Index

KINDS = ("bedroom", "kitchen")
K = 5
CHANGES = (  # first home and last, each a generation: 50 come, 30 go
    *(("add", 301, 310), ("remove", 1, 10), ("add", 311, 330)),
    *(("remove", 11, 20), ("add", 331, 350), ("remove", 301, 310)),
)


def modelled() -> Model:
    model = small_model.modelled(Identity, scaling="none")
    return replace(model, card={**model.card, "store": "", "fingerprint": model.extractor.fingerprint})


def of_homes(houses: Path, first: int, last: int) -> list[Path]:
    return [houses / kind / f"home{home:03d}.jpg" for kind in KINDS for home in range(first, last + 1)]


class Book:
    """What an index should hold: paths by the bytes of their files."""

    def __init__(self) -> None:
        self.there: dict[str, Path] = {}

    def add(self, paths: list[Path]) -> None:
        for path in sorted(paths):
            self.there.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)

    def remove(self, homes: list[str]) -> None:
        self.there = {key: path for key, path in self.there.items() if path.stem not in homes}


class Reader(threading.Thread):
    """Asks over and over, and keeps what it was told and of which generation that was."""

    def __init__(self, finder: Finder, queries: list[Path]) -> None:
        super().__init__(daemon=True)
        self.finder, self.queries, self.over = finder, queries, False
        self.answers: list[tuple[int, Path, list[str]]] = []

    def run(self) -> None:
        while not self.over:
            for query in self.queries:
                paths = [match.path for match in self.finder.find([query], K).matches]
                self.answers.append((self.finder.generation.number, query, paths))

    def wait_for(self, number: int) -> None:
        """Until every query was answered of this generation; a reader that an error has ended is not waited for."""
        last: list[int] = []
        while self.is_alive() and last != [number] * len(self.queries):
            time.sleep(0.01)
            last = [seen for seen, *_ in self.answers[-len(self.queries) :]]


def test_who_asks_while_homes_come_and_go_is_answered_of_a_whole_generation(houses, tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(indexing, "model_of", lambda index: modelled())
    index, book = Index.create(tmp_path / "index", modelled().identity, modelled().width), Book()

    def changed(change: str, first: int, last: int) -> int:
        if change == "add":
            paths = of_homes(houses, first, last)
            book.add(paths)
            return indexing.add(index, paths, home_pattern=r"home\d+", skip_present=True).generation.number
        homes = [f"home{home:03d}" for home in range(first, last + 1)]
        book.remove(homes)
        return index.remove(homes=homes).number

    states = {changed("add", 1, 300): set(book.there.values())}
    asked = [of_homes(houses, home, home)[0] for home in (1, 12, 305, 340, 399)]
    reader = Reader(Finder(index, modelled()), asked)
    reader.start()
    try:
        for change in CHANGES:
            number = changed(*change)
            states[number] = set(book.there.values())
            reader.wait_for(number)
            assert reader.is_alive(), "an answer was an error"
    finally:
        reader.over = True
        reader.join()

    paths = sorted(set.union(*states.values(), asked))
    codes = modelled().encode(paths).astype(np.float64)
    units = dict(zip(paths, codes / np.linalg.norm(codes, axis=1, keepdims=True), strict=True))

    def by_the_book(number: int, query: Path) -> list[str]:
        there = sorted(states[number], key=lambda path: -float(units[path] @ units[query]))
        return [str(path) for path in there[:K]]

    expected = {(number, query): by_the_book(number, query) for number in states for query in asked}
    numbers = [number for number, *_ in reader.answers]
    assert (sorted(states), list(dict.fromkeys(numbers))) == ([2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6, 7, 8])
    assert len(states[2]) == 596, "of 600; four have the bytes of another"
    assert all(found == expected[number, query] for number, query, found in reader.answers)
    assert expected[2, asked[0]][0] == str(asked[0]), "what is there finds itself first"
    for gone_since, first, last in ((4, 1, 10), (6, 11, 20), (8, 301, 310)):
        gone = {f"home{home:03d}" for home in range(first, last + 1)}
        later = [Path(path).stem for number, _, found in reader.answers if number >= gone_since for path in found]
        assert later
        assert not gone & set(later)
