"""The kernels of retrieval.fused, run by Triton's interpreter on a CPU.

test_fused.py runs this file in a process of its own: Triton reads TRITON_INTERPRET once, when it is imported.
"""

import os

import numpy as np
import pytest
import torch
from retrieval.test_filtering import HARD, ROWS, WIDTH, drawn, gaussian, ranked, rivals_by_the_book, use

from likeness.retrieval import filtering, fused
from likeness.retrieval.filtering import Rounded, prepared
from likeness.retrieval.forbidding import Columns, Forbid
from likeness.retrieval.hits import rivals_above
from likeness.retrieval.neighbours import Gallery, neighbours
from likeness.retrieval.rows import comparable

assert os.environ["TRITON_INTERPRET"] == os.environ["LIKENESS_FUSED"] == "1"
NUMBERS = torch.arange(2000)


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    """How many rows each launch of the kernel had; none means that torch's products were taken."""
    use("both", monkeypatch)
    assert filtering.kernel_for(torch.zeros(1, 1, dtype=torch.bfloat16)) is fused
    real, sizes = fused.in_blocks, []

    def counted(queries, gallery, columns, size):
        sizes.append((len(queries.error), len(gallery.error), size))
        return real(queries, gallery, columns, size)

    monkeypatch.setattr(fused, "in_blocks", counted)
    return sizes


def small_numbers(rows, width, seed):
    """Products of these are whole and small, so that every order of summing gives the same."""
    codes = torch.randint(-3, 4, (rows, width), generator=drawn(seed)).bfloat16()
    return Rounded(codes, torch.zeros(rows, dtype=torch.float64))


def forbidden(columns):
    barred = columns.differ_q[:, None] == columns.differ_g
    if columns.group_q is not None:
        barred |= columns.group_q[:, None] == columns.group_g
    if columns.agree_q is not None:
        barred |= columns.agree_q[:, None] != columns.agree_g
    return barred


@pytest.mark.parametrize(
    ("queries", "rows", "width", "size"),
    [(1, 64, 3, 32), (130, 257, 65, 32), (128, 256, 64, 16), (300, 999, 100, 32), (2, 4099, 7, 32)],
)
@pytest.mark.parametrize("more", ["self alone", "groups", "labels", "both"])
def test_the_greatest_of_each_block_and_what_is_inside(queries, rows, width, size, more):
    low_q, low_g = small_numbers(queries, width, 0), small_numbers(rows, width, 1)
    groups = (torch.arange(queries) % 7, torch.arange(rows) % 7) if more in ("groups", "both") else (None, None)
    labels = (torch.arange(queries) % 3, torch.arange(rows) % 3) if more in ("labels", "both") else (None, None)
    columns = Columns(torch.arange(queries) + 5, torch.arange(rows), *groups, *labels)
    found = fused.in_blocks(low_q, low_g, columns, size)
    product = low_q.rows.double() @ low_g.rows.double().T
    product[forbidden(columns)] = -torch.inf
    blocks = -(-rows // size)
    padded = torch.nn.functional.pad(product, (0, blocks * size - rows), value=-torch.inf)
    expected = torch.stack([padded[:, block::blocks].amax(1) for block in range(blocks)], dim=1)
    assert torch.equal(found.values_qb.double(), expected)
    query = torch.tensor([0, queries - 1, queries // 2])
    block = torch.tensor([blocks - 1, 0, blocks // 2])
    row, value = found.inside(query, block)
    assert torch.equal(row, block[:, None] + blocks * torch.arange(size))
    assert torch.equal(value.double(), padded[query[:, None], row])
    assert [len(part) for part in found.inside(query[:0], block[:0])] == [0, 0]


@pytest.mark.parametrize("kind", HARD)
def test_neighbours_are_those_of_the_whole_matrix(kind, sizes):
    codes, ids = HARD[kind](), torch.randperm(3 * ROWS, generator=drawn(1))[:ROWS]
    groups = torch.randint(-1, ROWS // 5, (ROWS,), generator=drawn(2))
    cosine, order = ranked(codes, ids, groups)
    asked = torch.arange(0, ROWS, 8)
    columns = {"query_ids": ids[asked], "query_groups": groups[asked], "gallery_ids": ids, "gallery_groups": groups}
    found = neighbours(codes[asked], codes, 3, **columns)
    assert sizes[0] == (200, ROWS, 32)
    assert np.array_equal(found.indices.numpy(), order[asked, :3])
    assert np.array_equal(found.similarities.numpy(), np.take_along_axis(cosine[asked], order[asked, :3], 1))


def test_queries_that_are_no_rows_and_rows_that_are_not_allowed(sizes, monkeypatch):
    codes, ids = gaussian(), torch.randperm(3 * ROWS, generator=drawn(1))[:ROWS]
    asked = torch.randn(37, WIDTH, generator=drawn(4))
    allowed = torch.rand(ROWS, generator=drawn(5)) < 0.5
    kept = Gallery(codes, ids, tile_bytes=2**16)
    with_kernel = kept.neighbours(asked, 2), kept.neighbours(asked, 2, allowed=allowed)
    assert sizes == 2 * [*4 * [(8, 1024, 32)], (5, 1024, 32)]
    monkeypatch.setenv("LIKENESS_FUSED", "0")
    launches = len(sizes)
    without = kept.neighbours(asked, 2), kept.neighbours(asked, 2, allowed=allowed)
    assert len(sizes) == launches
    for found, expected in zip(with_kernel, without, strict=True):
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.similarities, expected.similarities)


def test_rivals_are_counted_as_in_the_whole_matrix(sizes):
    ids, label = torch.randperm(3 * ROWS, generator=drawn(1))[:ROWS], torch.arange(ROWS) % 3
    codes = gaussian() + 0.3 * torch.randn(3, WIDTH, generator=drawn(3))[label]
    groups = torch.randint(-1, ROWS // 5, (ROWS,), generator=drawn(2))
    cosine, order = ranked(codes, ids, groups)
    expected = rivals_by_the_book(cosine, order, np.equal.outer(label.numpy(), label.numpy()), False)
    rows, some = comparable(codes, ids, groups), torch.arange(0, ROWS, 8)
    found = rivals_above(rows.take(some), label[some], rows, label, 4)
    assert sizes, "the best row of the own label is searched with the kernel"
    assert np.array_equal(found.numpy(), expected[::8])


def test_the_kernel_is_left_out_where_its_products_are_wrong(monkeypatch):
    real = fused._readable
    monkeypatch.setattr(fused, "_readable", lambda low: (1 + 2**-9) * real(low))
    with pytest.raises(ArithmeticError, match="products are farther off than"):
        fused.check(torch.device("cpu"))
    filtering._checked_kernel.cache_clear()
    with pytest.warns(UserWarning, match="Torch's own products are taken instead"):
        assert filtering.kernel_for(torch.zeros(1, 1, dtype=torch.bfloat16)) is None
    filtering._checked_kernel.cache_clear()


def test_what_may_not_meet_is_said_to_both_alike():
    rows = comparable(gaussian(90), NUMBERS[:90], NUMBERS[:90] // 4 - 1)
    ready = prepared(rows, NUMBERS[:90], slice(0, 90), NUMBERS[:90] // 30)
    asked = ready.take(slice(20, 50))
    for forbid in (Forbid(), Forbid("own"), Forbid("other"), Forbid(barred=NUMBERS[:90] % 3 == 0)):
        product = torch.zeros(30, 90)
        forbid(product, asked, ready)
        assert torch.equal(product == -torch.inf, forbidden(forbid.columns(asked, ready)))
