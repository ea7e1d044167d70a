"""A collection holds exactly a generation's rows, whatever happened before; a server is asked what it should be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval.qdrant_server import serving

from likeness.errors import LikenessError
from likeness.retrieval import qdrant_engine
from likeness.retrieval.engines import Exact
from likeness.retrieval.qdrant_engine import MEMORY, Changes, Points, Qdrant, Where, connect, sync

MODEL = "a" * 64
ROWS = 40


def points(ids, number=1, model=MODEL, label="kitchen", of_row=lambda id_: id_):
    """Rows whose code, home and path follow from their id."""
    codes = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(of_row(id_))) for id_ in ids])
    labels = [label if id_ % 2 else "frontal" for id_ in ids]
    homes = [f"home{id_ // 4}" for id_ in ids]
    return Points(number, model, codes, torch.tensor(ids), labels, homes, [f"{id_}.jpg" for id_ in ids])


def held(connection, collection="homes"):
    """Id, payload without the digest, and rounded vector of every point."""
    points, _ = connection.client.scroll(collection, limit=1000, with_vectors=True)
    told = [{name: value for name, value in point.payload.items() if name != "digest"} for point in points]
    return {p.id: (payload, [round(v, 5) for v in p.vector]) for p, payload in zip(points, told, strict=True)}


def expected(rows):
    unit = torch.nn.functional.normalize(rows.codes, dim=1)
    columns = zip(rows.labels, rows.homes, rows.paths, strict=True)
    payloads = [{"label": label, "home": home, "path": path} for label, home, path in columns]
    vectors = [[round(v, 5) for v in row] for row in unit.tolist()]
    return dict(zip(rows.ids.tolist(), zip(payloads, vectors, strict=True), strict=True))


def same(found, rows):
    wanted = expected(rows)
    assert found.keys() == wanted.keys()
    for id_, (payload, vector) in found.items():
        assert payload == wanted[id_][0]
        assert vector == pytest.approx(wanted[id_][1], abs=2e-5)


def test_a_collection_follows_the_generations_and_writes_what_is_new_alone():
    connection = connect(MEMORY)
    first = points(range(10))
    assert sync(connection, "homes", first) == Changes(10, 0)
    assert sync(connection, "homes", first) == Changes(0, 0)
    second = points(range(3, 14), number=2)
    assert sync(connection, "homes", second) == Changes(4, 3)
    same(held(connection), second)
    assert connection.client.get_collection("homes").config.metadata["generation"] == 2


def test_another_label_or_code_of_the_same_id_is_a_change():
    connection = connect(MEMORY)
    sync(connection, "homes", points(range(10)))
    relabelled = points(range(10), number=2, label="bathroom")
    assert sync(connection, "homes", relabelled) == Changes(5, 0)
    same(held(connection), relabelled)
    coded = points(range(10), number=3, label="bathroom", of_row=lambda id_: 99 if id_ == 4 else id_)
    assert sync(connection, "homes", coded) == Changes(1, 0)
    same(held(connection), coded)


@pytest.mark.parametrize("request_", range(5))  # note, remove, write, write, note
@pytest.mark.fault("F48c")
def test_after_a_crash_at_any_request_the_next_sync_goes_on(monkeypatch, request_):
    monkeypatch.setattr(qdrant_engine, "_ROWS_A_REQUEST", 4)
    connection, rows = connect(MEMORY), points(range(5, 17), number=2)
    sync(connection, "homes", points(range(9)))
    before = held(connection)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, connection.client, request_)
        with pytest.raises(KeyboardInterrupt):
            sync(connection, "homes", rows)
    halfway = held(connection)
    done = len(halfway.keys() - before.keys())
    changes = sync(connection, "homes", rows)
    assert changes.written == 8 - done
    same(held(connection), rows)
    assert sync(connection, "homes", rows) == Changes(0, 0)


def killed_at(patch, client, number):
    """The process ends instead of the request of that number of those that change something."""
    calls = 0

    def ending(call):
        def asked(*given, **options):
            nonlocal calls
            calls += 1
            if calls > number:
                raise KeyboardInterrupt
            return call(*given, **options)

        return asked

    for name in ("update_collection", "delete", "upsert"):
        patch.setattr(client, name, ending(getattr(client, name)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=20), min_size=1, max_size=4))
def test_any_generations_one_after_another(sets):
    connection = connect(MEMORY)
    for number, ids in enumerate(sets):
        rows = points(sorted(ids), number=number)
        sync(connection, "homes", rows)
        same(held(connection), rows)


def test_more_rows_than_a_request_takes(monkeypatch):
    monkeypatch.setattr(qdrant_engine, "_ROWS_A_REQUEST", 7)
    monkeypatch.setattr(qdrant_engine, "_IDS_A_REQUEST", 7)
    monkeypatch.setattr(qdrant_engine, "_QUERIES_A_REQUEST", 3)
    connection, rows = connect(MEMORY), points(range(ROWS))
    engine = Qdrant(connection, "homes", rows)
    found = engine.search(rows.codes[:10], 3)
    assert torch.equal(found.indices, Exact(rows.codes, rows.ids).search(rows.codes[:10], 3).indices)
    assert sync(connection, "homes", points(range(20, 22), number=2)) == Changes(0, 38)


def test_a_collection_of_another_model_is_refused_and_left_as_it_is():
    connection, rows = connect(MEMORY), points(range(5))
    sync(connection, "homes", rows)
    with pytest.raises(LikenessError, match="codes of model aaaaaaaaaaaa") as caught:
        sync(connection, "homes", points(range(9), model="b" * 64))
    assert caught.value.code == "ENGINE-MODEL"
    same(held(connection), rows)
    wider = rows._replace(codes=torch.ones(5, 7))
    with pytest.raises(LikenessError, match="'homes' holds codes of model"):
        sync(connection, "homes", wider)


def test_a_collection_that_something_else_made_is_refused():
    from qdrant_client import models

    connection = connect(MEMORY)
    connection.client.create_collection("homes", models.VectorParams(size=4, distance=models.Distance.DOT))
    with pytest.raises(LikenessError, match="what likeness did not write"):
        sync(connection, "homes", points(range(5)))


WHERES = [
    (Where(labels=["kitchen"]), lambda id_: id_ % 2 == 1),
    (Where(labels=["kitchen", "frontal"], not_homes=["home0", "home3"]), lambda id_: id_ // 4 not in (0, 3)),
    (Where(homes=["home1", "home2"]), lambda id_: id_ // 4 in (1, 2)),
    (Where(labels=["kitchen"], homes=["home1"], not_homes=["home2"]), lambda id_: id_ in (5, 7)),
    (Where(labels=["garage"]), lambda id_: False),
    (Where(), lambda id_: True),
]


@pytest.mark.parametrize(("where", "may"), WHERES)
def test_labels_and_homes_are_filters_of_the_server(where, may):
    rows = points(range(ROWS))
    engine, exact = Qdrant(connect(MEMORY), "homes", rows), Exact(rows.codes, rows.ids)
    allowed = torch.tensor([may(id_) for id_ in range(ROWS)])
    assert torch.equal(where.allows(rows), allowed)
    found, wanted = engine.search(rows.codes[:5], 6, where=where), exact.search(rows.codes[:5], 6, allowed)
    assert torch.equal(found.indices, wanted.indices)
    third = torch.arange(ROWS) % 3 > 0
    found = engine.search(rows.codes[:5], 6, third, where)
    assert torch.equal(found.indices, exact.search(rows.codes[:5], 6, third & allowed).indices)


@pytest.mark.parametrize("change", ["removed", "added"])
def test_rows_that_changed_behind_the_index_are_told(change):
    from qdrant_client import models

    connection, rows = connect(MEMORY), points(range(3))
    engine = Qdrant(connection, "homes", rows)
    if change == "removed":
        connection.client.delete("homes", models.PointIdsList(points=[1]))
    else:
        connection.client.upsert("homes", models.Batch(ids=[7], vectors=rows.codes[:1].tolist()))
    with pytest.raises(LikenessError, match="no longer holds the rows") as caught:
        engine.search(rows.codes, 3)
    assert caught.value.code == "ENGINE"


def test_over_rest_the_answers_are_the_same_and_the_server_is_told_to_be_exact():
    rows = points(range(ROWS))
    with serving() as served:
        engine = Qdrant(connect(served.url), "homes", rows, exact=True, oversampling=1)
        where = Where(labels=["kitchen"], not_homes=["home3"])
        found = engine.search(rows.codes[:5], 6, where=where)
        later = sync(engine.connection, "homes", points(range(5, ROWS), number=2))
        engine.connection.client.close()
    exact = Exact(rows.codes, rows.ids)
    assert torch.equal(found.indices, exact.search(rows.codes[:5], 6, where.allows(rows)).indices)
    assert later == Changes(0, 5)
    searches = [search for body in served.bodies("query/batch") for search in body["searches"]]
    assert {search["params"]["exact"] for search in searches} == {True}
    assert searches[0]["filter"]["must"] == [{"key": "label", "match": {"any": ["kitchen"]}}]
    assert searches[0]["filter"]["must_not"] == [{"key": "home", "match": {"any": ["home3"]}}]
    assert [body["field_name"] for body in served.bodies("/index")] == ["label", "home"]


def test_a_server_that_may_approximate_is_asked_once_and_says_that_it_is_not_exact():
    rows = points(range(ROWS))
    with serving() as served:
        engine = Qdrant(connect(served.url), "homes", rows)
        engine.search(rows.codes[:5], 6)
        engine.connection.client.close()
    assert not engine.facts.exact
    searches = [search for body in served.bodies("query/batch") for search in body["searches"]]
    assert [search["params"]["exact"] for search in searches] == [False] * 5


def test_a_failing_server_is_told_with_its_own_words():
    with serving() as served:
        connection = connect(served.url)
        served.failing = "PUT .*/points$"
        with pytest.raises(LikenessError, match="does not do what is asked") as caught:
            sync(connection, "homes", points(range(5)))
        assert "out of disk" in caught.value.cause
        served.failing = None
        assert sync(connection, "homes", points(range(5))) == Changes(5, 0)
        connection.client.close()


def test_the_key_comes_from_the_environment(monkeypatch):
    with serving(key="canary0key") as served:
        with pytest.raises(LikenessError, match="does not do") as caught:
            sync(connect(served.url), "homes", points(range(3)))
        assert "API key" in caught.value.cause
        assert "QDRANT_API_KEY" in caught.value.fix
        monkeypatch.setenv("QDRANT_API_KEY", "canary0key")
        connection = connect(served.url)
        assert sync(connection, "homes", points(range(3))) == Changes(3, 0)
        connection.client.close()
    with pytest.raises(LikenessError, match="unencrypted") as caught:
        connect("http://qdrant.example:6333")
    assert caught.value.code == "CONFIG-SECRET"
    assert "canary0key" not in str(caught.value)


@pytest.mark.parametrize("url", ["qdrant.example", "folder/of/mine", "ftp://x", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(LikenessError, match="no address of a Qdrant server") as caught:
        connect(url)
    assert caught.value.code == "CONFIG"
