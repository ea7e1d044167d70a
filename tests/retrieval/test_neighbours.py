import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval.by_the_book import settled

from likeness.errors import LikenessError
from likeness.retrieval.neighbours import Gallery, neighbours, rank_keys

# Angles 0, 90, 180, 270 and about 27 degrees, of different lengths.
COMPASS = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-0.5, 0.0], [0.0, -2.0], [2.0, 1.0]])


@pytest.fixture
def unchecked_shapes():
    """What users run: shapes are checked under pytest alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def among(codes, k, ids=None, **options):
    ids = torch.arange(len(codes)) if ids is None else ids
    return neighbours(codes, codes, k, query_ids=ids, gallery_ids=ids, **options)


def reference(queries, gallery, k, query_ids, gallery_ids, query_groups, gallery_groups):
    """(similarity, position) lists by the book: one pair at a time, in float64, sorted by Python."""
    lists = []
    for query, query_id, query_group in zip(queries, query_ids, query_groups, strict=True):
        pairs = []
        for position, row in enumerate(gallery):
            same_group = query_group >= 0 and query_group == gallery_groups[position]
            if gallery_ids[position] == query_id or same_group:
                continue
            cosine = np.dot(query, row) / np.sqrt(np.dot(query, query)) / np.sqrt(np.dot(row, row))
            pairs.append((-float(settled(cosine)), gallery_ids[position], position))
        lists.append([(-similarity, position) for similarity, _, position in sorted(pairs)[:k]])
    return lists


def test_a_drawn_example():
    found = among(COMPASS, 3)
    assert found.indices.tolist() == [[4, 1, 3], [4, 0, 2], [1, 3, 4], [0, 2, 4], [0, 1, 3]]
    near, far = 2 / 5**0.5, 1 / 5**0.5
    expected = [[near, 0, 0], [far, 0, 0], [0, 0, -near], [0, 0, -far], [near, far, -far]]
    torch.testing.assert_close(found.similarities, torch.tensor(expected))


def test_positions_are_those_of_the_gallery_as_passed_and_ties_go_by_id():
    gallery = torch.tensor([[1.0, 1.0], [5.0, 5.0], [0.0, 1.0], [2.0, 2.0]])
    ids = torch.tensor([30, 10, 20, 40], dtype=torch.int32)
    found = neighbours(torch.tensor([[1.0, 1.0]]), gallery, 4, query_ids=torch.tensor([99]), gallery_ids=ids)
    assert found.indices.tolist() == [[1, 0, 3, 2]]


def test_self_is_excluded_by_id_not_by_position():
    codes = torch.eye(3)
    found = neighbours(codes, codes, 2, query_ids=torch.tensor([2, 0, 7]), gallery_ids=torch.arange(3))
    assert found.indices.tolist() == [[0, 1], [1, 2], [2, 0]]


def test_the_own_group_is_no_candidate_and_an_unknown_group_excludes_nothing():
    groups = torch.tensor([5, 5, -1, -1, 6])
    found = among(COMPASS, 2, query_groups=groups, gallery_groups=groups)
    assert found.indices.tolist() == [[4, 3], [4, 2], [1, 3], [0, 2], [0, 1]]


def test_the_few_candidates_outside_the_own_group_are_found_where_they_share_a_block():
    # Blocks of 32 from 3,000 rows: columns 5, 99 and 193 are of the same one.
    codes = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    groups = torch.zeros(3000, dtype=torch.int64)
    groups[[5, 99, 193]] = 1
    query = {"query_ids": torch.tensor([-1]), "query_groups": torch.tensor([0])}
    found = neighbours(codes[:1], codes, 3, **query, gallery_ids=torch.arange(3000), gallery_groups=groups)
    cosine = torch.nn.functional.normalize(codes.double(), dim=1) @ codes[0].double() / codes[0].double().norm()
    assert found.indices[0].tolist() == sorted([5, 99, 193], key=lambda row: -cosine[row])


@pytest.mark.parametrize("tile_bytes", [1, 2000, 2**28])
def test_constant_codes_are_one_long_tie(tile_bytes):
    ids = torch.arange(60).flip(0)
    found = among(torch.full((60, 7), 0.1), 3, ids=ids, tile_bytes=tile_bytes)
    assert found.indices[0].tolist() == [59, 58, 57]
    assert found.indices[-1].tolist() == [58, 57, 56]
    assert (found.similarities == 1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_precision_of_the_input_and_autocast_change_nothing(dtype):
    codes = torch.randint(-8, 9, (40, 5), generator=torch.Generator().manual_seed(0)).to(dtype) + 0.5
    expected = among(codes.double(), 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = among(codes, 5)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.similarities, expected.similarities)


@pytest.mark.fault("F40")
def test_lengths_that_overflow_or_vanish_when_squared():
    codes = COMPASS.double()
    lengths = torch.tensor([1e300, 1e-300, 1e20, 1.0, 5e-324], dtype=torch.float64)[:, None]
    # The smallest number has no half, so it scales a row of whole ones.
    assert torch.equal(among(codes * lengths, 4).indices, among(codes, 4).indices)


def test_a_graph_is_not_kept():
    assert not among(COMPASS.clone().requires_grad_(), 1).similarities.requires_grad


@pytest.mark.fault("F41")
def test_fifty_permutations_and_any_tile_give_the_same_neighbours():
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(-1, 2, (64, 4), generator=generator).float() + torch.tensor([0.0, 0, 0, 3])
    ids = torch.randperm(500, generator=generator)[:64]
    base = among(codes, 6, ids=ids)
    expected = {
        int(i): (ids[row].tolist(), s.tolist()) for i, row, s in zip(ids, base.indices, base.similarities, strict=True)
    }
    for trial in range(50):
        order = torch.randperm(64, generator=generator)
        found = among(codes[order], 6, ids=ids[order], tile_bytes=32 * 64 * (trial + 1))
        for query, row, s in zip(ids[order], found.indices, found.similarities, strict=True):
            assert (ids[order][row].tolist(), s.tolist()) == expected[int(query)]


@st.composite
def cases(draw):
    """Small whole numbers: ties, duplicates and opposite directions abound."""
    width, q, g = draw(st.integers(1, 3)), draw(st.integers(0, 6)), draw(st.integers(1, 12))
    entries = st.lists(st.integers(-2, 2), min_size=width, max_size=width).filter(any)
    column = st.integers(-1, 2)
    return (
        np.array(draw(st.lists(entries, min_size=q, max_size=q)), dtype=np.float64).reshape(q, width),
        np.array(draw(st.lists(entries, min_size=g, max_size=g)), dtype=np.float64),
        draw(st.lists(st.integers(0, 20), min_size=q, max_size=q)),
        draw(st.lists(st.integers(0, 20), min_size=g, max_size=g, unique=True)),
        draw(st.lists(column, min_size=q, max_size=q)),
        draw(st.lists(column, min_size=g, max_size=g)),
        draw(st.integers(1, 600)),
    )


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(1, 4))
def test_equals_the_reference(case, k):
    queries, gallery, query_ids, gallery_ids, query_groups, gallery_groups, tile_bytes = case
    expected = reference(queries, gallery, k, query_ids, gallery_ids, query_groups, gallery_groups)

    def run():
        columns = (torch.tensor(c, dtype=torch.int64) for c in (query_ids, gallery_ids, query_groups, gallery_groups))
        names = ("query_ids", "gallery_ids", "query_groups", "gallery_groups")
        options = dict(zip(names, columns, strict=True))
        return neighbours(torch.tensor(queries), torch.tensor(gallery), k, tile_bytes=tile_bytes, **options)

    if any(len(row) < k for row in expected):
        with pytest.raises(LikenessError, match="candidates"):
            run()
    else:
        found = run()
        assert found.indices.tolist() == [[position for _, position in row] for row in expected]
        assert found.similarities.tolist() == [[similarity for similarity, _ in row] for row in expected]


def test_keys_order_every_float_and_the_zeros_of_both_signs_tie():
    values = [torch.inf, 1.0, 2**-149, 0.0, -0.0, 0.0, -(2**-149), -1.0, -torch.inf, -torch.inf]
    key = rank_keys(torch.tensor([values]))[0]
    assert key.tolist() == sorted(key.tolist(), reverse=True)
    assert len(set(key.tolist())) == len(values)


def test_keys_put_the_marked_last_among_ties_only():
    key = rank_keys(torch.tensor([[0.5, 0.5, 0.5, 0.9, 0.1]]), torch.tensor([[True, False, True, True, False]]))
    assert key.argsort(descending=True).tolist() == [[3, 1, 0, 2, 4]]


def test_a_k_beyond_the_candidates_is_refused_with_both_numbers_and_the_query():
    groups = torch.tensor([0, 0, 0, 1, 2])
    ids = torch.tensor([10, 11, 12, 13, 14])
    with pytest.raises(LikenessError, match=r"k=3, but query 10 has only 2 candidates") as refusal:
        among(COMPASS, 3, ids=ids, query_groups=groups, gallery_groups=groups)
    assert refusal.value.exit_code == 65
    with pytest.raises(ValueError, match=r"k=5, but query 0 has only 4 candidates"):
        among(COMPASS, 5)
    with pytest.raises(LikenessError, match=r"query 4 has only 0 candidates"):
        neighbours(COMPASS, COMPASS[:0], 1, query_ids=torch.arange(4, 9), gallery_ids=torch.arange(0))


def test_a_k_below_one_is_refused():
    with pytest.raises(LikenessError, match="k=0"):
        among(COMPASS, 0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_refused_by_name(value):
    codes = torch.ones(30, 2)
    codes[5:17, 1] = value
    with pytest.raises(LikenessError, match="12 of 30 rows are not finite") as refusal:
        among(codes, 1, ids=torch.arange(100, 130))
    assert refusal.value.where.split() == ["sample", "ids", *map(str, range(105, 115)), "…", "and", "2", "more"]


@pytest.mark.fault("F40")
def test_zero_rows_are_refused_by_name_on_either_side():
    ids = torch.arange(20, 25)
    gallery = COMPASS.clone()
    gallery[2] = -0.0
    with pytest.raises(LikenessError, match="1 of 5 gallery rows are zero") as refusal:
        neighbours(COMPASS, gallery, 1, query_ids=ids, gallery_ids=ids)
    assert "22" in refusal.value.where
    with pytest.raises(LikenessError, match="1 of 5 query rows are zero"):
        neighbours(gallery, COMPASS, 1, query_ids=ids, gallery_ids=ids)


def test_an_id_that_comes_twice_in_the_gallery_is_refused():
    with pytest.raises(LikenessError, match="1 gallery ids come more than once") as refusal:
        among(COMPASS, 1, ids=torch.tensor([4, 8, 4, 1, 4]))
    assert refusal.value.where == "sample ids\n4"


def test_groups_on_one_side_only_are_refused():
    with pytest.raises(LikenessError, match="one side"):
        among(COMPASS, 1, query_groups=torch.zeros(5, dtype=torch.int64))


def test_shapes_that_do_not_fit_are_refused(unchecked_shapes):
    with pytest.raises(LikenessError, match="queries are 3 wide and the gallery is 2 wide"):
        neighbours(torch.ones(2, 3), COMPASS, 1, query_ids=torch.arange(2), gallery_ids=torch.arange(5))
    with pytest.raises(LikenessError, match=r"codes are \(5, 2\), ids \(4,\)"):
        neighbours(COMPASS, COMPASS, 1, query_ids=torch.arange(4), gallery_ids=torch.arange(5))
    with pytest.raises(LikenessError, match=r"codes are \(5, 0\)"):
        among(COMPASS[:, :0], 1)


def test_no_queries_give_no_neighbours():
    found = neighbours(COMPASS[:0], COMPASS, 2, query_ids=torch.arange(0), gallery_ids=torch.arange(5))
    assert found.indices.shape == found.similarities.shape == (0, 2)


def test_a_query_that_is_no_row_of_the_gallery_has_every_row_as_candidate():
    gallery = Gallery(COMPASS, torch.arange(5))
    assert gallery.neighbours(COMPASS[:2], 5).indices.tolist() == [[0, 4, 1, 3, 2], [1, 4, 0, 2, 3]]
    with pytest.raises(LikenessError, match="has only 5 candidates"):
        gallery.neighbours(COMPASS[:2], 6)
    homes = Gallery(COMPASS, torch.arange(5), torch.tensor([1, 1, 2, -1, 2]))
    found = homes.neighbours(COMPASS[:2], 3, query_groups=torch.tensor([2, -1]))
    assert found.indices.tolist() == [[0, 1, 3], [1, 4, 0]]


def test_rows_that_are_not_allowed_stay_out_of_exact_tiles_of_some_rows_at_a_time(monkeypatch):
    """All rows point the same way, so that every pair is multiplied exactly; ties then go by id."""
    monkeypatch.setattr("likeness.retrieval.neighbours._ROWS_IN_CACHE", 7)
    alike = Gallery(torch.ones(40, 2), torch.arange(40))
    allowed = torch.arange(40) % 2 == 1
    assert alike.neighbours(torch.ones(1, 2), 20, allowed=allowed).indices.tolist() == [list(range(1, 40, 2))]
