import numpy as np
import pytest
import torch
from sklearn import decomposition

from likeness.heads.linear import PCA, ClosedForm, Identity, RandomProjection


def rows_of(n: int, d: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d) + 5).astype(np.float32))


def fitted(rows: torch.Tensor, width: int) -> PCA:
    head = PCA(tuple(rows.shape[1:]), width)
    head.fit(lambda: rows.split(13))
    return head


@pytest.mark.parametrize(("n", "d"), [(200, 20), (20, 200)], ids=["covariance", "gram"])
def test_pca_is_scikit_learns(n, d):
    rows = rows_of(n, d)
    expected = decomposition.PCA(8, svd_solver="full").fit_transform(rows.numpy().astype(np.float64))
    codes = fitted(rows, 8).encode(rows).numpy()
    signs = np.sign((codes * expected).sum(0))
    np.testing.assert_allclose(codes * signs, expected, atol=1e-3)


def test_pca_by_hand():
    rows = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    assert fitted(rows, 1).encode(rows).tolist() == [[-2.0], [0.0], [2.0]]


def test_axes_beyond_the_rank_are_zero_and_the_width_is_cut():
    rows = rows_of(5, 9)
    head = fitted(rows, 50)
    assert head.encode(rows).shape == (5, 9)
    assert (head.axes[:, 4:] == 0).all()
    centred = rows - rows.mean(0)
    torch.testing.assert_close(head.encode(rows) @ head.encode(rows).T, centred @ centred.T, rtol=1e-3, atol=1e-3)


def test_pca_of_maps_is_of_the_flattened_maps():
    maps = rows_of(30, 24).reshape(30, 2, 3, 4)
    torch.testing.assert_close(fitted(maps, 3).encode(maps), fitted(maps.flatten(1), 3).encode(maps.flatten(1)))


def test_a_random_projection_follows_from_its_seed_and_keeps_angles_roughly():
    rows = rows_of(50, 300)
    one, same, other = (RandomProjection((300,), 256, seed) for seed in (0, 0, 1))
    assert torch.equal(one.encode(rows), same.encode(rows))
    assert not torch.equal(one.encode(rows), other.encode(rows))
    ratio = one.encode(rows).norm(dim=1) / rows.norm(dim=1)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.1)


def test_closed_forms_say_so():
    assert all(isinstance(head, ClosedForm) for head in (Identity((3,)), PCA((3,), 2), RandomProjection((3,), 2)))
    rows = rows_of(4, 3)
    assert torch.equal(Identity((3,)).encode(rows), rows)
