from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likeness.features.datamodule import Batches, FeatureData, Split, mixed
from likeness.features.extraction import Features
from likeness.images.table import Row, tabulate


def split_of(n: int) -> Split:
    ids = torch.arange(n)
    yes = torch.ones(n, dtype=torch.bool)
    return Split(torch.arange(2.0 * n).reshape(n, 2), ids % 3, ids + 100, ids // 2, yes, yes)


def order(batches: Batches) -> list[int]:
    return [int(position) for batch in batches for position in batch.position]


def test_a_batch_carries_what_belongs_to_its_rows():
    batch = split_of(6)[torch.tensor([4, 1])]
    assert batch.features.tolist() == [[8, 9], [2, 3]]
    assert batch.labels.tolist() == [1, 1]
    assert batch.sample_ids.tolist() == [104, 101]
    assert batch.homes.tolist() == [2, 0]


def test_the_order_follows_from_seed_and_epoch_alone():
    def epochs(seed: int) -> list[list[int]]:
        batches, found = Batches(split_of(50), 8, seed), []
        for epoch in (0, 1, 0):
            batches.set_epoch(epoch)
            found.append(order(batches))
        return found

    first, second, first_again = epochs(seed=1)
    assert first == first_again == epochs(seed=1)[0]
    assert first != second
    assert first != epochs(seed=2)[0]
    assert sorted(first) == list(range(50))


@given(n=st.integers(1, 40), size=st.integers(1, 12), world=st.integers(1, 4), seed=st.none() | st.integers(0, 3))
def test_processes_share_each_batch_without_padding(n, size, world, seed):
    shares = [Batches(split_of(n), size, seed, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    seen = sorted(position for share in shares for position in order(share))
    if seed is None:
        assert seen == list(range(n))
    else:
        left = n % size
        assert len(set(seen)) == len(seen) == n - (left if left < world else 0)
        if size >= world:
            assert all(len(batch.position) > 0 for share in shares for batch in share)


def test_seeds_do_not_touch():
    assert len({mixed(seed, step) for seed in range(30) for step in range(30)}) == 900
    assert mixed(1, 23) == mixed(1, 23)
    assert all(0 <= mixed(seed) < 2**63 for seed in range(100))


@pytest.fixture
def data() -> FeatureData:
    splits = ["train"] * 6 + ["val"] * 2 + ["unlabelled"] * 2
    labels = ["a", "b", "a", "b", "a", "b", "a", "b", "", ""]
    rows = [Row(f"{i}.jpg", label, split) for i, (label, split) in enumerate(zip(labels, splits, strict=True))]
    table = tabulate(Path("/x"), rows, 0, (0.6, 0.2, 0.2))
    return FeatureData(
        Features(table, torch.arange(10.0)[:, None], np.zeros((10, 32), np.uint8), 0, 10), batch_size=4, seed=0
    )


def test_training_takes_the_unlabelled_rows_along(data):
    assert data.training_split().rows.flatten().tolist() == [0, 1, 2, 3, 4, 5, 8, 9]
    assert data.training_split().labels.tolist() == [0, 1, 0, 1, 0, 1, -1, -1]
    assert data.split("val").sample_ids.tolist() == [6, 7]
    assert data.feature_shape == (1,)
    assert order(data.val_dataloader()) == [0, 1]
    assert sorted(order(data.train_dataloader())) == list(range(8))
    assert np.isin(data.classes, ["a", "b"]).all()
