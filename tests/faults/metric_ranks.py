"""The metric under 1 to 4 gloo processes, of any share and batch of rows. Run as a script, this file is all of them."""

import json
import math
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from likeness.retrieval.metric import SimilarityRetrieval

WORLD = 4
WORLDS = (1, 2, 3, 4)
SIZES = range(1, 18)
SHARES = ("strided and padded", "contiguous", "all on the last", "one each, the rest on the first")


def sample(n):
    """Ties, duplicates, negative cosines, a label with one picture, homes, a zero code."""
    generator = torch.Generator().manual_seed(n)
    codes = torch.randint(-2, 3, (n, 3), generator=generator).float()
    labels = torch.randint(0, 3, (n,), generator=generator)
    labels[-1] = 7
    homes = torch.randint(-1, 6, (n,), generator=generator)
    ids = torch.randperm(50, generator=generator)[:n]
    return codes, labels, ids, homes


def options(n):
    home = n % 3 == 0 and n > 8
    ties = "pessimistic" if n % 2 else "by_id"
    return {"ks": tuple(k for k in (1, 5, 10) if 2 * k < n) or (1,), "ties": ties, "exclude_group": home, "vote_k": 3}


def share(kind, n, rank, world):
    """The rows that one process sees."""
    rows = torch.arange(n)
    if kind == "contiguous":
        return rows[rank * n // world : (rank + 1) * n // world]
    if kind == "all on the last":
        return rows if rank == world - 1 else rows[:0]
    if kind == "strided and padded":
        return torch.arange(math.ceil(n / world) * world)[rank::world] % n
    return torch.cat([rows[rank : rank + 1], rows[world:] if rank == 0 else rows[:0]])


def cases(every):
    """Every share and batch of 1 to 4 rows for each size and number of processes, or of those two, in turn."""
    for world in WORLDS:
        for n in SIZES:
            pairs = [(kind, batch) for kind in SHARES for batch in range(1, 5)]
            for kind, batch in pairs if every else (pairs[(5 * (n + turn)) % 16] for turn in (world, world + 2)):
                yield world, n, kind, batch


def process(rank, folder, every):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    meeting, patience = f"file://{folder}/meeting", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=patience)
    groups = {world: dist.new_group(list(range(world))) for world in WORLDS}
    found = [[*case, *computed(groups[case[0]], rank, *case)] for case in cases(every) if rank < case[0]]
    nothing = SimilarityRetrieval()
    found.append([WORLD, 0, "nothing at all", 1, {name: value.item() for name, value in nothing.compute().items()}, []])
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def computed(group, rank, world, n, kind, batch):
    columns = sample(n)
    metric, hits = (SimilarityRetrieval(**options(n), only_hits=only, process_group=group) for only in (False, True))
    for rows in share(kind, n, rank, world).split(batch):
        if len(rows):
            metric.update(*(column[rows] for column in columns))
            hits.update(*(column[rows] for column in columns))
    values = {name: value.item() for name, value in (metric.compute() | hits.compute()).items()}
    return values, metric.scores().neighbour_ids.tolist()


def processes(folder, every):
    """Forked after the imports, which take longer than all the rest; returns how many failed."""
    context = torch.multiprocessing.get_context("fork")
    ranks = [context.Process(target=process, args=(rank, folder, every)) for rank in range(WORLD)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return sum(rank.exitcode != 0 for rank in ranks)


if __name__ == "__main__":
    sys.exit(processes(sys.argv[1], "every" in sys.argv))
