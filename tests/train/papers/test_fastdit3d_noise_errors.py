"""The bounds between which a diffusion model's error lies, and that each noise is measured where it belongs."""

import math

import pytest
import torch

from maskstream.train.papers.fastdit3d.noise_errors import MaskedErrors, least_error


def errors(cloud, kept, times=30):
    generator = torch.Generator().manual_seed(0)
    return sum(least_error(cloud, kept, generator) for _ in range(times)) / times


def test_of_a_normal_cloud_nothing_but_mean_and_variance_can_be_known():
    cloud = torch.randn(8192, 3, generator=torch.Generator().manual_seed(1))
    for kept in (0.7, 0.3, 0.05):
        assert errors(cloud, kept) == pytest.approx(kept, rel=0.05)


def test_of_a_sheet_the_noise_across_it_is_known():
    """x and y are normal with variance 3/2 each, z is 0: of the noise along z nothing is left to guess."""
    cloud = torch.randn(8192, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.5**0.5, 1.5**0.5, 0])
    for kept in (0.8, 0.3):
        within = 1.5 * kept / (1.5 * kept + 1 - kept)
        assert errors(cloud, kept) == pytest.approx(2 / 3 * within, rel=0.05)


def test_of_two_places_a_little_noise_is_all_known():
    cloud = torch.tensor([[1.0, 1, 1], [-1, -1, -1]]).repeat(50, 1) + torch.linspace(0, 1e-4, 100)[:, None]
    assert errors(cloud, 0.9) < 1e-3
    assert errors(cloud, 0.01) == pytest.approx(0.01, rel=0.35)


def test_a_point_does_not_tell_where_it_lies_itself():
    cloud = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    kept = 0.9999
    assert errors(cloud, kept) == pytest.approx(kept, rel=0.05)
    assert math.isfinite(errors(cloud, 1 - 1e-7))


def test_errors_with_and_without_masks_stand_beside_mean_and_variance():
    whole, masked = MaskedErrors(model=0.8, masked=0.9, known=1.0, least=0.7).scores("", 5)
    assert (whole.value, masked.value) == (0.8, 0.9)
    assert set(whole.baselines.values()) == set(masked.baselines.values()) == {1.0}
