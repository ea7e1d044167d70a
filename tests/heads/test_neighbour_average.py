"""The average over neighbours, against NumPy and by hand."""

import numpy as np
import pytest
import torch

from likeness.errors import LikenessError
from likeness.heads.linear import NeighbourAverage
from likeness.heads.scaling import Scaling


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def moved(rows: np.ndarray, kept: np.ndarray, k: int, itself: bool) -> np.ndarray:
    """In float64 and row by row; ``itself``: the rows are the kept ones, and no neighbour of their own."""
    out = []
    for i, row in enumerate(rows):
        cosines = kept @ row
        if itself:
            cosines[i] = -np.inf
        nearest = np.argsort(-cosines)[:k]
        weights = np.clip(cosines[nearest], 0, None)
        out.append(row + (weights[:, None] * kept[nearest]).sum(0) / max(weights.sum(), 1e-9))
    return np.array(out)


def test_it_is_the_reference_in_numpy():
    rng = np.random.default_rng(0)
    train, query = rng.normal(size=(60, 7)) + 2, rng.normal(size=(9, 7)) + 2
    head = NeighbourAverage((7,), width=3, k=4)
    rows = torch.from_numpy(train).float()
    head.fit(lambda: rows.split(13))
    mean = train.mean(0)
    kept = unit(train - mean)
    averaged = moved(kept, kept, 4, itself=True)
    centre = averaged.mean(0)
    axes = np.linalg.svd(averaged - centre, full_matrices=False)[2][:3].T
    expected = (moved(unit(query - mean), kept, 4, itself=False) - centre) @ axes
    codes = head.encode(torch.from_numpy(query).float()).numpy()
    np.testing.assert_allclose(codes * np.sign((codes * expected).sum(0)), expected, atol=1e-4)


def test_by_hand_a_row_moves_to_its_nearest():
    """Centred, four rows on two axes; the query (1, 0.1) adds the row at (1, 0) and none on its other side."""
    head = NeighbourAverage((2,), width=2, k=1)
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    head.fit(lambda: [rows])
    query = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1]]))
    assert head._moved(query, query @ head.kept.T)[0].tolist() == pytest.approx([1.99504, 0.0995037], abs=1e-5)
    opposite = torch.tensor([[1.0, 0.0]])
    assert head._moved(opposite, torch.tensor([[-1.0, -0.5, -0.2, -0.1]])).tolist() == [[1.0, 0.0]]


def test_rows_of_one_kind_come_closer():
    """Two noisy directions: within a kind cosines rise, between kinds they do not."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[3.0, 0, 0, 0, 0, 0], [0, 3.0, 0, 0, 0, 0]]).repeat(40, 1)
    rows = centres + torch.randn(80, 6, generator=generator)
    head = NeighbourAverage((6,), width=6, k=10)
    head.fit(lambda: [rows])
    codes = torch.nn.functional.normalize(head.encode(rows))
    plain = torch.nn.functional.normalize(rows - rows.mean(0))
    same = torch.arange(80)[:, None] % 2 == torch.arange(80) % 2
    assert (codes @ codes.T)[same].mean() > (plain @ plain.T)[same].mean() + 0.1
    assert (codes @ codes.T)[~same].mean() < (plain @ plain.T)[~same].mean()


def test_it_is_kept_and_read_with_as_many_rows_as_it_had():
    head, other = NeighbourAverage((5,), width=2, k=3), NeighbourAverage((5,), width=2, k=3)
    rows = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    head.fit(lambda: [rows])
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.encode(rows), head.encode(rows))


def test_maps_are_flattened_and_an_unfitted_head_tells_its_width():
    head = NeighbourAverage((4, 2, 2), width=5)
    assert head.encode(torch.ones(3, 4, 2, 2)).shape == (3, 5)
    maps = torch.randn(30, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    head.fit(lambda: maps.split(7))
    assert head.encode(maps).shape == (30, 5)


def test_too_few_training_rows_are_refused():
    head = NeighbourAverage((3,), k=10)
    with pytest.raises(LikenessError, match=r"architecture\.k=10 neighbours are asked of 10") as caught:
        head.fit(lambda: [torch.randn(10, 3)])
    assert "architecture.k=9" in caught.value.fix


def test_the_root_keeps_the_sign_and_has_unit_length():
    scaling = Scaling((3,), "root")
    scaling.fit(lambda: [torch.ones(2, 3)])
    np.testing.assert_allclose(scaling(torch.tensor([[4.0, -9.0, 0.0]])), [[2 / 13**0.5, -3 / 13**0.5, 0]], rtol=1e-6)
    assert scaling(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]
