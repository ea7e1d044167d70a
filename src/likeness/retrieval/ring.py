"""Exact retrieval over several processes: each keeps its own codes, and those of the others come by, part by part.

What is known of every row beside its code is told to all; codes go round in a ring. Places by ascending id are the same
everywhere, so keys merge by their maximum and counts by their sum: all processes get the answer of one, by the rule of
``retrieval.neighbours``, bit for bit.

Memory of a process: its own codes, two parts of the others' (one that is here, one on its way), some 200 bytes for each
row there is anywhere, and three tiles. Nothing is rows x rows, and nobody has all codes. Each process works for the
rows that it has: with even shares, as samplers make them, all are ready at about the same time.

Tested over gloo; over NCCL it has not yet run.

Axes: n rows of this process, m distinct rows of all processes by ascending id, p some of them, k neighbours kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

from likeness.errors import LikenessError
from likeness.retrieval.facts import Facts, once
from likeness.retrieval.filtering import prepared
from likeness.retrieval.hits import Party, count_rivals, counting, side, take_best
from likeness.retrieval.neighbours import apart, no_keys, queries_at_once, read_keys, rows_at_once, search, tile_budget
from likeness.retrieval.rows import Rows, blocks, comparable, count_candidates, refusal, refuse_too_few, refuse_zero

Found = TypeVar("Found")


@dataclass(frozen=True)
class Ring:
    """The processes that work together, of which this is one; alone by default."""

    rank: int = 0
    world: int = 1
    group: Any = None

    def told(self, mine: Found) -> list[Found]:
        """What each process says, by rank; tensors have to be on the CPU."""
        every = [mine] * self.world
        if self.world > 1:
            dist.all_gather_object(every, mine, self.group)
        return every

    def together(self, find: Callable[[], Found]) -> Found:
        """What this process finds; where any refuses, all raise the first one's LikenessError, so that none waits."""
        found, fault = None, None
        try:
            found = find()
        except LikenessError as error:
            fault = error
        for each in self.told(fault):
            if each is not None:
                raise each
        return cast(Found, found)

    def shared_out(self, count: int, find: Callable[[slice], dict[str, Any]]) -> dict[str, Any]:
        """What is found of each of ``count`` queries, every process looking at a part; tensors on the CPU, or None."""
        mine = slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)
        told = self.told(self.together(lambda: find(mine)))
        return {
            name: None if first is None else torch.cat([each[name] for each in told]) for name, first in told[0].items()
        }

    def alike(self, codes: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """These codes in the width and the precision that all processes' codes have; without any, as they are.

        Raises:
            LikenessError: RETRIEVAL, in all processes, when their codes differ in width.
        """
        kinds = [kind for kind in self.told((codes.shape[1], codes.dtype) if len(codes) else None) if kind]
        widths = sorted({width for width, _ in kinds})
        if len(widths) > 1:
            raise refusal(f"codes are {widths} wide in different processes.", "Make all with the same head.")
        codes = codes if len(codes) or not kinds else codes.new_zeros(0, widths[0])
        return codes.double() if torch.float64 in {dtype for _, dtype in kinds} else codes.float()

    def greatest(self, value: Int64[Tensor, "m"]) -> Int64[Tensor, "m"]:
        """The greatest of all processes' values, written in place."""
        if self.world > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX, self.group)
        return value

    def summed(self, value: Int64[Tensor, "m"]) -> Int64[Tensor, "m"]:
        """The sum of all processes' values, written in place."""
        if self.world > 1:
            dist.all_reduce(value, dist.ReduceOp.SUM, self.group)
        return value

    def visits(self, codes: Float[Tensor, "n d"], sizes: list[int], steps: int) -> Iterator[tuple[int, Tensor]]:
        """This process's codes, then those of so many ranks before it, each with its rank; the next is on its way."""
        for step in range(steps + 1):
            arriving, under_way = codes[:0], []
            if step < steps:
                arriving = codes.new_empty(sizes[(self.rank - step - 1) % self.world], codes.shape[1])
                under_way = self._passed_on(codes, arriving)
            yield (self.rank - step) % self.world, codes
            for work in under_way:
                work.wait()
            codes = arriving

    def _passed_on(self, codes: Tensor, arriving: Tensor) -> list[Any]:
        ends = ((dist.isend, codes, self.rank + 1), (dist.irecv, arriving, self.rank - 1))
        moves = [dist.P2POp(move, rows, self._named(to), self.group) for move, rows, to in ends if len(rows)]
        return dist.batch_isend_irecv(moves) if moves else []

    def _named(self, rank: int) -> int:
        """What a rank is called among all processes of the job."""
        rank %= self.world
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


ALONE = Ring()


def ring_of(group: Any = None) -> Ring:
    """The processes of a group of ``torch.distributed``; all by default."""
    return Ring(dist.get_rank(group), dist.get_world_size(group), group)


@dataclass(frozen=True, eq=False)
class Known:
    """The distinct rows of all processes by ascending id: all about them, but of the codes only this process's.

    Attributes:
        facts, is_zero: Of every row. What is zero meets nobody.
        groups: None where they keep no rows apart.
        owner: The rank that has the row's code.
        own: The rows of this process.
    """

    ring: Ring
    facts: Facts
    is_zero: Bool[Tensor, "m"]
    groups: Int64[Tensor, "m"] | None
    owner: Int64[Tensor, "m"]
    own: Rows

    @property
    def asked(self) -> Bool[Tensor, "m"]:
        return self.facts.is_query.bool() & ~self.is_zero

    @property
    def searched(self) -> Bool[Tensor, "m"]:
        return self.facts.is_gallery.bool() & ~self.is_zero

    def without_codes(self) -> Rows:
        """All rows, for what does not look at their codes."""
        length = torch.ones_like(self.owner, dtype=torch.float64)
        return Rows(self.own.codes.new_zeros(len(length), 0), length, self.is_zero, self.facts.ids, self.groups)

    def visits(self, steps: int) -> Iterator[tuple[int, Int64[Tensor, "p"], Rows]]:
        """What ``Ring.visits`` brings: rank, places and rows. Those that can meet nobody stay at home."""
        travels = self.asked | self.searched
        places = [((self.owner == rank) & travels).nonzero()[:, 0] for rank in range(self.ring.world)]
        mine = self.own.where(travels[self.owner == self.ring.rank])
        for rank, codes in self.ring.visits(mine.codes, [len(at) for at in places], steps):
            at = places[rank]
            groups = None if self.groups is None else self.groups[at]
            yield rank, at, mine if rank == self.ring.rank else comparable(codes, self.facts.ids[at], groups)


@torch.no_grad()
def known(ring: Ring, codes: Float[Tensor, "n d"], facts: Facts, exclude_group: bool) -> Known:
    """What there is in all processes. Of rows with one id the first is kept: that of the lowest rank.

    Raises:
        LikenessError: RETRIEVAL, in all processes, when rows with one id differ in anything but their codes, and when
            codes are not finite or not equally wide.
    """
    codes = ring.alike(codes)
    told = [table.to(codes.device) for table in ring.told(facts.table().cpu())]
    every = Facts(*torch.cat(told).T)
    first = once(every)
    every = every.take(first)
    ends = torch.tensor([len(table) for table in told], device=codes.device).cumsum(0)
    owner = torch.searchsorted(ends, first, right=True)
    mine, groups = owner == ring.rank, every.groups if exclude_group else None
    kept = codes[first[mine] - (ends[ring.rank] - len(codes))]
    own = ring.together(lambda: comparable(kept, every.ids[mine], None if groups is None else groups[mine]))
    is_zero = torch.empty_like(mine)
    for rank, zero in enumerate(ring.told(own.is_zero.cpu())):
        is_zero[owner == rank] = zero.to(codes.device)
    return Known(ring, every, is_zero, groups, owner, own)


@torch.no_grad()
def rivals_above(
    every: Known, k: int, *, ties_are_above: bool = False, tile_bytes: int | None = None
) -> Int64[Tensor, "m"]:
    """``hits.rivals_above`` of each row that asks, ``k`` for one that does not; the same in all processes.

    The ring is gone half round, twice: for the best row of each label, then for the rivals above it.
    """
    tile_bytes = tile_budget(every.owner.device, tile_bytes)
    best_m = no_keys(len(every.owner), 1, every.owner.device).squeeze(1)
    _, at, rows = next(every.visits(0))
    mine = _party(every, at, rows, tile_bytes)
    for one, other in _meetings(every, mine, tile_bytes):
        take_best(best_m, one, other, tile_bytes)
    count = counting(every.ring.greatest(best_m), k, ties_are_above)
    for one, other in _meetings(every, mine, tile_bytes):
        count_rivals(count, one, other, tile_bytes)
    return every.ring.summed(count.above).clamp_(max=k)


def _meetings(every: Known, mine: Party, tile_bytes: int) -> Iterator[tuple[Party, Party]]:
    """This process's share of all pairs of parts: each meets in one process, or a half of it in each of two."""
    ring, visits = every.ring, every.visits(every.ring.world // 2)
    _, own_at, own = next(visits)
    yield mine, mine
    for step, (rank, at, rows) in enumerate(visits, start=1):
        if 2 * step < ring.world:
            yield mine, _party(every, at, rows, tile_bytes)
        elif ring.rank < rank:  # both are with each other: all here with the first half there,
            first = slice(len(at) // 2)
            yield mine, _party(every, at[first], rows.take(first), tile_bytes)
        else:  # and there the second half with all
            second = slice(len(own_at) // 2, None)
            half = _party(every, own_at[second], own.take(second), tile_bytes)
            yield half, _party(every, at, rows, tile_bytes)


def _party(every: Known, at: Int64[Tensor, "p"], rows: Rows, tile_bytes: int) -> Party:
    label_p, asked_p, searched_p = every.facts.labels[at], every.asked[at], every.searched[at]
    queries = gallery = side(rows.where(asked_p), label_p[asked_p], at[asked_p], tile_bytes)
    if not torch.equal(asked_p, searched_p):
        gallery = side(rows.where(searched_p), label_p[searched_p], at[searched_p], tile_bytes)
    return Party(queries, gallery)


class Nearest(NamedTuple):
    """The nearest rows of all processes to each row of this one, nearest first.

    Attributes:
        query_ids: Of this process's rows, ascending; one that another process of lower rank has too is asked there.
        similarities: Cosine in [-1, 1].
        ids: Of the neighbours.
    """

    query_ids: Int64[Tensor, "q"]
    similarities: Float32[Tensor, "q k"]
    ids: Int64[Tensor, "q k"]


@torch.no_grad()
def neighbours(
    ring: Ring,
    codes: Float[Tensor, "n d"],
    ids: Int[Tensor, "n"],
    k: int,
    *,
    groups: Int[Tensor, "n"] | None = None,
    tile_bytes: int | None = None,
) -> Nearest:
    """``neighbours.neighbours`` among the rows of all processes, which call it together; the ring is gone all round.

    Raises:
        LikenessError: RETRIEVAL, in all processes, as ``neighbours.neighbours`` and ``known`` do.
    """
    none, one = torch.zeros_like(ids), torch.ones_like(ids)
    facts = Facts(ids, none, none - 1 if groups is None else groups.clamp(min=-1), one, one)
    facts = Facts(*(column.to(codes.device, torch.int64) for column in facts))
    every = known(ring, codes, facts, exclude_group=groups is not None)
    ring.together(lambda: _refuse_unanswerable(every, k))
    tile_bytes = tile_budget(codes.device, tile_bytes)
    own, place_q = every.own, (every.owner == ring.rank).nonzero().squeeze(1)
    key_qk = no_keys(len(own), k, codes.device)
    for _, at, rows in every.visits(ring.world - 1):
        for part in blocks(len(rows), rows_at_once(rows.codes, tile_bytes)) if len(rows) else ():
            gallery = prepared(rows, at, part)
            for block in blocks(len(own), queries_at_once(len(gallery), tile_bytes)):
                search(prepared(own, place_q, block), gallery, key_qk[block], apart, tile_bytes)
    similarities, place_qk = read_keys(key_qk)
    return Nearest(own.ids, similarities, every.facts.ids[place_qk])


def _refuse_unanswerable(every: Known, k: int) -> None:
    refuse_zero(every.own, "query")
    refuse_too_few(k, count_candidates(every.own, every.without_codes()), every.own.ids)
