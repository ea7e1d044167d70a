"""The metric under 2 to 4 gloo processes equals one process. Run as a script, this file is all of them."""

import json
import math
import os
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from likeness.retrieval.metric import SimilarityRetrieval, score

WORLD = 4
WORLDS = (2, 3, 4)
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


def cases():
    """Two of the shares for each size, in turn."""
    return [(world, n, SHARES[(n + turn) % 4]) for world in WORLDS for n in SIZES for turn in (world, world + 2)]


def process(rank, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    meeting, patience = f"file://{folder}/meeting", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=patience)
    groups = {world: dist.new_group(list(range(world))) for world in WORLDS}
    found = [
        [world, n, kind, computed(groups[world], world, n, kind, rank)] for world, n, kind in cases() if rank < world
    ]
    nothing = SimilarityRetrieval()
    found.append([WORLD, 0, "nothing at all", [{name: value.item() for name, value in nothing.compute().items()}]])
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def computed(group, world, n, kind, rank):
    columns = sample(n)
    metric = SimilarityRetrieval(**options(n), process_group=group)
    for batch in share(kind, n, rank, world).split(2 + n % 3):
        if len(batch):
            metric.update(*(column[batch] for column in columns))
    values = {name: value.item() for name, value in metric.compute().items()}
    return [values, metric.scores().neighbour_ids.tolist()]


def single(n):
    codes, labels, ids, homes = sample(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = score(codes, labels, ids, group_ids=homes, **options(n))
    chances = {f"chance@{k}": scores.chance(k) for k in scores.ks}
    values = {**scores.values(), **chances, "n": float(scores.n), "skipped": float(scores.n_skipped)}
    return [values, scores.neighbour_ids.tolist()]


def test_any_share_among_processes_gives_the_numbers_of_one_process(tmp_path):
    command, environment = [sys.executable, __file__, str(tmp_path)], os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=200)
    assert finished.returncode == 0, finished.stderr
    expected = {n: json.dumps(single(n)) for n in SIZES}
    seen = 0
    for rank in range(WORLD):
        for world, n, kind, result in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert json.dumps(result) == expected[n] if n else math.isnan(result[0]["hit@1"]), (rank, world, n, kind)
            seen += 1
    assert seen == sum(WORLDS) * len(SIZES) * 2 + WORLD


def processes(folder):
    """Forked after the imports, which take longer than all the rest; returns how many failed."""
    context = torch.multiprocessing.get_context("fork")
    ranks = [context.Process(target=process, args=(rank, folder)) for rank in range(WORLD)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return sum(rank.exitcode != 0 for rank in ranks)


if __name__ == "__main__":
    sys.exit(processes(sys.argv[1]))
