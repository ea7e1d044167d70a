"""Every engine passes the same tests; the approximate ones are as good as they say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval.by_the_book import settled

from likeness.errors import LikenessError
from likeness.retrieval import engines
from likeness.retrieval.engines import Exact, build
from likeness.retrieval.faiss_engine import Faiss
from likeness.retrieval.neighbours import Gallery
from likeness.retrieval.qdrant_engine import MEMORY, Points, Qdrant, connect

ROWS, WIDTH = 400, 6


def qdrant(codes, ids, oversampling=4):
    nothing = [""] * len(ids)
    points = Points(1, "a" * 64, codes, ids, nothing, nothing, nothing)
    return Qdrant(connect(MEMORY), "homes", points, oversampling=oversampling)


# Without candidates to spare, so that what proves the answer is what is tested.
ENGINES = {
    "exact": Exact,
    "flat": lambda codes, ids: Faiss(codes, ids, "flat", oversampling=1),
    "qdrant": lambda codes, ids: qdrant(codes, ids, oversampling=1),
}


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clustered(rows=ROWS, width=WIDTH, clusters=12, seed=0):
    return drawn(seed, clusters, width)[torch.arange(rows) % clusters] + 0.3 * drawn(seed + 1, rows, width)


DATA = {
    "random": drawn(0, ROWS, WIDTH),
    "clustered": clustered(),
    "each twenty times": drawn(0, ROWS, WIDTH)[torch.arange(ROWS) % 20],
    "tied": torch.randint(-1, 2, (ROWS, WIDTH), generator=torch.Generator().manual_seed(2)) + 0.5,
    "behind": -drawn(0, ROWS, WIDTH).abs(),
    "all the same": torch.ones(ROWS, WIDTH),
    "alike within 1e-4": 1 + 1e-4 * drawn(0, ROWS, WIDTH),
    "long and short": drawn(0, ROWS, WIDTH) * torch.logspace(-18, 18, ROWS)[:, None],
}
FILTERS = {
    "all": None,
    "every one": torch.ones(ROWS, dtype=torch.bool),
    "one": torch.arange(ROWS) == 7,
    "few": torch.arange(ROWS) % 40 == 3,
    "many": torch.arange(ROWS) % 3 > 0,
    "none": torch.zeros(ROWS, dtype=torch.bool),
}


def reference(queries, codes, ids, k, allowed=None):
    """(position, cosine) lists by the book: float64, sorted by Python."""
    unit = [rows.double().numpy() / np.linalg.norm(rows.double().numpy(), axis=1)[:, None] for rows in (queries, codes)]
    cosine = settled(unit[0] @ unit[1].T)
    may = range(len(codes)) if allowed is None else allowed.nonzero()[:, 0].tolist()
    lists = [sorted((-row[at], int(ids[at]), at) for at in may)[:k] for row in cosine]
    return [[at for *_, at in row] for row in lists], [[-negative for negative, *_ in row] for row in lists]


def assert_as_reference(engine, queries, codes, ids, k, allowed=None):
    found, (positions, cosines) = engine.search(queries, k, allowed), reference(queries, codes, ids, k, allowed)
    assert found.indices.tolist() == positions
    assert found.similarities.shape == found.indices.shape
    np.testing.assert_allclose(found.similarities.numpy(), np.array(cosines).reshape(found.indices.shape), atol=1e-6)


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("name", ENGINES)
def test_an_exact_engine_gives_the_neighbours_by_the_book(name, kind):
    codes, ids = DATA[kind].float(), torch.arange(ROWS) * 3 + 5
    engine = ENGINES[name](codes, ids)
    assert engine.facts.exact
    queries = torch.cat([codes[:2], drawn(9, 2, WIDTH).abs()])
    for allowed in FILTERS.values():
        for k in (1, 9, ROWS):
            assert_as_reference(engine, queries, codes, ids, k, allowed)


@pytest.mark.parametrize("name", ENGINES)
def test_ties_beyond_the_candidates_go_to_the_smallest_ids(name):
    codes = torch.tensor([[0.0, 1.0]] * 3 + [[1.0, 1.0]] * 60 + [[1.0, 0.0]])
    ids = torch.arange(64).flip(0)
    found = ENGINES[name](codes, ids).search(torch.tensor([[2.0, 0.0]]), 4)
    # The row itself has id 0; its nearest sixty are equal, and have the ids 1 to 60.
    assert ids[found.indices].tolist() == [[0, 1, 2, 3]]
    torch.testing.assert_close(found.similarities, torch.tensor([[1.0, 0.5**0.5, 0.5**0.5, 0.5**0.5]]))


@st.composite
def cases(draw):
    """Small whole numbers: ties, duplicates and opposite directions abound."""
    width, rows = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    entries = st.lists(st.integers(-2, 2), min_size=width, max_size=width).filter(any)
    ids = draw(st.lists(st.integers(0, 99), min_size=rows, max_size=rows, unique=True))
    return (
        torch.tensor(draw(st.lists(entries, min_size=1, max_size=3)), dtype=torch.float32),
        torch.tensor(draw(st.lists(entries, min_size=rows, max_size=rows)), dtype=torch.float32),
        torch.tensor(ids),
        draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows).map(torch.tensor)),
        draw(st.integers(1, 45)),
    )


@pytest.mark.parametrize("name", ENGINES)
def test_ids_in_any_order_any_filter_and_any_k(name):
    @settings(max_examples=40, deadline=None)
    @given(cases())
    def check(case):
        queries, codes, ids, allowed, k = case
        assert_as_reference(ENGINES[name](codes, ids), queries, codes, ids, k, allowed)

    check()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_made_again_knows_what_was_added_and_not_what_was_removed(name):
    codes, ids, queries = DATA["random"], torch.arange(ROWS), DATA["random"][:3]
    later = torch.cat([ids[1:300], ids[350:]])
    for kept in (ids[:300], later):
        assert_as_reference(ENGINES[name](codes[kept], ids[kept]), queries, codes[kept], ids[kept], 5)


ALL = [*ENGINES, "ivf", "hnsw"]


def made(name, codes, ids):
    return ENGINES[name](codes, ids) if name in ENGINES else build(name, codes, ids)


@pytest.mark.parametrize("name", ALL)
def test_what_cannot_be_compared_is_refused_with_its_id(name):
    codes, ids = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([7, 9])
    for bad, told in ((torch.zeros(2), "zero"), (torch.tensor([1.0, torch.nan]), "not finite")):
        with pytest.raises(LikenessError, match=told) as caught:
            made(name, torch.stack([codes[0], bad]), ids)
        assert caught.value.where == "sample ids\n9"
    with pytest.raises(LikenessError, match="more than once"):
        made(name, codes, torch.tensor([7, 7]))
    engine = made(name, codes, ids)
    for queries, k, told in (
        (torch.zeros(1, 2), 1, "1 of 1 query rows are zero"),
        (torch.ones(1, 3), 1, "3 wide"),
        (codes, 0, "k=0"),
    ):
        with pytest.raises(LikenessError, match=told):
            engine.search(queries, k)
    with pytest.raises(LikenessError, match=r"allowed is \(3,\) for 2 rows"):
        engine.search(codes, 1, torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("name", ALL)
def test_more_neighbours_than_rows_are_as_many_as_rows(name, rows):
    codes, ids = drawn(0, 2, 3)[:rows], torch.arange(rows)
    engine = made(name, codes, ids)
    assert engine.search(drawn(1, 4, 3), 5).indices.shape == (4, rows)
    assert engine.search(torch.ones(0, 3), 5).indices.shape == (0, rows)
    assert engine.facts.rows == rows


@pytest.fixture(scope="module")
def structured():
    codes, ids = clustered(4000, 16, clusters=40), torch.arange(4000) * 2
    return codes, ids, {kind: Faiss(codes, ids, kind, recall=0.9, threads=1) for kind in ("ivf", "hnsw")}


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_recall_on_rows_with_structure_has_a_floor_and_is_what_is_stated(structured, kind):
    """What was held back is in the index now, so what is found besides it is nearly what was found before."""
    codes, _, made = structured
    stated = made[kind].facts.recall
    assert (stated.k, len(stated.sample)) == (10, 256)
    held = made[kind].position[-512:].tolist()
    assert held[1::2] == stated.sample.tolist()
    found = made[kind].search(codes[stated.sample], 20)
    hits = 0
    unit = codes.double().numpy() / np.linalg.norm(codes.double().numpy(), axis=1)[:, None]
    for row, indices in zip(stated.sample.tolist(), found.indices.tolist(), strict=True):
        others = [at for at in np.argsort(-unit @ unit[row]).tolist() if at not in held][:10]
        hits += len(set(others) & set([at for at in indices if at not in held][:10]))
    assert stated.interval.value == pytest.approx(hits / 2560, abs=0.01)
    assert stated.interval.low < stated.interval.value <= stated.interval.high
    assert stated.interval.value >= 0.85


def test_a_graph_that_many_equal_rows_cut_apart_says_that_it_finds_less():
    codes = clustered(3000, 16, clusters=40)
    codes[1000:1400] = codes[0]
    facts = Faiss(codes, torch.arange(3000), "hnsw", recall=1.0, threads=1).facts
    assert facts.recall.interval.value < 1
    assert facts.settings["ef_search"] < 2048


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_queries_that_are_no_rows_have_that_recall_as_well(structured, kind):
    codes, ids, made = structured
    queries = clustered(200, 16, clusters=40, seed=0) + 0.05 * drawn(5, 200, 16)
    found, (true, _) = made[kind].search(queries, 10), reference(queries, codes, ids, 10)
    shared = sum(len(set(a) & set(b)) for a, b in zip(found.indices.tolist(), true, strict=True))
    assert shared / 2000 >= 0.85


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_where_an_approximate_engine_finds_too_few_of_those_allowed_it_looks_at_all(structured, kind):
    codes, ids, made = structured
    # A hundredth of the lists, and a tenth of the rows, all of them in other clusters than the query.
    allowed = torch.arange(4000) % 40 < 4
    queries = codes[20:24]
    found = made[kind].search(queries, 150, allowed)
    assert found.indices.shape == (4, 150)
    assert allowed[found.indices].all()
    assert all(len(set(row)) == 150 for row in found.indices.tolist())
    few = torch.arange(4000) % 400 == 3
    assert_as_reference(made[kind], queries, codes, ids, 10, few)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_found_rows_have_the_exact_cosine_and_stand_in_the_order_of_the_rule(structured, kind):
    codes, ids, made = structured
    found = made[kind].search(codes[:50], 10)
    unit = torch.nn.functional.normalize(codes.double(), dim=1)
    cosine = torch.from_numpy(settled((unit[:50] @ unit.T).numpy()))
    np.testing.assert_allclose(found.similarities, cosine.gather(1, found.indices), atol=1e-7)
    keys = [list(zip((-s).tolist(), ids[i].tolist(), strict=True)) for s, i in zip(*found, strict=True)]
    assert all(row == sorted(row) for row in keys)


def test_more_effort_is_taken_until_the_recall_is_reached(structured):
    codes, ids, made = structured
    little, much = made["ivf"].facts, Faiss(codes, ids, "ivf", recall=1.0, threads=1).facts
    assert much.settings["nprobe"] > little.settings["nprobe"]
    assert much.settings["lists"] == (4000 - 512) // 39
    assert much.recall.interval.value >= little.recall.interval.value


def test_the_threads_of_faiss_are_left_as_they_were():
    import faiss

    before = faiss.omp_get_max_threads()
    engine = Faiss(DATA["random"], torch.arange(ROWS), threads=before + 1)
    engine.search(DATA["random"][:1], 1)
    assert faiss.omp_get_max_threads() == before


def test_an_engine_says_what_it_holds():
    facts = build("exact", DATA["random"], torch.arange(ROWS)).facts
    assert (facts.name, facts.exact, facts.rows, facts.recall) == ("exact", True, ROWS, None)
    assert facts.bytes == ROWS * (2 * WIDTH + 35)
    assert facts.seconds > 0
    assert build("flat", DATA["random"], torch.arange(ROWS)).facts.bytes == ROWS * (4 * WIDTH + 32)


@pytest.mark.parametrize(("package", "extra"), [("faiss", "faiss"), ("qdrant_client", "qdrant")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package, extra):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(LikenessError, match=f"{package} is not installed") as caught:
        build("flat", DATA["random"], torch.arange(ROWS)) if extra == "faiss" else connect(MEMORY)
    assert (caught.value.code, caught.value.fix) == (
        "CONFIG-EXTRA",
        f'pip install "likeness[{extra}]", or take --engine exact.',
    )


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_gallery_in_parts_finds_the_allowed_rows_alone(keep, share):
    codes, ids = clustered(3000, 16), torch.randperm(9000, generator=torch.Generator().manual_seed(0))[:3000]
    allowed = torch.rand(3000, generator=torch.Generator().manual_seed(1)) < share
    gallery = Gallery(codes, ids, tile_bytes=200_000, keep=keep)
    found = gallery.neighbours(codes[:20], 5, query_ids=ids[:20], allowed=allowed)
    for query, row in enumerate(found.indices.tolist()):
        others = allowed & (torch.arange(3000) != query)
        assert [row] == reference(codes[query : query + 1], codes, ids, 5, others)[0]


def test_a_filter_that_leaves_too_few_is_refused_by_the_gallery():
    codes, ids = torch.eye(3), torch.arange(3)
    with pytest.raises(LikenessError, match="query 0 has only 1 candidates"):
        Gallery(codes, ids).neighbours(codes, 2, query_ids=ids, allowed=torch.tensor([True, True, False]))
