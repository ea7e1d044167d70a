"""A GPU gives what a CPU gives, with torch's products and with the fused kernel. Not yet run on a GPU."""

import pytest
import torch
from retrieval.test_filtering import HARD, ROWS, drawn

from likeness.retrieval import filtering
from likeness.retrieval.filtering import prepared, products
from likeness.retrieval.hits import rivals_above
from likeness.retrieval.metric import score
from likeness.retrieval.neighbours import Gallery, neighbours
from likeness.retrieval.rows import comparable

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
COUNT, LABELS = 30_000, 10


@pytest.fixture(autouse=True, params=["torch", "kernel"])
def _path(request, monkeypatch):
    monkeypatch.setenv("LIKENESS_FUSED", "0")
    if request.param == "kernel":
        monkeypatch.setenv("LIKENESS_FUSED", "1")
        assert filtering.kernel_for(torch.zeros(1, 1, dtype=torch.bfloat16, device="cuda")) is not None


@pytest.fixture(scope="module")
def drawn_rows():
    """Codes in overlapping classes, their labels, shuffled ids, and homes of about five rows, some unknown."""
    labels = torch.arange(COUNT) % LABELS
    centres = 0.25 * torch.randn(LABELS, 128, generator=drawn(1))
    codes = torch.randn(COUNT, 128, generator=drawn()) + centres[labels]
    ids = torch.randperm(3 * COUNT, generator=drawn(2))[:COUNT]
    return codes, labels, ids, torch.randint(-1, COUNT // 5, (COUNT,), generator=drawn(3))


def on_gpu(columns):
    return {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in columns.items()}


def same(found, expected):
    """Fields of named tuples, wherever they lie."""
    return all(torch.equal(ours.cpu(), theirs.cpu()) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("options", [{}, {"tile_bytes": 2**24}], ids=["its own tile", "many tiles"])
def test_neighbours_within_a_set_with_groups(drawn_rows, options):
    codes, _, ids, groups = drawn_rows
    columns = {"query_ids": ids, "gallery_ids": ids, "query_groups": groups, "gallery_groups": groups}
    expected = neighbours(codes, codes, 10, **columns)
    assert same(neighbours(codes.cuda(), codes.cuda(), 10, **on_gpu(columns), **options), expected)


@pytest.mark.parametrize("kind", HARD)
def test_neighbours_of_rows_made_to_mislead(kind):
    codes, ids = HARD[kind](), torch.randperm(3 * ROWS, generator=drawn(1))[:ROWS]
    columns = {"query_ids": ids, "gallery_ids": ids}
    assert same(neighbours(codes.cuda(), codes.cuda(), 5, **on_gpu(columns)), neighbours(codes, codes, 5, **columns))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.02])
def test_a_gallery_that_is_kept_and_queries_that_are_no_rows(drawn_rows, share):
    codes, _, ids, _ = drawn_rows
    asked, allowed = torch.randn(777, 128, generator=drawn(4)), torch.rand(COUNT, generator=drawn(5)) < share
    expected = Gallery(codes, ids).neighbours(asked, 7, allowed=allowed)
    assert same(Gallery(codes.cuda(), ids.cuda()).neighbours(asked.cuda(), 7, allowed=allowed.cuda()), expected)


@pytest.mark.parametrize("within", [True, False], ids=["one set", "two sets"])
@pytest.mark.parametrize("homes", [True, False], ids=["homes apart", "homes together"])
def test_hits(drawn_rows, within, homes):
    codes, labels, ids, groups = drawn_rows
    some = torch.arange(0, COUNT, 1 if within else 3)

    def rivals(device):
        columns = [column.to(device) for column in ((codes, ids, groups) if homes else (codes, ids))]
        rows, label_n, at = comparable(*columns), labels.to(device), some.to(device)
        asked = rows if within else rows.take(at)
        return rivals_above(asked, label_n[at], rows, label_n, 5)

    assert torch.equal(rivals("cuda").cpu(), rivals("cpu"))


def test_score(drawn_rows):
    codes, labels, ids, groups = (column[:6000] for column in drawn_rows)
    columns = {"labels": labels, "sample_ids": ids, "group_ids": groups}
    found = score(codes.cuda(), **on_gpu(columns), exclude_group=True, map_at_r=False)
    expected = score(codes, **columns, exclude_group=True, map_at_r=False)
    assert found.values() == expected.values()
    assert same([found.neighbour_ids, found.rank], [expected.neighbour_ids, expected.rank])


def test_long_sums_stay_within_the_bound():
    """Few rows, wide: where cuBLAS likes to add parts of a sum, in bfloat16 if it may."""
    rows = comparable(torch.rand(64, 16_384, generator=drawn()).cuda(), torch.arange(64).cuda())
    ready = prepared(rows, torch.arange(64).cuda(), slice(0, 64))
    product = products(ready.cheapest(), ready.cheapest(), 1)
    cosine = ready.exact() @ ready.exact().T
    assert torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction, "as it was before"
    for column in range(64):
        value = product.values[:, column].float()
        assert (product.at_least(value).double() <= cosine[:, column]).all()
        assert (value >= product.reaching(cosine[:, column].float())).all()
