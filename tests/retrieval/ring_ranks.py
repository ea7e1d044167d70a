"""Retrieval under 2, 3 and 4 gloo processes. Run as a script, this file is all of them."""

import os
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from likeness.errors import LikenessError
from likeness.retrieval.metric import SimilarityRetrieval
from likeness.retrieval.neighbours import TILE_BYTES
from likeness.retrieval.ring import neighbours, ring_of
from likeness.runs.processes import told_apart

WORLD = 4
WORLDS = (2, 3, 4)
SHARES = ("unequal", "nothing on the first", "copies", "a label in one place")


class Rows(NamedTuple):
    codes: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor
    homes: torch.Tensor
    is_query: torch.Tensor
    is_gallery: torch.Tensor

    def take(self, which):
        return Rows(*(column[which] for column in self))


def rows(n, width, seed, codes=None):
    """Few directions, and so ties; ids without order; every fifth home unknown; all rows in both roles."""
    generator = torch.Generator().manual_seed(seed)
    if codes is None:
        codes = torch.randint(-2, 3, (n, width), generator=generator).float()
        codes[codes.abs().sum(1) == 0, 0] = 1
    labels, homes = torch.randint(0, 4, (n,), generator=generator), torch.randint(-1, n // 4, (n,), generator=generator)
    everywhere = torch.ones(n, dtype=torch.bool)
    return Rows(codes, labels, torch.randperm(3 * n, generator=generator)[:n], homes, everywhere, everywhere)


class Case(NamedTuple):
    """``own`` is whether each row has neighbours; ``tile_bytes`` is for hits and neighbours."""

    name: str
    rows: Rows
    options: dict[str, Any]
    own: bool = True
    tile_bytes: int = TILE_BYTES


def cases():
    plain = rows(41, 3, 0)
    yield Case("ties by id", plain, {})
    yield Case("pessimistic ties", plain, {"ties": "pessimistic"})
    yield Case("homes apart", rows(43, 3, 1), {"exclude_group": True})
    zero = plain.codes * (torch.arange(41) % 6 > 0)[:, None]
    yield Case("zero codes", plain._replace(codes=zero), {"ties": "pessimistic"}, own=False)
    roles = plain._replace(is_query=torch.arange(41) % 3 > 0, is_gallery=torch.arange(41) % 3 < 2)
    yield Case("roles", roles, {"vote_weights": "similarity"}, own=False)
    yield Case("one label each", plain._replace(labels=torch.arange(41)), {})
    drawn = torch.randn(2300, 8, generator=torch.Generator().manual_seed(2))
    yield Case("more than is prepared at once", rows(2300, 8, 3, drawn), {"map_at_r": False}, tile_bytes=2**17)
    yield Case("told apart in float64 alone", rows(300, 8, 4, 1 + 1e-4 * drawn[:300]), {"exclude_group": True})
    yield Case("float64", plain._replace(codes=plain.codes.double() / 3), {})


def tried():
    """Each case with each kind of shares; the number of processes takes turns."""
    for number, case in enumerate(cases()):
        for turn, kind in enumerate(SHARES):
            yield case, kind, WORLDS[(number + turn) % len(WORLDS)]


def shares(kind, n, labels, world):
    """Which rows each process has."""
    every = torch.arange(n)
    if kind == "unequal":
        return list(every.tensor_split([n >> power for power in range(world - 1, 0, -1)]))  # ..., a quarter, half
    if kind == "nothing on the first":
        return [every[:0], *every.chunk(world - 1)]
    if kind == "a label in one place":
        return list(labels.argsort(stable=True).tensor_split(world))
    parts = list(every.tensor_split(world))
    return [torch.cat([part, before[-5:]]) for part, before in zip(parts, [every[:0], *parts], strict=False)]


def shared(table, kind, world):
    """Each process's rows. A copy of what a lower rank has is another code: it must not count."""
    owned = [table.take(which) for which in shares(kind, len(table.ids), table.labels, world)]
    if kind == "copies":
        return [part._replace(codes=_turned(part.codes, 5 * (rank > 0))) for rank, part in enumerate(owned)]
    return owned


def _turned(codes, last):
    return torch.cat([codes[: len(codes) - last], -codes[len(codes) - last :]])


def computed(metric, mine, batch=70):
    for which in torch.arange(len(mine.ids)).split(batch):
        if len(which):
            metric.update(*mine.take(which))
    return {name: value.item() for name, value in metric.compute().items()}


def found(group, case, kind, world):
    """What one process says: hits, all measures and every query's neighbours, and its own rows' neighbours."""
    mine = shared(case.rows, kind, world)[dist.get_rank(group)]
    only_hits = SimilarityRetrieval(only_hits=True, **case.options, tile_bytes=case.tile_bytes, process_group=group)
    metric = SimilarityRetrieval(**case.options, process_group=group)
    said = {"hits": computed(only_hits, mine), "values": computed(metric, mine)}
    scores = metric.scores()
    said |= {"rank": scores.rank, "neighbours": scores.neighbour_ids, "similarities": scores.similarities}
    if case.own:
        homes = mine.homes if case.options.get("exclude_group") else None
        ring, tile_bytes = ring_of(group), case.tile_bytes
        said["own"] = tuple(neighbours(ring, mine.codes, mine.ids, 5, groups=homes, tile_bytes=tile_bytes))
    return said


def refused():
    """What each process is told where one of them has rows that cannot be."""
    plain = rows(24, 3, 5)
    last = dist.get_rank() == WORLD - 1
    ours = plain.take(torch.arange(24).tensor_split(WORLD)[dist.get_rank()])
    first = plain.take(torch.arange(1))
    endless, copied = torch.full((6, 3), torch.inf), Rows(*map(torch.cat, zip(ours, first, strict=True)))
    yield "an infinite code", ours._replace(codes=endless) if last else ours, {}
    yield "another label", copied._replace(labels=copied.labels + 1) if last else ours, {}
    yield "another width", ours._replace(codes=ours.codes[:, :2]) if last else ours, {}
    yield "too few", ours, {"ks": (1, 24)}


def message(metric, mine):
    try:
        computed(metric, mine)
    except LikenessError as fault:
        return str(fault)
    return "nothing"


def left_alone(rank):
    """The second process goes while the others' codes are on their way."""
    ring = ring_of()
    try:
        with told_apart():
            for whose, _ in ring.visits(torch.zeros(100_000, 8), [100_000] * WORLD, WORLD - 1):
                if rank == 1 and whose != rank:
                    os._exit(3)
            ring.told(None)
    except LikenessError as fault:
        return fault.code
    return "nothing"


def process(rank, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    meeting, patience = f"file://{folder}/meeting", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=patience)
    groups = {world: dist.new_group(list(range(WORLD - world, WORLD))) for world in WORLDS}
    said = {
        f"{case.name}, {kind}": found(groups[world], case, kind, world)
        for case, kind, world in tried()
        if rank >= WORLD - world
    }
    for name, mine, options in refused():
        said[name] = [message(SimilarityRetrieval(only_hits=hits, **options), mine) for hits in (True, False)]
    torch.save(said, Path(folder, f"{rank}.pt"))
    dist.barrier()
    Path(folder, f"{rank}.txt").write_text(left_alone(rank))


if __name__ == "__main__":
    context = torch.multiprocessing.get_context("fork")  # after the imports, which take longer than all the rest
    ranks = [context.Process(target=process, args=(rank, sys.argv[1])) for rank in range(WORLD)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join()
    sys.stdout.write(" ".join(str(each.exitcode) for each in ranks))
