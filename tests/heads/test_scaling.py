import numpy as np
import pytest
import torch

from likeness.heads.scaling import Scaling

ROWS = torch.tensor([[1.0, -4.0, 5.0], [3.0, 2.0, 5.0], [5.0, 2.0, 5.0]])


def fitted(kind: str, rows: torch.Tensor = ROWS, size: int = 2) -> Scaling:
    scaling = Scaling(tuple(rows.shape[1:]), kind)
    scaling.fit(lambda: rows.split(size))
    return scaling


def test_scalings_by_hand():
    assert fitted("none")(ROWS) is ROWS
    assert fitted("max_abs")(ROWS).tolist()[0] == pytest.approx([0.2, -1.0, 1.0])
    root = 1.5**0.5
    standardized = fitted("standardize")(ROWS)
    assert standardized[:, 0].tolist() == pytest.approx([-root, 0, root])
    assert standardized[:, 2].tolist() == [0, 0, 0]  # never varies: only centred
    assert fitted("l2")(torch.tensor([[3.0, 4.0, 0.0]])).tolist() == [[pytest.approx(0.6), pytest.approx(0.8), 0.0]]


@pytest.mark.parametrize("kind", ["max_abs", "standardize"])
def test_spatial_features_are_scaled_by_channel(kind):
    maps = torch.randn(10, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 7 + 2
    scaled = fitted(kind, maps, size=3)(maps).numpy().astype(np.float64)
    by_channel = maps.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1)
    if kind == "max_abs":
        expected = maps.numpy() / np.abs(by_channel).max(1)[None, :, None, None]
    else:
        expected = (maps.numpy() - by_channel.mean(1)[:, None, None]) / by_channel.std(1)[:, None, None]
    np.testing.assert_allclose(scaled, expected, atol=1e-5)


def test_it_travels_in_the_state():
    there = Scaling((3,), "standardize")
    there.load_state_dict(fitted("standardize").state_dict())
    assert torch.equal(there(ROWS), fitted("standardize")(ROWS))
