import pytest
import torch

from likeness.errors import LikenessError
from likeness.heads.noise import Gaussian, GaussianAsPublished, Masking, NoNoise, SaltAndPepper


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CLEAN = torch.linspace(-2, 3, 40_000).reshape(400, 100)
EVERY = [NoNoise(), Gaussian(0.5), GaussianAsPublished(0.5), Masking(0.25), SaltAndPepper(0.4)]


@pytest.mark.parametrize("noise", EVERY, ids=lambda noise: type(noise).__name__)
def test_noise_follows_from_its_generator_and_leaves_the_clean_rows(noise):
    clean = CLEAN.clone()
    first, again, other = noise(clean, generator(1)), noise(clean, generator(1)), noise(clean, generator(2))
    assert torch.equal(first, again)
    assert torch.equal(clean, CLEAN)
    assert torch.equal(first, other) == isinstance(noise, NoNoise)
    assert noise(clean[:0], generator()).shape == (0, 100)


def test_gaussian_noise_has_its_standard_deviation():
    drawn = Gaussian(0.5)(CLEAN, generator()) - CLEAN
    assert float(drawn.mean()) == pytest.approx(0, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.02)


def test_published_noise_is_the_clipped_sum_and_drawn_once():
    drawn = GaussianAsPublished(0.3)(CLEAN, generator(7))
    expected = (CLEAN + 0.3 * torch.randn(CLEAN.shape, generator=generator(7))).clamp(0, 1)
    assert torch.equal(drawn, expected)
    assert GaussianAsPublished().drawn_once
    assert not Gaussian().drawn_once


def test_masking_zeroes_a_share_and_nothing_else():
    drawn = Masking(0.25)(CLEAN, generator())
    zeroed = drawn == 0
    assert float(zeroed.float().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(drawn[~zeroed], CLEAN[~zeroed])


def test_salt_and_pepper_are_the_extremes_of_each_dimension():
    drawn = SaltAndPepper(0.4)(CLEAN, generator())
    low, high = CLEAN.amin(0).expand_as(CLEAN), CLEAN.amax(0).expand_as(CLEAN)
    changed = drawn != CLEAN
    assert float(changed.float().mean()) == pytest.approx(0.4, abs=0.02)
    assert ((drawn == low) | (drawn == high))[changed].all()
    assert float((drawn == low)[changed].float().mean()) == pytest.approx(0.5, abs=0.02)


def test_impossible_amounts_are_refused():
    for make in (
        lambda: Gaussian(-1.0),
        lambda: GaussianAsPublished(-0.1),
        lambda: Masking(1.5),
        lambda: SaltAndPepper(-0.1),
    ):
        with pytest.raises(LikenessError, match=r"noise\."):
            make()
