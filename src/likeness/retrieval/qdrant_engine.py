"""An index's rows in a collection of Qdrant: the engine beyond one machine.

The same client speaks to a server and to Qdrant's own local mode in memory (a loop in Python: for trying and tests).
Its local mode on disk is not offered, because it unpickles what lies in the folder. The truth stays with the index:
``sync`` brings the collection to a generation's rows from whatever state, and every order is made from the index's own
codes by the rule of ``retrieval.neighbours``.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from likeness.errors import LikenessError
from likeness.retrieval.engines import Facts, as_neighbours, comparable, how_many, need, nothing, ranked, slack
from likeness.retrieval.generation import Generation
from likeness.retrieval.neighbours import Neighbours, no_keys, read_keys
from likeness.retrieval.rows import Rows, blocks, places, refuse_twice, refuse_zero
from likeness.retrieval.rows import comparable as comparable_rows

MEMORY = ":memory:"
KEY = "QDRANT_API_KEY"
_ROWS_A_REQUEST, _IDS_A_REQUEST, _QUERIES_A_REQUEST = 256, 10_000, 64
_NEAR = {"localhost", "127.0.0.1", "::1"}
_BYTES_BESIDE = 4 * 8  # of a row: length, id, order, place


class Points(NamedTuple):
    """What a collection is to hold: the rows of a generation, with what a server filters by.

    Attributes:
        generation: Its number.
        model: Fingerprint of what made the codes.
        ids: Distinct and not negative.
        labels, homes: "" where unknown.
    """

    generation: int
    model: str
    codes: Float[Tensor, "n d"]
    ids: Int64[Tensor, "n"]
    labels: Sequence[str]
    homes: Sequence[str]
    paths: Sequence[str]


class Where(NamedTuple):
    """Which rows may be found: of these labels and homes (all where none is named), and of none of ``not_homes``."""

    labels: Sequence[str] = ()
    homes: Sequence[str] = ()
    not_homes: Sequence[str] = ()

    def allows(self, points: Points) -> Bool[Tensor, "n"]:
        label, home = (np.asarray(column, dtype=object) for column in (points.labels, points.homes))
        allowed = np.ones(len(points.ids), bool)
        if self.labels:
            allowed &= np.isin(label, list(self.labels))
        if self.homes:
            allowed &= np.isin(home, list(self.homes))
        return torch.from_numpy(allowed & ~np.isin(home, list(self.not_homes)))


def points_of(generation: Generation, model: str) -> Points:
    """Those of an index's generation, whose codes are of the model with this fingerprint."""
    rows = range(len(generation))
    return Points(
        generation.number,
        model,
        generation.codes,
        torch.from_numpy(generation.ids),
        *([of(row) for row in rows] for of in (generation.label, generation.home, generation.path)),
    )


class Connection(NamedTuple):
    """A client, and what it speaks to."""

    client: Any
    url: str

    @property
    def is_local(self) -> bool:
        return self.url == MEMORY


class Changes(NamedTuple):
    """How many rows of a collection were written, and how many were removed."""

    written: int
    removed: int


def connect(url: str, timeout: int = 30) -> Connection:
    """A client of the server at ``url`` or, for ``:memory:``, of one in this process. Nothing is asked of it yet.

    The key is taken from the environment, QDRANT_API_KEY, and goes over https or to this machine alone.

    Raises:
        LikenessError: CONFIG-EXTRA without qdrant-client; CONFIG for no address; CONFIG-SECRET where the key would be
            read by others on its way.
    """
    need("qdrant_client", "qdrant")
    from qdrant_client import QdrantClient

    if url == MEMORY:
        return Connection(QdrantClient(MEMORY), url)
    parts, key = urlsplit(url), os.environ.get(KEY)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LikenessError(
            "CONFIG",
            f"{url!r} is no address of a Qdrant server.",
            where="--url",
            fix=f"Give http(s)://HOST:6333, or {MEMORY} for one in this process.",
        )
    near = parts.hostname in _NEAR
    if key and parts.scheme == "http" and not near:
        raise LikenessError(
            "CONFIG-SECRET",
            f"{KEY} is set, and would go to {parts.hostname} unencrypted.",
            where="--url",
            fix="Give an https address, or unset the key where the server asks for none.",
        )
    # As a header, because the argument warns of http to this machine as well; versions are the server's to refuse.
    headers = {"api-key": key} if key else None
    return Connection(QdrantClient(url=url, timeout=timeout, headers=headers, check_compatibility=False), url)


def sync(connection: Connection, collection: str, points: Points) -> Changes:
    """Bring a collection to exactly these points, whatever it holds of the same model; make it if need be.

    What a killed call has done stays done: the next one goes on from there. While it runs, searches may meet rows of
    both generations.

    Raises:
        LikenessError: ENGINE when the server does not answer; ENGINE-MODEL for a collection of another model, or of
            something else.
    """
    digests = _digests(points)
    whole = hashlib.sha256("".join(digests).encode()).hexdigest()
    with _answering(connection):
        known = _made_or_known(connection, collection, points)
        client, count = connection.client, len(points.ids)
        current = {"generation": points.generation, "rows": whole}
        if known == known | current and client.count(collection, exact=True).count == count:
            return Changes(0, 0)
        client.update_collection(collection, metadata={"rows": ""})
        there, ids = _held(client, collection), points.ids.tolist()
        wrong = [row for row, id_ in enumerate(ids) if there.get(id_) != digests[row]]
        gone = sorted(there.keys() - set(ids))
        _remove(client, collection, gone)
        _write(client, collection, points, wrong, digests)
        client.update_collection(collection, metadata=current)
    return Changes(len(wrong), len(gone))


class Qdrant:
    """Search in a collection that holds exactly these points; ``sync`` makes it so.

    Args:
        exact: Let the server look at every row. Local mode always does.

    Raises:
        LikenessError: As ``connect`` and ``sync``, and RETRIEVAL as ``neighbours`` does.
    """

    def __init__(
        self,
        connection: Connection,
        collection: str,
        points: Points,
        *,
        exact: bool = False,
        oversampling: int = 4,
    ) -> None:
        started = time.perf_counter()
        self.rows = comparable_rows(points.codes, points.ids)
        refuse_zero(self.rows, "gallery")
        self.ids, self.order = self.rows.ids.sort()
        refuse_twice(self.ids)
        self.place = places(self.rows.ids, self.ids)
        self.connection, self.collection, self.points = connection, collection, points
        self.exact, self.oversampling = exact or connection.is_local, oversampling
        sync(connection, collection, points)
        seconds, count = time.perf_counter() - started, len(self.ids)
        self.facts = Facts("qdrant", self.exact, count, seconds, count * _BYTES_BESIDE, {})

    def search(
        self,
        queries: Float[Tensor, "q d"],
        k: int,
        allowed: Bool[Tensor, "n"] | None = None,
        where: Where | None = None,
    ) -> Neighbours:
        """As every engine's; ``where`` is a filter that the server itself knows, beside or instead of ``allowed``.

        Raises:
            LikenessError: ENGINE when the server does not answer, or the collection has changed.
        """
        asked, condition = comparable(queries, self.rows), self._condition(allowed, where)
        if where is not None:
            own = where.allows(self.points)
            allowed = own if allowed is None else own & allowed
        columns = how_many(k, len(self.rows), allowed)
        count = len(self.rows) if allowed is None else int(allowed.sum())
        if not columns or not len(asked):
            return nothing(asked, columns)
        keys = torch.cat([
            self._keys(asked.take(block), columns, count, condition)
            for block in blocks(len(asked), _QUERIES_A_REQUEST)
        ])  # fmt: skip
        if (keys == no_keys(1, 1, keys.device)).any():
            raise _changed(self.connection, self.collection)
        return as_neighbours(keys, self.order)

    def _keys(self, asked: Rows, k: int, count: int, condition: Any) -> Int64[Tensor, "q k"]:
        """Fewer candidates than there are rows prove all, or are looked for again above the k-th cosine's margin."""
        depth = min(count, k * self.oversampling)
        candidates, least_q = self._found(asked, depth, condition, self.exact)
        keys = ranked(asked, self.rows, self.place, candidates, k)
        reach_q = read_keys(keys[:, -1])[0] - slack(self.rows.codes.shape[1])
        unsure_q = (keys[:, -1:] == no_keys(1, 1, keys.device)).any(1)
        if self.exact and depth < count:
            unsure_q |= least_q >= reach_q
        for query in unsure_q.nonzero()[:, 0].tolist():
            at = slice(query, query + 1)
            rows, _ = self._found(asked.take(at), count, condition, True, float(reach_q[query]))
            keys[at] = ranked(asked.take(at), self.rows, self.place, rows, k)
        return keys

    def _found(
        self, asked: Rows, limit: int, condition: Any, exact: bool, least: float = -np.inf
    ) -> tuple[Int64[Tensor, "q c"], Float[Tensor, "q"]]:
        """Positions that the server names, -1 behind them, and the last one's score."""
        from qdrant_client import models

        requests = [
            models.QueryRequest(
                query=vector,
                limit=limit,
                filter=condition,
                score_threshold=None if least == -np.inf else least,
                # Local mode says of every parameter that it means nothing to it.
                params=None if self.connection.is_local else models.SearchParams(exact=exact),
            )
            for vector in asked.unit().float().tolist()
        ]
        with _answering(self.connection):
            answers = self.connection.client.query_batch_points(self.collection, requests)
        most = max(len(answer.points) for answer in answers)
        ids = torch.full((len(answers), most), -1, dtype=torch.int64)
        for row, answer in zip(ids, answers, strict=True):
            row[: len(answer.points)] = torch.tensor([point.id for point in answer.points], dtype=torch.int64)
        place = places(ids.flatten(), self.ids).view_as(ids)
        if ((place < 0) & (ids >= 0)).any():
            raise _changed(self.connection, self.collection)
        last = torch.tensor([answer.points[-1].score if answer.points else -1.0 for answer in answers])
        return torch.where(place < 0, -1, self.order[place.clamp(min=0)]), last

    def _condition(self, allowed: Bool[Tensor, "n"] | None, where: Where | None) -> Any:
        from qdrant_client import models

        must: list[Any] = []
        must_not: list[Any] = []
        if allowed is not None and not allowed.all():
            few = 2 * int(allowed.sum()) <= len(allowed)
            named = models.HasIdCondition(has_id=self.rows.ids[allowed if few else ~allowed].tolist())
            (must if few else must_not).append(named)
        for field, values, side in zip(("label", "home", "home"), where or (), (must, must, must_not), strict=False):
            if values:
                side.append(models.FieldCondition(key=field, match=models.MatchAny(any=list(values))))
        return models.Filter(must=must, must_not=must_not) if must or must_not else None


def made_in(collection: str, url: str, model: str) -> Callable[[Generation], Qdrant]:
    """What makes the engine of each generation of an index, whose codes are of the model with this fingerprint.

    Raises:
        LikenessError: As ``connect``.
    """
    connection = connect(url)
    return lambda generation: Qdrant(connection, collection, points_of(generation, model))


def _digests(points: Points) -> list[str]:
    """Of each row with all that is kept of it, so that a changed label is a change."""
    codes = points.codes.contiguous().numpy()
    columns = zip(points.ids.tolist(), points.labels, points.homes, points.paths, strict=True)
    return [
        hashlib.sha256(code.tobytes() + "\0".join(map(str, told)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        for code, told in zip(codes, columns, strict=True)
    ]


def _made_or_known(connection: Connection, collection: str, points: Points) -> dict[str, Any]:
    """What the collection says of itself; it is made where there is none."""
    from qdrant_client import models

    client, width = connection.client, points.codes.shape[1]
    if not client.collection_exists(collection):
        vectors = models.VectorParams(size=width, distance=models.Distance.COSINE)
        known = {"model": points.model, "generation": points.generation, "rows": ""}
        client.create_collection(collection, vectors_config=vectors, metadata=known)
        if not connection.is_local:
            for field in ("label", "home"):
                client.create_payload_index(collection, field, models.PayloadSchemaType.KEYWORD)
        return known
    config = client.get_collection(collection).config
    known, vectors = config.metadata or {}, config.params.vectors
    if known.get("model") != points.model or getattr(vectors, "size", None) != width:
        raise LikenessError(
            "ENGINE-MODEL",
            f"The collection {collection!r} holds {_told(known)}, and the index is of model {points.model[:12]}.",
            where=connection.url,
            kept="The collection is as it was, and so is the index.",
            fix="Give the index a collection of its own: --collection NAME.",
        )
    return known


def _told(known: dict[str, Any]) -> str:
    return f"codes of model {str(known['model'])[:12]}" if "model" in known else "what likeness did not write"


def _held(client: Any, collection: str) -> dict[int, str]:
    """The digest of every row that is there."""
    found: dict[int, str] = {}
    offset = None
    while True:
        points, offset = client.scroll(collection, limit=_IDS_A_REQUEST, offset=offset, with_payload=["digest"])
        found |= {point.id: (point.payload or {}).get("digest", "") for point in points}
        if offset is None:
            return found


def _remove(client: Any, collection: str, ids: Sequence[int]) -> None:
    from qdrant_client import models

    for start in range(0, len(ids), _IDS_A_REQUEST):
        points = models.PointIdsList(points=[*ids[start : start + _IDS_A_REQUEST]])
        client.delete(collection, points, wait=True)


def _write(client: Any, collection: str, points: Points, rows: list[int], digests: list[str]) -> None:
    from qdrant_client import models

    for start in range(0, len(rows), _ROWS_A_REQUEST):
        part = rows[start : start + _ROWS_A_REQUEST]
        payloads = [
            {
                "label": points.labels[row],
                "home": points.homes[row],
                "path": points.paths[row],
                "digest": digests[row],
            }
            for row in part
        ]
        unit = comparable_rows(points.codes[part], points.ids[part]).unit().float().tolist()
        batch = models.Batch(ids=points.ids[part].tolist(), vectors=unit, payloads=payloads)
        client.upsert(collection, batch, wait=True)


@contextmanager
def _answering(connection: Connection) -> Iterator[None]:
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, QdrantException) as error:
        raise LikenessError(
            "ENGINE",
            "The Qdrant server does not do what is asked of it.",
            where=connection.url,
            cause=str(getattr(error, "source", error)),
            fix=f"Start it, correct --url, or take --engine exact. A key that it asks for is taken from {KEY}.",
        ) from error


def _changed(connection: Connection, collection: str) -> LikenessError:
    return LikenessError(
        "ENGINE",
        f"The collection {collection!r} no longer holds the rows of the index.",
        where=connection.url,
        fix="Let one index alone write to it, and open the index again: it brings the collection up to date.",
    )
