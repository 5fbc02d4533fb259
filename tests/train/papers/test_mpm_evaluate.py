"""Errors of poses on clips whose right answers are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines import PoseClip, masks
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.papers.mpm.evaluate import (
    align,
    collect_held_out_clips,
    compute_mpjpe,
    compute_p_mpjpe,
    evaluate,
    interpolate,
    measure_hidden,
    measure_lifting,
)
from maskstream.train.papers.mpm.model import PoseModelConfig

from ...pipelines.every_modality import write_split
from ...pipelines.small_media import SAMPLES

DATA = PoseData(clip=PoseClip(frames=9, stride=1), mask=masks.Joints(frames=0.5, joints=5))
SMALL = PoseModelConfig(width=16, hidden=24, depth=1, heads=2)


@pytest.fixture
def poses() -> torch.Tensor:
    return torch.randn(5, 17, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_error_is_the_mean_distance_relative_to_the_root() -> None:
    true = torch.zeros(1, 3, 3)
    made = torch.tensor([[[1.0, 0, 0], [4.0, 4.0, 0], [1.0, 0, 2.0]]])
    assert compute_mpjpe(made, true) == pytest.approx((0 + 5 + 2) / 3)
    assert compute_mpjpe(made, true, root=None) == pytest.approx((1 + math.sqrt(32) + math.sqrt(5)) / 3)
    assert compute_mpjpe(made, true, valid=torch.tensor([[False, True, False]])) == pytest.approx(5)


def test_a_moved_pose_has_no_error_and_a_scaled_one_has(poses: torch.Tensor) -> None:
    assert compute_mpjpe(poses + 3, poses) == pytest.approx(0, abs=1e-12)
    assert compute_mpjpe(2 * poses, poses) > 1


def test_rotation_scale_and_translation_are_taken_away_and_a_reflection_is_not(poses: torch.Tensor) -> None:
    turn = math.radians(70)
    rotation = torch.tensor(
        [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]], dtype=torch.float64
    )
    assert compute_p_mpjpe(0.3 * poses @ rotation.T + 7, poses) == pytest.approx(0, abs=1e-10)
    assert compute_p_mpjpe(poses * torch.tensor([1.0, 1.0, -1.0]), poses) > 0.1


def test_the_aligned_error_is_at_most_that_of_any_other_scale(poses: torch.Tensor) -> None:
    made = poses + 0.3 * torch.randn(poses.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    best = (align(made, poses) - poses).square().sum()
    centre, wanted = made.mean(dim=1, keepdim=True), poses.mean(dim=1, keepdim=True)
    for scale in (0.8, 0.9, 1.0, 1.1):
        assert best <= (scale * (made - centre) + wanted - poses).square().sum()


def test_a_pose_of_one_point_becomes_the_mean_of_the_true_joints(poses: torch.Tensor) -> None:
    found = align(torch.zeros_like(poses), poses)
    torch.testing.assert_close(found, poses.mean(dim=1, keepdim=True).expand_as(poses))


def test_errors_name_the_shapes(poses: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(5, 17, 3\) and \(5, 17, 2\)"):
        compute_mpjpe(poses, poses[..., :2])
    with pytest.raises(ValueError, match="no joint"):
        compute_mpjpe(poses, poses, valid=torch.zeros(5, 17, dtype=torch.bool))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("pose", tmp_path_factory.mktemp("pose"))


@pytest.fixture(scope="module")
def model():
    return SMALL.build(DATA.grids).eval()


def test_every_motion_is_measured_by_several_cameras_and_always_the_same(split):
    first, again = (
        collect_held_out_clips(DATA, Manifest.load(split)),
        collect_held_out_clips(DATA, Manifest.load(split)),
    )
    keys = [key for batch in first for key in batch.key]
    assert {keys.count(key) for key in keys} == {8}
    assert len(set(keys)) == SAMPLES
    assert all(torch.equal(a.pose_2d, b.pose_2d) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].pose_2d, first[1].pose_2d)


def test_baselines_are_the_mean_and_the_best_linear_map(split, model, monkeypatch):
    clips = collect_held_out_clips(DATA, Manifest.load(split))
    found = measure_lifting(model, clips)
    flat, true = (torch.cat([getattr(b, name).flatten(0, 1) for b in clips]).numpy() for name in ("pose_2d", "pose_3d"))
    mean = np.linalg.norm(true - true.mean(0), axis=-1).mean() * 1000
    x = np.c_[flat.reshape(len(flat), -1), np.ones(len(flat))].astype(np.float64)
    made = (x @ (np.linalg.pinv(x) @ true.reshape(len(true), -1))).reshape(true.shape)
    made -= made[:, :1]
    assert found.mean == pytest.approx(mean, rel=1e-4)
    assert found.linear == pytest.approx(np.linalg.norm(made - true, axis=-1).mean() * 1000, rel=1e-3)
    assert found.linear < found.mean
    monkeypatch.setattr(model, "lifted", lambda batch: batch.pose_3d * 1.5)
    scaled = measure_lifting(model, clips)
    assert scaled.model == pytest.approx(np.linalg.norm(true, axis=-1).mean() * 500, rel=1e-4)
    assert scaled.aligned == pytest.approx(0, abs=1e-3)


def test_interpolation_knows_what_moves_on_a_line_and_nothing_of_what_was_never_seen():
    time = torch.arange(9.0)[:, None, None]
    line = (time * torch.tensor([[[1.0, 2, 3]], [[0, -1, 2]]]).movedim(0, 1) + 4).expand(9, 2, 3)[None].contiguous()
    hidden = torch.zeros(1, 9, 2, dtype=torch.bool)
    hidden[0, [1, 2, 5, 7], 0] = True
    torch.testing.assert_close(interpolate(line, hidden), line)
    hidden[0, :, 1] = True
    assert (interpolate(line, hidden)[0, :, 1] == 0).all()


def test_hidden_joints_alone_are_counted(split, model, monkeypatch):
    clips = collect_held_out_clips(DATA, Manifest.load(split))

    def completed(batch):
        hidden = batch.mask_3d.masked.view(batch.pose_3d.shape[:3])
        off = torch.where(hidden, 0.25, 99.0)[..., None] * torch.tensor([0.0, 0.0, 1.0])
        return None, batch.pose_3d + off, None

    monkeypatch.setattr(model, "completed", completed)
    made, between, mixture = measure_hidden(model, clips)
    assert made == pytest.approx(250, rel=1e-4)
    assert between > 0
    assert mixture.error <= min(made, between)

    def opposite(batch):  # as far off as the interpolation, on the other side
        hidden = batch.mask_3d.masked.view(batch.pose_3d.shape[:3])
        return None, 2 * batch.pose_3d - interpolate(batch.pose_3d, hidden), None

    monkeypatch.setattr(model, "completed", opposite)
    made, between, mixture = measure_hidden(model, clips)
    assert made == pytest.approx(between)
    assert (mixture.error, mixture.share) == (pytest.approx(0, abs=1e-2), 0.5)


def test_what_a_report_says(split, model):
    found = evaluate(model, DATA, Manifest.load(split), 2)
    assert [score.unit for score in found.scores] == ["mm"] * 3
    assert set(found.scores[0].baselines) == {"interpolation in time"}
    lift = replace(SMALL, task="lift").build(DATA.grids).eval()
    only = evaluate(lift, replace(DATA, mask=None), Manifest.load(split), 2)
    first = only.scores[0]
    assert set(first.baselines) == {"the linear map that fits these clips best", "their mean pose"}
    assert only.loss.value == pytest.approx(first.baselines["their mean pose"] / 1000, rel=1e-3)
