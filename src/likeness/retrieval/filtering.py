"""A cheap product that says which pairs are worth an exact one.

Unit rows x are rounded to x̂ in bfloat16 (where the processor multiplies it) or float32, and multiplied. The rounded
product v of two rows lies near their cosine s:

    |s - v| <= |x - x̂| + |x̂||y - ŷ| + γ|x̂||ŷ| + u|v|

by Cauchy and Schwarz; γ = 2d·2⁻²⁴ bounds what summing d products in float32 costs (Higham 2002, "Accuracy and Stability
of Numerical Algorithms", 3.1, doubled for units that round within a sum), u the rounding of v itself. So a pair can
reach a threshold only where v comes within that bound of it; those few are multiplied again in float64.

Axes: q queries, g gallery rows, w those and zero rows up to whole blocks, b blocks of gallery rows, h blocks that are
looked into, s rows of a block, p pairs, d width of a code, n rows of either kind.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Num
from torch import Tensor

from likeness.errors import LikenessError
from likeness.retrieval.rows import Rows, blocks, rows_together, settled

_RESULT_ROUNDING = {torch.bfloat16: 2.0**-8, torch.float32: 0.0}
_FLOAT32_STEP = 1e-6  # the rule rounds cosines, and these bounds are reckoned in float32
_LARGEST_BLOCK, _SMALLEST_BLOCK = 32, 4
_BLOCKS_PER_NEIGHBOUR = 16
_FEWEST_TELLING = 16
_COARSER = 8


class Rounded(NamedTuple):
    """Unit rows in a lower precision, perhaps with zero rows behind them.

    ``error`` is the length of what rounding took from each.
    """

    rows: Float[Tensor, "w d"]
    error: Float64[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows, rounded, and where they stand.

    Attributes:
        place: Of each row among all gallery rows by ascending id; -1 for a query that is not among them.
        labels: None where they decide nothing.
        unit: The rows at unit length, where they are kept: for as many exact products as there are rows.
        useless: Precisions in which these rows, as a gallery, were found too alike to be told apart.
    """

    rows: Rows
    rounded: dict[torch.dtype, Rounded]
    place: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"] | None = None
    unit: Float64[Tensor, "n d"] | None = None
    useless: set[torch.dtype] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.place)

    def take(self, which: slice | Int64[Tensor, "m"]) -> "Prepared":
        rounded = {dtype: Rounded(low.rows[which], low.error[which]) for dtype, low in self.rounded.items()}
        labels, unit = (None if column is None else column[which] for column in (self.labels, self.unit))
        return Prepared(self.rows.take(which), rounded, self.place[which], labels, unit, self.useless)

    def some(self, which: Int64[Tensor, "m"]) -> "Prepared":
        """The rows at these ascending positions; itself where that is all."""
        return self if len(which) == len(self) else self.take(which)

    def exact(self) -> Float64[Tensor, "n d"]:
        """The rows at unit length."""
        return self.rows.unit() if self.unit is None else self.unit

    def in_precision(self, dtype: torch.dtype) -> Rounded:
        """Made when it is first asked for."""
        if dtype not in self.rounded:
            unit_of = self.rows.unit if self.unit is None else self.unit.__getitem__
            self.rounded[dtype] = _rounded(unit_of, self.rows, dtype)
        return self.rounded[dtype]

    def cheapest(self) -> Rounded:
        """In the precision that is tried first."""
        return self.in_precision(precisions(self.place.device)[0])


def prepared(
    rows: Rows,
    place: Int64[Tensor, "n"],
    which: slice | Int64[Tensor, "m"],
    labels: Int64[Tensor, "n"] | None = None,
    keep_unit: bool = True,
) -> Prepared:
    """The chosen rows, ready to be multiplied in the cheapest precision, and with ``keep_unit`` exactly."""
    chosen, dtype = rows.take(which), precisions(rows.codes.device)[0]
    unit = torch.empty_like(chosen.codes, dtype=torch.float64) if keep_unit else None

    def unit_of(block: slice) -> Tensor:
        exact = chosen.unit(block)
        if unit is not None:
            unit[block] = exact
        return exact

    rounded = {dtype: _rounded(unit_of, chosen, dtype)}
    return Prepared(chosen, rounded, place[which], None if labels is None else labels[which], unit)


def _rounded(unit_of: Callable[[slice], Float64[Tensor, "b d"]], rows: Rows, dtype: torch.dtype) -> Rounded:
    """Block by block, with zero rows up to whole blocks of any size behind."""
    count, width = rows.codes.shape
    low = torch.zeros(_whole(count, _LARGEST_BLOCK), width, dtype=dtype, device=rows.codes.device)
    error = torch.empty_like(rows.length)
    for block in blocks(count, rows_together(rows.codes)):
        exact = unit_of(block)
        low[block] = exact
        error[block] = torch.linalg.vector_norm(exact - low[block], dim=1)
    return Rounded(low, error)


def _whole(count: int, size: int) -> int:
    return -(-count // size) * size


def precisions(device: torch.device) -> tuple[torch.dtype, ...]:
    """In which to filter, the cheapest first: bfloat16 where this device multiplies it in hardware."""
    if device.type == "cuda":
        return (torch.bfloat16,)  # float64 is as fast as float32 there, without TF32
    if torch.cpu._is_avx512_bf16_supported():
        return (torch.bfloat16, torch.float32)
    return (torch.float32,)


def through_precisions(
    queries: Int64[Tensor, "q"],
    gallery: Prepared,
    attempt: Callable[[Int64[Tensor, "q"], torch.dtype], Bool[Tensor, "q"]],
) -> Int64[Tensor, "l"]:
    """The queries that no precision settles: ``attempt`` is given those that are left, and says which stay so.

    A precision that leaves most of many is not tried again with these rows; few queries say nothing of the rows.
    """
    for dtype in precisions(queries.device):
        if not len(queries) or dtype in gallery.useless:
            continue
        hard_q = attempt(queries, dtype)
        if len(queries) >= _FEWEST_TELLING and 2 * int(hard_q.sum()) > len(queries):
            gallery.useless.add(dtype)
        queries = queries[hard_q]
    return queries


class Products(NamedTuple):
    """Rounded products, -inf for what is no row, and how far the cosines can lie from them.

    That is ``slack``, and a share ``u`` of the product.
    """

    values: Float[Tensor, "q w"]
    slack: Float32[Tensor, "q"]
    u: float

    def at_least(self, value_q: Float32[Tensor, "q"]) -> Float32[Tensor, "q"]:
        """What the cosine is at least, if the product is this."""
        # Not less u times its absolute value: with u = 0 and nothing found that would be 0 · inf.
        return torch.where(value_q > 0, 1 - self.u, 1 + self.u) * value_q - self.slack

    def reaching(self, cosine_q: Float32[Tensor, "q"]) -> Float32[Tensor, "q"]:
        """The smallest product whose cosine may be this much."""
        rest_q = cosine_q - self.slack
        return rest_q / torch.where(rest_q > 0, 1 + self.u, 1 - self.u)

    def exceeding(self, cosine_q: Float32[Tensor, "q"]) -> Float32[Tensor, "q"]:
        """Above this product the cosine is surely greater."""
        rest_q = cosine_q + self.slack
        return rest_q / torch.where(rest_q > 0, 1 - self.u, 1 + self.u)


def products(queries: Rounded, gallery: Rounded, size: int) -> Products:
    """Every query with every row of the gallery, and with nothing up to whole blocks of ``size``."""
    count = len(gallery.error)
    padding = _whole(count, size) - count
    rows_wd = gallery.rows[: count + padding]
    if len(rows_wd) < count + padding:
        rows_wd = torch.nn.functional.pad(gallery.rows, (0, 0, 0, padding))
    with torch.autocast(rows_wd.device.type, enabled=False), _summed_in_float32(rows_wd.device):
        values = _multiplied(queries.rows[: len(queries.error)], rows_wd)
    values[:, count:] = -torch.inf
    return Products(values, slack(queries, gallery), _RESULT_ROUNDING[rows_wd.dtype])


def _multiplied(rows_qd: Float[Tensor, "q d"], rows_wd: Float[Tensor, "w d"]) -> Float[Tensor, "q w"]:
    """In float32 on a CPU by oneDNN: there MKL, which torch would take, is half as fast on processors of AMD."""
    if rows_wd.device.type == "cpu" and rows_wd.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.nn.functional.linear(rows_qd.to_mkldnn(), rows_wd).to_dense()
    return rows_qd @ rows_wd.T


@contextmanager
def _summed_in_float32(device: torch.device) -> Iterator[None]:
    """Long sums of bfloat16 products as the bound has them; cuBLAS may else round parts of a sum to bfloat16."""
    matmul = torch.backends.cuda.matmul
    if device.type != "cuda" or not matmul.allow_bf16_reduced_precision_reduction:
        yield
        return
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_bf16_reduced_precision_reduction = True


def slack(queries: Rounded, gallery: Rounded) -> Float32[Tensor, "q"]:
    """The part of the bound that does not depend on the product, for the worst row of the gallery."""
    worst = gallery.error.max() if len(gallery.error) else 0.0
    summing = 2 * queries.rows.shape[1] * 2.0**-24
    slack_q = queries.error + (1 + queries.error) * (worst + summing * (1 + worst)) + _FLOAT32_STEP
    return slack_q.float()


def block_size(gallery: int, k: int) -> int | None:
    """How many rows share a maximum, so that ``k`` maxima say something of the k-th row; None for too few rows."""
    size = _LARGEST_BLOCK
    while gallery < size * _BLOCKS_PER_NEIGHBOUR * k and size >= _SMALLEST_BLOCK:
        size //= 2
    return size if size >= _SMALLEST_BLOCK else None


class Maxima(NamedTuple):
    """The greatest product of each block of columns; block j has the columns j, j + b, j + 2b and so on.

    ``inside`` gives the columns [h, s] of the blocks (query [h], block [h]), and their products [h, s].
    """

    values_qb: Float32[Tensor, "q b"]
    inside: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def in_blocks(values_qw: Float[Tensor, "q w"], size: int) -> Maxima:
    """The maximum of each block, on a CPU by halving: many times as fast as a reduction along the rows."""
    if padding := -values_qw.shape[1] % size:
        values_qw = torch.nn.functional.pad(values_qw, (0, padding), value=-torch.inf)
    found, look = values_qw, partial(_looked_up, values_qw, values_qw.shape[1] // size)
    if found.is_cuda:  # once over the table, not twice
        return Maxima(found.unflatten(1, (size, -1)).amax(1).float(), look)
    while size > 1:
        half, size = found.shape[1] // 2, size // 2
        found = torch.maximum(found[:, :half], found[:, half:])
    return Maxima(found.float(), look)


def _looked_up(
    table: Float[Tensor, "q w"], apart: int, query_h: Int64[Tensor, "h"], block_h: Int64[Tensor, "h"]
) -> tuple[Int64[Tensor, "h s"], Float32[Tensor, "h s"]]:
    to_row, to_column = table.stride()
    flat = table.as_strided((1 + (len(table) - 1) * to_row + (table.shape[1] - 1) * to_column,), (1,))
    column_hs = block_h[:, None] + torch.arange(0, table.shape[1], apart, device=block_h.device)
    return column_hs, flat[query_h[:, None] * to_row + column_hs * to_column].float()


def reached_by(values_qb: Float32[Tensor, "q b"], k: int) -> Float32[Tensor, "q"]:
    """What at least ``k`` rows reach: the k-th greatest of some maxima of blocks that share no row."""
    if values_qb.is_cuda and values_qb.shape[1] >= _COARSER * _BLOCKS_PER_NEIGHBOUR * k:
        values_qb = in_blocks(values_qb, _COARSER).values_qb  # topk reads its rows many times there
    return greatest(values_qb.clone(), k)[:, -1]


def greatest(value_qn: Num[Tensor, "q n"], k: int) -> Num[Tensor, "q k"]:
    """The ``k`` greatest of each row, the greatest first; the rest may be left in any order."""
    if value_qn.device.type != "cpu":
        return value_qn.topk(k).values
    # NumPy sorts with vector instructions: up to ten times as fast.
    values = value_qn.numpy()
    if cut := values.shape[1] - k:
        values.partition(cut, axis=1)
    values[:, cut:].sort(axis=1)
    return value_qn[:, cut:].flip(1)


def kernel_for(rows: Float[Tensor, "w d"], size: int = _LARGEST_BLOCK) -> ModuleType | None:
    """``retrieval.fused`` where LIKENESS_FUSED=1 asks for it, and its products were seen to be right on this device.

    For small blocks, of few rows, it is no gain.

    Raises:
        LikenessError: CONFIG when LIKENESS_FUSED is neither 0 nor 1.
    """
    asked = os.environ.get("LIKENESS_FUSED", "0")
    if asked not in ("0", "1"):
        raise LikenessError("CONFIG", f"LIKENESS_FUSED={asked}: it is 0 or 1.", fix="Set it to 1 for the fused kernel.")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own, by which kernels run on a CPU
    served = rows.dtype == torch.bfloat16 and size == _LARGEST_BLOCK and (rows.is_cuda or interpreted)
    if asked == "0" or not served:
        return None
    return _checked_kernel(rows.device)


@cache
def _checked_kernel(device: torch.device) -> ModuleType | None:
    try:
        from likeness.retrieval import fused

        fused.check(device)
    except Exception as error:  # no Triton, no compiler, too small a GPU: it has no type in common
        warnings.warn(
            f"LIKENESS_FUSED=1, and the kernel is no use on {device}: {type(error).__name__}: {error}\n"
            "Torch's own products are taken instead: slower, and with the same answers.",
            stacklevel=2,
        )
        return None
    return fused


def cosines(
    queries: Prepared, gallery: Prepared, query_p: Int64[Tensor, "p"], row_p: Int64[Tensor, "p"]
) -> Float32[Tensor, "p"]:
    """The cosine of each pair, multiplied in float64 and rounded; pairs in ascending order of queries."""
    unit_gd = gallery.unit
    if unit_gd is None:
        touched, row_p = row_p.unique(return_inverse=True)
        unit_gd = gallery.rows.unit(touched)
    if unit_gd.device.type != "cpu":
        return _gathered(queries.exact(), unit_gd, query_p, row_p)
    counts = torch.bincount(query_p, minlength=len(queries))
    ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    nothing, shape = torch.zeros(len(row_p), dtype=torch.float64), (len(queries), len(unit_gd))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        pairs = torch.sparse_csr_tensor(ends, row_p, nothing, shape, check_invariants=False)
        # Gathers and multiplies in one go: six times as fast as indexing both sides first.
        return settled(torch.sparse.sampled_addmm(pairs, queries.exact(), unit_gd.T, beta=0).values())


def _gathered(unit_qd: Tensor, unit_gd: Tensor, query_p: Tensor, row_p: Tensor) -> Float32[Tensor, "p"]:
    found = torch.empty(len(row_p), dtype=torch.float32, device=row_p.device)
    for part in blocks(len(row_p), max(1, 2**24 // unit_qd.shape[1])):
        found[part] = settled((unit_qd[query_p[part]] * unit_gd[row_p[part]]).sum(1))
    return found
