"""Find pictures and homes in an index: from photos, with the model that the index is bound to."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from likeness.errors import LikenessError
from likeness.model import Model, Picture, load
from likeness.retrieval.engines import Engine, Kind, build
from likeness.retrieval.generation import Generation
from likeness.retrieval.homes import NEEDS_KINDS, rank_homes
from likeness.retrieval.index import Index
from likeness.retrieval.rejection import NEAREST, Threshold, is_known, knn_score
from likeness.retrieval.vote import vote

MakeEngine = Callable[[Generation], Engine]

_MODEL = "model"
_VOTERS = 5
_FEWEST_HOMES = 20  # whose pictures say what all pictures of a kind share


class Match(NamedTuple):
    """A picture of the index; ``thumbnail`` is a small JPEG, None where none was kept."""

    id: int
    similarity: float
    label: str
    home: str
    path: str
    thumbnail: bytes | None


class HomeMatch(NamedTuple):
    """A home of the index, and its pictures that are most like the query's."""

    home: str
    similarity: float
    pictures: list[Match]


class Found(NamedTuple):
    """What was found, nearest first.

    Attributes:
        known: Whether the query is anything like the index; None where no threshold was calibrated.
        nearest: What was compared with the threshold: the mean similarity of the nearest (``retrieval.rejection``).
        milliseconds: By part of the way: decode, forward, head, search.
    """

    matches: list[Match] | list[HomeMatch]
    known: bool | None
    nearest: float
    threshold: float | None
    milliseconds: dict[str, float]


class Finder:
    """An open index with its model. Each search is of the newest generation, whoever changed it meanwhile.

    Threads may share one: photos are encoded side by side, searches wait for each other.

    Args:
        engine: What searches (``retrieval.engines.build``), or what makes it; made anew for each generation.
    """

    def __init__(self, index: Index, model: Model, engine: Kind | MakeEngine = "exact") -> None:
        index.refuse_other(model.identity)
        self.index, self.model, self._kind = index, model, engine
        self._searching = RLock()
        self._take(index.newest())

    @classmethod
    def open(cls, folder: Path | str, engine: Kind | MakeEngine = "exact") -> "Finder":
        """The index in a folder.

        Raises:
            LikenessError: INDEX-MISSING, INDEX-MODEL, INDEX-DAMAGED, and what loading the model raises.
        """
        index = Index.open(Path(folder))
        return cls(index, model_of(index), engine)

    @property
    def title(self) -> str:
        return str(self.index.about.get("title", self.index.folder.name))

    @property
    def labels(self) -> tuple[str, ...]:
        return self.generation.classes

    @property
    def homes(self) -> tuple[str, ...]:
        return self.generation.home_names

    @property
    def size(self) -> int:
        return len(self.generation)

    def refresh(self) -> None:
        """Go on to the newest generation, if there is a newer one."""
        with self._searching:
            if self.index.number() != self.generation.number:
                self._take(self.index.newest())

    def _take(self, generation: Generation) -> None:
        self.generation = generation
        self._engine = self._made(generation) if len(generation) else None

    def _made(self, generation: Generation) -> Engine:
        if callable(self._kind):
            return self._kind(generation)
        return build(self._kind, generation.codes, torch.from_numpy(generation.ids))

    def find(
        self, pictures: Sequence[Picture], k: int, *, labels: Collection[str] = (), homes: Collection[str] = ()
    ) -> Found:
        """The ``k`` pictures most like these (like the mean of their unit codes, where they are several).

        Args:
            labels, homes: Only pictures of these are found; () is of any.

        Raises:
            LikenessError: IMG-BAD, RETRIEVAL; INDEX-ID for a label or a home that the index has not.
        """
        spent: dict[str, float] = {}
        codes = self._encoded(pictures, spent)
        with self._searching, _timed(spent, "search"):
            self.refresh()
            return self._nearest(_pooled(codes), k, self._allowed(labels, homes), spent)

    def find_id(self, id: int, k: int, *, labels: Collection[str] = (), homes: Collection[str] = ()) -> Found:
        """The ``k`` pictures most like one of the index, which is not among them itself.

        Raises:
            LikenessError: INDEX-ID where there is no such picture (any more).
        """
        spent: dict[str, float] = {}
        with self._searching, _timed(spent, "search"):
            self.refresh()
            row = int(self.generation.rows_of(np.array([id]))[0])
            if row < 0:
                raise LikenessError(
                    "INDEX-ID",
                    f"there is no picture {id} in the index.",
                    where=str(self.index.folder),
                    fix="It may have been removed meanwhile: search again.",
                )
            allowed = self._allowed(labels, homes)
            allowed = torch.ones(self.size, dtype=torch.bool) if allowed is None else allowed
            allowed[row] = False
            near = self._nearest(self.generation.codes[row : row + 1], k, allowed, spent)
            return near._replace(known=None, threshold=None)  # it is in the index

    def find_homes(
        self, pictures: Sequence[Picture], k: int, *, rule: str | None = None, labels: Collection[str] = ()
    ) -> Found:
        """The ``k`` homes most like the home that these pictures are of.

        Args:
            rule: How the pictures of two homes are compared: one of ``retrieval.homes.RULES``. None is the one that
                was measured to find most (docs/finding_home_to_home.md): ``centred_mean``, and ``mean`` where no kinds
                are known, or so few homes that what they share is not known. The kinds of the query's pictures are
                voted by their neighbours.
            labels: Only pictures of these labels are compared.
        """
        spent: dict[str, float] = {}
        codes = self._encoded(pictures, spent)
        with self._searching, _timed(spent, "search"):
            self.refresh()
            nearest = self._nearest(_pooled(codes), 1, None, {})
            allowed = self._allowed(labels, ())
            rows = np.flatnonzero((self.generation.homes >= 0) & (True if allowed is None else allowed.numpy()))
            homes = torch.from_numpy(self.generation.homes[rows])
            if not len(homes):
                return Found([], nearest.known, nearest.nearest, nearest.threshold, spent)
            own = torch.from_numpy(self.generation.labels[rows])
            rule = rule or _rule_for(homes, own)
            kinds = self._voted(codes) if rule in NEEDS_KINDS else None
            found = rank_homes(
                codes, self.generation.codes[rows], homes, k, rule=rule, query_kinds=kinds, gallery_kinds=own
            )
            matches = [
                HomeMatch(self.generation.home_names[home], similarity, self._pictures(rows, at, cosines))
                for home, similarity, at, cosines in zip(
                    found.homes.tolist(), found.similarities.tolist(), found.rows, found.cosines, strict=True
                )
            ]
        return Found(matches, nearest.known, nearest.nearest, nearest.threshold, spent)

    def sample(self, count: int, labels: Collection[str] = ()) -> list[Match]:
        """Some pictures to begin with: always the same, of a generation."""
        with self._searching:
            self.refresh()
            allowed = self._allowed(labels, ())
            rows = np.arange(self.size) if allowed is None else np.flatnonzero(allowed.numpy())
            chosen = np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False)
            return [self.match(int(row), 1.0) for row in chosen]

    def match(self, row: int, similarity: float) -> Match:
        """A row of the generation as it is shown."""
        of = self.generation
        return Match(int(of.ids[row]), similarity, of.label(row), of.home(row), of.path(row), of.picture(row) or None)

    def _encoded(self, pictures: Sequence[Picture], spent: dict[str, float]) -> Float[Tensor, "n d"]:
        with _timed(spent, "decode"):
            pixels = self.model.pixels(pictures)
        with _timed(spent, "forward"):
            features = self.model.extractor(pixels).cpu()
        with _timed(spent, "head"):
            return self.model.codes(features)

    def _nearest(
        self, query: Float[Tensor, "1 d"], k: int, allowed: Bool[Tensor, "n"] | None, spent: dict[str, float]
    ) -> Found:
        if self._engine is None:
            return Found([], None, float("nan"), None, spent)
        near = self._engine.search(query, k, allowed)
        matches = [
            self.match(row, similarity)
            for row, similarity in zip(near.indices[0].tolist(), near.similarities[0].tolist(), strict=True)
        ]
        kept = self.generation.threshold
        if kept is None:
            return Found(matches, None, matches[0].similarity if matches else float("nan"), None, spent)
        score = self.scores(query)
        threshold = Threshold(kept["value"], kept["rate"], kept["n"])
        return Found(matches, bool(is_known(score, threshold)[0]), float(score[0]), threshold.value, spent)

    def scores(self, queries: Float[Tensor, "q d"]) -> Float[np.ndarray, " q"]:
        """How much each code is like the whole index, as rejection measures it."""
        assert self._engine is not None
        return knn_score(self._engine.search(queries, NEAREST).similarities.double().numpy())

    def _voted(self, codes: Float[Tensor, "m d"]) -> Tensor:
        assert self._engine is not None
        near = self._engine.search(codes, _VOTERS)
        return vote(torch.from_numpy(self.generation.labels)[near.indices]).labels

    def _pictures(self, rows: np.ndarray, at: Tensor, cosines: Tensor) -> list[Match]:
        """The pictures of a home that those of the query met, each once, nearest first."""
        pairs = sorted(zip(cosines.tolist(), at.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
        best = {place: cosine for cosine, place in reversed(pairs) if place >= 0}
        return [self.match(int(rows[place]), best[place]) for place in dict.fromkeys(p for _, p in pairs if p >= 0)]

    def _allowed(self, labels: Collection[str], homes: Collection[str]) -> Bool[Tensor, "n"] | None:
        if not labels and not homes:
            return None
        allowed = np.ones(self.size, bool)
        for of, given, names, numbers in (
            ("label", labels, self.generation.classes, self.generation.labels),
            ("home", homes, self.generation.home_names, self.generation.homes),
        ):
            if unknown := [name for name in given if name not in names]:
                raise LikenessError(
                    "INDEX-ID",
                    f"the index has no {of} {', '.join(unknown)}.",
                    where=str(self.index.folder),
                    cause=f"Its {of}s are {', '.join(names[:20])}{' …' * (len(names) > 20)}." if names else "",
                    fix=f"Filter by a {of} that it has.",
                )
            if given:
                allowed &= np.isin(numbers, [names.index(name) for name in given])
        return torch.from_numpy(allowed)


def judged(found: Found, by: Finder, pictures: Sequence[Picture]) -> Found:
    """The same, but whether the query is anything like the index is said by another one of the same pictures.

    Raises:
        LikenessError: CONFIG where that one has no threshold.
    """
    by.refresh()
    if by.generation.threshold is None:
        raise LikenessError(
            "CONFIG",
            "the index that is to say what is known has no threshold.",
            where=str(by.index.folder),
            fix=f"Give it one with likeness index calibrate {by.index.folder} HELD_OUT.",
        )
    other = by.find(pictures, 1)
    return found._replace(known=other.known, nearest=other.nearest, threshold=other.threshold)


def model_of(index: Index) -> Model:
    """The model that lies in an index's folder.

    Raises:
        LikenessError: INDEX-MODEL where it is not the one that the codes are of; INDEX-DAMAGED where it is gone.
    """
    held = sorted(index.folder.glob(f"{_MODEL}.*"))
    if not held:
        raise LikenessError(
            "INDEX-DAMAGED",
            "the model of the index is not in its folder.",
            where=str(index.folder / _MODEL),
            fix="Copy the run's checkpoints/best.ckpt there as model.ckpt.",
        )
    return as_indexed(index, load(held[0]))


def as_indexed(index: Index, model: Model) -> Model:
    """The model as the index uses it, with or without its head.

    Raises:
        LikenessError: INDEX-MODEL where it is not the one that the codes are of.
    """
    model = model.frozen() if index.about.get("frozen") else model
    index.refuse_other(model.identity)
    return model


def _rule_for(homes: Int64[Tensor, " n"], kinds: Int64[Tensor, " n"]) -> str:
    """The rule that finds most; where few homes say what their kinds share, or none does, one that does not ask."""
    knows_kinds = bool((kinds >= 0).any()) and len(homes.unique()) >= _FEWEST_HOMES
    return "centred_mean" if knows_kinds else "mean"


def _pooled(codes: Float[Tensor, "m d"]) -> Float[Tensor, "1 d"]:
    return codes if len(codes) == 1 else normalize(codes.double(), dim=1).mean(0, keepdim=True).float()


@contextmanager
def _timed(spent: dict[str, float], part: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        spent[part] = 1000 * (time.perf_counter() - started)
