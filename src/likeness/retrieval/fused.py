"""The greatest product of each block of rows, without a product ever written to memory: a kernel in Triton.

What ``filtering.products`` and ``filtering.in_blocks`` do between them, for bfloat16 on a GPU. There the table of
products is most of the traffic: written once and read twice it costs as much as multiplying. Here a tile of products
stays in registers, in float32 and not rounded, so that ``u`` is 0; of each block of columns only the greatest is
written. The few blocks that are looked into are multiplied again.

LIKENESS_FUSED=1 turns it on. Not yet run on a GPU: what it computes is tested by Triton's interpreter, and before its
first use on a device ``check`` compares it with float64 there.

Axes: q queries, g gallery rows, b blocks, h blocks that are looked into, s rows of a block, n rows of either kind,
d width of a code.
"""

from functools import partial
from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from likeness.retrieval.filtering import Maxima, Rounded
from likeness.retrieval.forbidding import Columns

_DEPTH = 64  # columns of codes that are multiplied at a time
_ALONG = 16  # tiles of queries that go along the gallery together, and find its rows in the cache


class _Tile(NamedTuple):
    queries: int
    rows: int
    warps: int
    stages: int

    def shared_bytes(self) -> int:
        return 2 * (self.queries + self.rows) * _DEPTH * self.stages


_LARGE, _SMALL = _Tile(256, 128, 8, 3), _Tile(128, 128, 8, 2)
# Of each width, rather than again for a last tile that has a row less.
_compiled_once = triton.jit(
    do_not_specialize=["count_q", "count_g", "count_h", "apart"],
    do_not_specialize_on_alignment=list(Columns._fields),
)


@triton.jit
@no_type_check  # its arguments are pointers and blocks, for which there are no types
def _without(products, number_q, number_g, at_q, at_g, agree: tl.constexpr):
    """-inf where two numbers are equal; with ``agree`` where they are not."""
    mine, its = tl.load(number_q + at_q), tl.load(number_g + at_g)
    return tl.where((mine != its) if agree else (mine == its), float("-inf"), products)


@triton.jit
@no_type_check
def _meeting(products, differ_q, differ_g, group_q, group_g, agree_q, agree_g, at_q, at_g):
    """-inf where ``forbidding.Columns`` say that two may not meet."""
    products = _without(products, differ_q, differ_g, at_q, at_g, False)
    if group_q is not None:
        products = _without(products, group_q, group_g, at_q, at_g, False)
    if agree_q is not None:
        products = _without(products, agree_q, agree_g, at_q, at_g, True)
    return products


@_compiled_once
@no_type_check
def _maxima(
    query, row, greatest, differ_q, differ_g, group_q, group_g, agree_q, agree_g, count_q, count_g, apart,
    width: tl.constexpr, size: tl.constexpr, queries: tl.constexpr, rows: tl.constexpr, depth: tl.constexpr,
    along: tl.constexpr,
):  # fmt: skip
    """Of a tile of queries and rows; the rows of a block lie ``apart``."""
    tile, tiles_q, tiles_b = tl.program_id(0), tl.cdiv(count_q, queries), tl.cdiv(apart, rows // size)
    first_q = tile // (along * tiles_b) * along
    together = tl.minimum(tiles_q - first_q, along)
    first_q = (first_q + tile % (along * tiles_b) % together) * queries
    first_b = tile % (along * tiles_b) // together * (rows // size)
    within = tl.arange(0, rows)
    block = first_b + within // size
    at_q, at_g = first_q + tl.arange(0, queries), within % size * apart + block
    is_row = (block < apart) & (at_g < count_g)
    # What is beyond the last is read from the last, and left out in the end.
    at_q, at_g = tl.minimum(at_q, count_q - 1), tl.where(is_row, at_g, count_g - 1)
    from_q, from_g = at_q.to(tl.int64)[:, None] * width, at_g.to(tl.int64)[None, :] * width
    products = tl.zeros((queries, rows), tl.float32)
    for start in range(0, width, depth):
        column = start + tl.arange(0, depth)
        codes_q = tl.load(query + from_q + column[None, :], mask=column[None, :] < width, other=0.0)
        codes_g = tl.load(row + from_g + column[:, None], mask=column[:, None] < width, other=0.0)
        products = tl.dot(codes_q, codes_g, products)
    products = _meeting(products, differ_q, differ_g, group_q, group_g, agree_q, agree_g, at_q[:, None], at_g[None, :])
    products = tl.where(is_row[None, :], products, float("-inf"))
    own_q, own_b = first_q + tl.arange(0, queries)[:, None], first_b + tl.arange(0, rows // size)[None, :]
    most = tl.full((queries, rows // size), float("-inf"), tl.float32)
    for i in tl.static_range(rows // size):  # a reshape would send all products through shared memory
        of_block = tl.max(tl.where((within // size == i)[None, :], products, float("-inf")), axis=1)
        most = tl.where(own_b == first_b + i, of_block[:, None], most)
    tl.store(greatest + own_q.to(tl.int64) * apart + own_b, most, mask=(own_q < count_q) & (own_b < apart))


@_compiled_once
@no_type_check
def _inside(
    query, row, product, query_h, block_h, differ_q, differ_g, group_q, group_g, agree_q, agree_g,
    count_h, count_g, apart,
    width: tl.constexpr, size: tl.constexpr, blocks: tl.constexpr, depth: tl.constexpr,
):  # fmt: skip
    """The products of some queries, each with the rows of one block."""
    here = tl.program_id(0).to(tl.int64) * blocks + tl.arange(0, blocks)
    at_h = tl.minimum(here, count_h - 1)
    at_q = tl.load(query_h + at_h)
    member = tl.arange(0, size)[None, :]
    at_g = member * apart + tl.load(block_h + at_h)[:, None]
    is_row = at_g < count_g
    at_g = tl.where(is_row, at_g, count_g - 1)
    products = tl.zeros((blocks, size), tl.float32)
    for start in range(0, width, depth):
        column = start + tl.arange(0, depth)[None, :]
        codes_q = tl.load(query + at_q[:, None] * width + column, mask=column < width, other=0.0).to(tl.float32)
        column = column[:, None, :]
        codes_g = tl.load(row + at_g[:, :, None] * width + column, mask=column < width, other=0.0).to(tl.float32)
        products += tl.sum(codes_q[:, None, :] * codes_g, axis=2)
    products = _meeting(products, differ_q, differ_g, group_q, group_g, agree_q, agree_g, at_q[:, None], at_g)
    products = tl.where(is_row, products, float("-inf"))
    tl.store(product + here[:, None] * size + member, products, mask=here[:, None] < count_h)


class _Sides(NamedTuple):
    """What both kernels read."""

    query_qd: Float[Tensor, "q d"]
    row_gd: Float[Tensor, "g d"]
    columns: Columns
    size: int

    @property
    def apart(self) -> int:
        """How far the rows of a block lie from each other: the number of blocks."""
        return -(-len(self.row_gd) // self.size)


def in_blocks(queries: Rounded, gallery: Rounded, columns: Columns, size: int) -> Maxima:
    """The maximum of each block of ``size`` rows, as ``filtering.in_blocks`` has it, of products of who may meet."""
    query_qd, row_gd = _readable(queries), _readable(gallery)
    sides, tile = _Sides(query_qd, row_gd, columns.contiguous(), size), _tile(query_qd.device)
    greatest_qb = torch.empty(len(query_qd), sides.apart, device=query_qd.device)
    programs = triton.cdiv(len(query_qd), tile.queries) * triton.cdiv(sides.apart, tile.rows // size)
    with torch.cuda.device_of(query_qd):
        _maxima[(programs,)](
            query_qd, row_gd, greatest_qb, *sides.columns, len(query_qd), len(row_gd), sides.apart,
            width=query_qd.shape[1], size=size, queries=tile.queries, rows=tile.rows, depth=_DEPTH, along=_ALONG,
            num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=True,
        )  # fmt: skip
    return Maxima(greatest_qb, partial(_looked_up, sides))


def _looked_up(
    sides: _Sides, query_h: Int64[Tensor, "h"], block_h: Int64[Tensor, "h"]
) -> tuple[Int64[Tensor, "h s"], Float32[Tensor, "h s"]]:
    query_qd, row_gd, columns, size = sides
    product_hs = torch.empty(len(query_h), size, device=query_qd.device)
    together = 4 if query_qd.is_cuda else 256  # the interpreter takes its time for each program
    with torch.cuda.device_of(query_qd):
        _inside[(triton.cdiv(len(query_h), together),)](
            query_qd, row_gd, product_hs, query_h.contiguous(), block_h.contiguous(), *columns,
            len(query_h), len(row_gd), sides.apart,
            width=query_qd.shape[1], size=size, blocks=together, depth=_DEPTH, enable_fp_fusion=True,
        )  # fmt: skip
    return block_h[:, None] + sides.apart * torch.arange(size, device=block_h.device), product_hs


def _readable(low: Rounded) -> Float[Tensor, "n d"]:
    """One row after the other, none behind; in float32 for the interpreter, which takes bfloat16 for whole numbers."""
    rows = low.rows[: len(low.error)]
    return rows.contiguous() if rows.is_cuda else rows.float()


def _tile(device: torch.device) -> _Tile:
    if device.type != "cuda":
        return _SMALL
    room = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    return _LARGE if room >= _LARGE.shared_bytes() else _SMALL


def check(device: torch.device) -> None:
    """Compare both kernels with float64, on drawn rows.

    Raises:
        ArithmeticError: When a product lies farther from its value than sums in float32 can.
    """
    generator = torch.Generator().manual_seed(0)
    rows_nd = torch.randn(700, 200, generator=generator).to(device, torch.bfloat16)
    rounded, size = Rounded(rows_nd, torch.zeros(len(rows_nd), dtype=torch.float64, device=device)), 32
    place = torch.arange(len(rows_nd), device=device)
    found = in_blocks(rounded, rounded, Columns(place, place), size)
    exact_nd = rows_nd.double()
    exact_nn = (exact_nd @ exact_nd.T).fill_diagonal_(-torch.inf)
    greatest_n = exact_nd.norm(dim=1)
    bound = float(2 * rows_nd.shape[1] * 2.0**-24 * greatest_n.max() ** 2)
    padded_nw = torch.nn.functional.pad(exact_nn, (0, -len(place) % size), value=-torch.inf)
    _refuse_farther(found.values_qb, padded_nw.unflatten(1, (size, -1)).amax(1), bound)
    query_h, block_h = place, place % found.values_qb.shape[1]
    row_hs, product_hs = found.inside(query_h, block_h)
    _refuse_farther(product_hs, padded_nw[query_h[:, None], row_hs], bound)


def _refuse_farther(found: Float32[Tensor, "n m"], exact: Float64[Tensor, "n m"], bound: float) -> None:
    near = ((found - exact).abs() <= bound) | ((found == -torch.inf) & (exact == -torch.inf))
    if not near.all():
        raise ArithmeticError(f"{int((~near).sum())} of {near.numel()} products are farther off than {bound:.1e}")
