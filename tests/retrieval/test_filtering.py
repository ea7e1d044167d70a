"""What the products in low precision may claim, and that nothing is lost by them, on data made to mislead them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval.by_the_book import settled

from likeness.retrieval import filtering, neighbours
from likeness.retrieval.filtering import Prepared, Rounded, cosines, in_blocks, prepared, products
from likeness.retrieval.hits import rivals_above
from likeness.retrieval.rows import comparable, count_candidates

PRECISIONS = {"bfloat16": (torch.bfloat16,), "float32": (torch.float32,), "both": (torch.bfloat16, torch.float32)}
ROWS, WIDTH = 1600, 24  # two parts of the gallery where the tile is small


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(rows=ROWS):
    return torch.randn(rows, WIDTH, generator=drawn())


HARD = {
    "gaussian": gaussian,
    "positive": lambda: gaussian().relu() + 0.01,
    "all nearly the same way": lambda: 1 + 0.01 * gaussian(),
    "all the same way": lambda: torch.ones(ROWS, WIDTH),
    "nearly each twice": lambda: gaussian()[torch.arange(ROWS) // 2] + 1e-6 * gaussian(),
    "each five times": lambda: gaussian()[torch.arange(ROWS) % 500],
    "clusters within rounding": lambda: (
        torch.nn.functional.normalize(gaussian()[torch.arange(ROWS) % 20], dim=1) + 3e-8 * gaussian()
    ),
    "two opposite bundles": lambda: (
        gaussian(1) * torch.where(torch.arange(ROWS) % 2 == 0, 1, -1)[:, None] + 0.02 * gaussian()
    ),
    "few values": lambda: torch.randint(-1, 2, (ROWS, WIDTH), generator=drawn()).float() + 0.5,
}


def use(precision, monkeypatch):
    monkeypatch.setattr(filtering, "precisions", lambda device: PRECISIONS[precision])


def ranked(codes, ids, groups=None):
    """Cosines by NumPy in float64, rounded, -inf for no candidate; and the columns, nearest first."""
    rows = codes.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = settled(rows @ rows.T)
    cosine[np.equal.outer(ids.numpy(), ids.numpy())] = -np.inf
    if groups is not None:
        cosine[np.equal.outer(groups.numpy(), groups.numpy()) & (groups.numpy() >= 0)[:, None]] = -np.inf
    by_id = np.argsort(ids.numpy())
    return cosine, by_id[np.argsort(-cosine[:, by_id], axis=1, kind="stable")]


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize(
    ("precision", "tile_bytes"), [("bfloat16", 2**21), ("float32", 2**20), ("both", neighbours.TILE_BYTES)]
)
def test_neighbours_are_those_of_the_whole_matrix(monkeypatch, kind, precision, tile_bytes):
    use(precision, monkeypatch)
    codes, ids = HARD[kind](), torch.randperm(3 * ROWS, generator=drawn(1))[:ROWS]
    groups = torch.randint(-1, ROWS // 5, (ROWS,), generator=drawn(2))
    cosine, order = ranked(codes, ids, groups)
    columns = {"query_ids": ids, "gallery_ids": ids, "query_groups": groups, "gallery_groups": groups}
    found = neighbours.neighbours(codes, codes, 5, **columns, tile_bytes=tile_bytes)
    assert np.array_equal(found.indices.numpy(), order[:, :5])
    assert np.array_equal(found.similarities.numpy(), np.take_along_axis(cosine, order[:, :5], 1))


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize(
    ("precision", "labels", "tile_bytes", "pessimistic"),
    [("both", 2, 2**21, False), ("bfloat16", 7, 2**28, True), ("float32", 900, 2**21, True)],
)
def test_rivals_are_counted_as_in_the_whole_matrix(monkeypatch, kind, precision, labels, tile_bytes, pessimistic):
    use(precision, monkeypatch)
    ids, label = torch.randperm(3 * ROWS, generator=drawn(1))[:ROWS], torch.arange(ROWS) % labels
    codes = HARD[kind]()
    codes = codes + 0.3 * codes.std() * torch.randn(labels, WIDTH, generator=drawn(3))[label]
    groups = torch.randint(-1, ROWS // 5, (ROWS,), generator=drawn(2))
    cosine, order = ranked(codes, ids, groups)
    expected = rivals_by_the_book(cosine, order, np.equal.outer(label.numpy(), label.numpy()), pessimistic)
    rows, options = comparable(codes, ids, groups), {"ties_are_above": pessimistic, "tile_bytes": tile_bytes}
    assert np.array_equal(rivals_above(rows, label, rows, label, 4, **options).numpy(), expected)
    some = torch.arange(0, ROWS, 5)
    assert np.array_equal(rivals_above(rows.take(some), label[some], rows, label, 4, **options).numpy(), expected[::5])


@pytest.mark.parametrize("kind", HARD)
def test_a_gallery_that_is_kept_gives_what_one_that_is_made_for_the_occasion_gives(kind):
    codes, ids = HARD[kind](), torch.randperm(3 * ROWS, generator=drawn(1))[:ROWS]
    kept = neighbours.Gallery(codes, ids, tile_bytes=2**21)
    asked = torch.arange(0, ROWS, 7)
    whole = neighbours.neighbours(codes, codes, 5, query_ids=ids, gallery_ids=ids)
    found = kept.neighbours(codes[asked], 5, query_ids=ids[asked])
    assert torch.equal(found.indices, whole.indices[asked])
    assert torch.equal(found.similarities, whole.similarities[asked])
    strangers = kept.neighbours(codes[asked], 1)
    assert (strangers.similarities == 1).all(), "each finds itself, or its like, where it is no row of the gallery"


def rivals_by_the_book(cosine, order, same, pessimistic):
    right = np.take_along_axis(same & (cosine > -np.inf), order, 1)
    value = np.take_along_axis(cosine, order, 1)
    rival = ~np.take_along_axis(same, order, 1) & (value > -np.inf)
    first = right.argmax(1)
    above = np.where(np.arange(right.shape[1]) < first[:, None], rival, False)
    if pessimistic:
        above |= rival & (value == np.take_along_axis(value, first[:, None], 1))
    return np.where(right.any(1), above.sum(1).clip(max=4), 4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 700),
    st.sampled_from([torch.bfloat16, torch.float32]),
    st.sampled_from([0.0, 0.1, 10.0]),
)
def test_no_cosine_lies_farther_from_its_product_than_is_claimed(seed, width, dtype, common):
    generator = drawn(seed)
    codes = torch.randn(40, width, generator=generator, dtype=torch.float64).exp() - common
    rows = comparable(codes, torch.arange(40))
    ready = prepared(rows, torch.arange(40), slice(0, 40))
    low = ready.in_precision(dtype)
    product = products(low, low, 1)
    exact = ready.unit @ ready.unit.T
    for column in range(40):
        value, cosine = product.values[:, column].float(), exact[:, column]
        assert (product.at_least(value).double() <= cosine).all()
        assert (value >= product.reaching(cosine.float())).all()
        assert (value <= product.exceeding(cosine.float())).all()


def test_a_bound_that_is_claimed_too_small_is_noticed():
    """The test above can fail: half of the bound does not hold."""
    codes = torch.randn(400, 3, generator=drawn(), dtype=torch.float64)
    ready = prepared(comparable(codes, torch.arange(400)), torch.arange(400), slice(0, 400))
    low = ready.in_precision(torch.bfloat16)
    product = products(low, low, 1)
    half = product._replace(slack=product.slack / 4, u=product.u / 4)
    assert any(
        (half.at_least(value.float()).double() > cosine).any()
        for value, cosine in zip(product.values.T, (ready.unit @ ready.unit.T).T, strict=True)
    )


def test_blocks_are_columns_apart_and_a_turned_table_has_the_same():
    table = torch.tensor([[5.0, 1, 2, 8, 0, 3], [4, 9, 7, 1, 6, 2]])
    found = in_blocks(table, 2)
    assert found.values_qb.tolist() == [[8, 1, 3], [4, 9, 7]]
    columns, values = found.inside(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert (columns.tolist(), values.tolist()) == ([[0, 3], [1, 4]], [[5, 8], [9, 6]])
    turned = in_blocks(table[:, 1:].T, 2)
    assert turned.values_qb.tolist() == [[9], [7], [8], [6], [3]]
    columns, values = turned.inside(torch.tensor([2]), torch.tensor([0]))
    assert (columns.tolist(), values.tolist()) == ([[0, 1]], [[8, 1]])
    padded = in_blocks(table[:, :5].T, 4)
    assert padded.values_qb.tolist() == [[5], [9], [7], [8], [6]]


def test_a_cosine_of_pairs_is_that_of_the_product():
    rows = comparable(gaussian(60), torch.arange(60))
    ready = prepared(rows, torch.arange(60), slice(0, 60))
    query, row = torch.tensor([0, 0, 3, 59]), torch.tensor([59, 1, 3, 0])
    expected = torch.from_numpy(settled((ready.unit[query] * ready.unit[row]).sum(1).numpy()))
    assert torch.equal(cosines(ready, ready, query, row), expected)
    assert torch.equal(filtering._gathered(ready.unit, ready.unit, query, row), expected)


def test_rows_that_are_all_alike_are_told_apart_no_longer_in_that_precision(monkeypatch):
    asked: list[torch.dtype] = []
    real = neighbours.products

    def watched(queries: Rounded, gallery: Rounded, size: int):
        asked.append(queries.rows.dtype)
        return real(queries, gallery, size)

    monkeypatch.setattr(neighbours, "products", watched)
    use("both", monkeypatch)
    ids = torch.arange(ROWS)
    neighbours.neighbours(torch.ones(ROWS, WIDTH), torch.ones(ROWS, WIDTH), 5, query_ids=ids, gallery_ids=ids)
    assert asked == [torch.bfloat16, torch.float32]


def test_candidates_are_counted_by_label_and_group():
    rows = comparable(torch.ones(5, 2), torch.tensor([4, 3, 2, 1, 0]), torch.tensor([7, 7, -1, -1, 9]))
    asked = comparable(torch.ones(3, 2), torch.tensor([3, 1, 8]), torch.tensor([7, -1, 9]))
    assert count_candidates(asked, rows).tolist() == [3, 4, 4]
    labels = torch.tensor([0, 0, 0, 1, 0])
    assert count_candidates(asked, rows, torch.tensor([0, 1, 0]), labels).tolist() == [2, 0, 3]


def test_a_part_of_prepared_rows_is_what_those_rows_give():
    rows = comparable(gaussian(50), torch.arange(50), torch.arange(50) % 3)
    whole = prepared(rows, torch.arange(50), slice(0, 50), torch.arange(50))
    part: Prepared = whole.take(slice(10, 20))
    alone = prepared(rows, torch.arange(50), slice(10, 20), torch.arange(50))
    assert torch.equal(part.unit, alone.unit)
    assert torch.equal(part.place, alone.place)
    assert torch.equal(part.rows.groups, alone.rows.groups)
    assert torch.equal(part.labels, alone.labels)
    assert part.some(torch.arange(10)) is part
