"""Errors of lifted poses, in cases that are known."""

from __future__ import annotations

import math

import pytest
import torch

from maskstream.train.papers.mpm.lifting import aligned, mpjpe, p_mpjpe


@pytest.fixture
def poses() -> torch.Tensor:
    return torch.randn(5, 17, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_error_is_the_mean_distance_relative_to_the_root() -> None:
    true = torch.zeros(1, 3, 3)
    made = torch.tensor([[[1.0, 0, 0], [4.0, 4.0, 0], [1.0, 0, 2.0]]])
    assert mpjpe(made, true) == pytest.approx((0 + 5 + 2) / 3)
    assert mpjpe(made, true, root=None) == pytest.approx((1 + math.sqrt(32) + math.sqrt(5)) / 3)
    assert mpjpe(made, true, valid=torch.tensor([[False, True, False]])) == pytest.approx(5)


def test_a_moved_pose_has_no_error_and_a_scaled_one_has(poses: torch.Tensor) -> None:
    assert mpjpe(poses + 3, poses) == pytest.approx(0, abs=1e-12)
    assert mpjpe(2 * poses, poses) > 1


def test_rotation_scale_and_translation_are_taken_away_and_a_reflection_is_not(poses: torch.Tensor) -> None:
    turn = math.radians(70)
    rotation = torch.tensor(
        [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]], dtype=torch.float64
    )
    assert p_mpjpe(0.3 * poses @ rotation.T + 7, poses) == pytest.approx(0, abs=1e-10)
    assert p_mpjpe(poses * torch.tensor([1.0, 1.0, -1.0]), poses) > 0.1


def test_the_aligned_error_is_at_most_that_of_any_other_scale(poses: torch.Tensor) -> None:
    made = poses + 0.3 * torch.randn(poses.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    best = (aligned(made, poses) - poses).square().sum()
    centre, wanted = made.mean(dim=1, keepdim=True), poses.mean(dim=1, keepdim=True)
    for scale in (0.8, 0.9, 1.0, 1.1):
        assert best <= (scale * (made - centre) + wanted - poses).square().sum()


def test_a_pose_of_one_point_becomes_the_mean_of_the_true_joints(poses: torch.Tensor) -> None:
    found = aligned(torch.zeros_like(poses), poses)
    torch.testing.assert_close(found, poses.mean(dim=1, keepdim=True).expand_as(poses))


def test_errors_name_the_shapes(poses: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(5, 17, 3\) and \(5, 17, 2\)"):
        mpjpe(poses, poses[..., :2])
    with pytest.raises(ValueError, match="no joint"):
        mpjpe(poses, poses, valid=torch.zeros(5, 17, dtype=torch.bool))
