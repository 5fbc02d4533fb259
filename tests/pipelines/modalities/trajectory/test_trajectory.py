"""Walks: depth has the frames and pixels of the colours, flips mirror everything, waypoints are where the walk goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskstream.pipelines import TrajectoryBatch, TrajectoryData, VideoClip, augment, masks, trajectory_loader
from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.modalities.trajectory.rows import DEPTH, crop_lens, nearest
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import SampleError
from maskstream.shards.format.verify import verify

from ...every_modality import write_split
from ...recording import recorded
from ...small_media import SAMPLES
from ...small_walks import FPS, HEIGHT, SPEED, TURN, WIDTH, depth_at, small_walk, trajectory_samples

CLIP = VideoClip(frames=3, stride=4, size=32)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split("trajectory", tmp_path_factory.mktemp("walks"))


def first(split: Path, **settings: Any) -> TrajectoryBatch:
    chosen = {"clip": CLIP, "ahead_s": 1.0, "batch_size": 12, "device": "cpu", "threads": 1, "seed": 3} | settings
    loader = trajectory_loader(split, **chosen)
    batch = next(iter(loader))
    loader.close()
    return batch


def test_the_shards_are_whole(split: Path) -> None:
    assert not list(verify(split, decode=True).problems)


def test_depth_is_that_of_the_frames_and_the_nearest_pixels(split: Path) -> None:
    """The depth of the small walk tells its frame and its pixel."""
    batch = first(split, augment=augment.RandomResizedCrop(flip=0.5))
    assert batch.depth is not None
    frames = (batch.pts_s * FPS).round().long().numpy()
    millimetres = (batch.depth.double() * 1000).round().long().numpy()
    places = (millimetres - frames[:, :, None, None] - 100) // 20
    assert (depth_at(0, *np.divmod(places, WIDTH)) + frames[:, :, None, None] == millimetres).all()
    rows, columns = np.divmod(places, WIDTH)
    assert (rows == rows[:, :1, :, :1]).all()
    assert (columns == columns[:, :1, :1]).all()
    steps = np.sign(np.diff(columns[:, 0, 0], axis=1).sum(axis=1))
    assert {-1, 1} == set(steps.tolist())  # mirrored clips, and others
    turned = np.sign(batch.waypoint[:, 2].numpy())
    np.testing.assert_array_equal(turned, -steps)  # the walk turns to the left
    np.testing.assert_array_equal(np.sign(batch.pose[:, 0, 0].numpy()), -steps)


def test_depth_and_lens_belong_together(split: Path) -> None:
    """A pixel of a crop and the pixel of the frame that it comes from show the same direction."""
    batch = first(split, augment=augment.RandomResizedCrop(flip=0.5))
    assert batch.depth is not None
    for i in range(len(batch)):
        fx, fy, cx, cy = batch.lens[i].tolist()
        frame = round(float(batch.pts_s[i, -1]) * FPS)
        place = (round(float(batch.depth[i, -1, 20, 9]) * 1000) - frame - 100) // 20
        row, column = divmod(place, WIDTH)
        side = -1 if batch.waypoint[i, 2] > 0 else 1
        assert (9.5 - cx) / fx == pytest.approx(side * (column + 0.5 - WIDTH / 2) / 50, abs=0.6 / 50)
        assert (20.5 - cy) / fy == pytest.approx((row + 0.5 - HEIGHT / 2) / 52, abs=0.6 / 52)


def test_the_nearest_of_depth_of_another_size() -> None:
    small = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    out = np.empty((1, 2, 2), np.float32)
    nearest([small], Crop(x=0, y=0, width=64, height=48), (64, 48), out, np.array([0]))
    np.testing.assert_array_equal(out[0], [[1, 3], [9, 11]])
    nearest([small], Crop(x=0, y=0, width=64, height=48, flip=True), (64, 48), out, np.array([0]))
    np.testing.assert_array_equal(out[0], [[3, 1], [11, 9]])
    lens = crop_lens(np.array([50.0, 52.0, 32.0, 24.0]), Crop(x=16, y=0, width=32, height=48, flip=True), 96)
    np.testing.assert_allclose(lens, [150, 104, 48, 48])


def test_waypoints_and_poses_are_those_of_the_arc(split: Path) -> None:
    batch = first(split, shuffle=False)
    angle = TURN * 1.0
    radius = SPEED / TURN
    wanted = [-radius * (1 - np.cos(angle)), radius * np.sin(angle), -angle]
    np.testing.assert_allclose(batch.waypoint, np.tile(wanted, (len(batch), 1)), atol=1e-5)
    back = TURN * np.arange(8, -1, -4) / FPS
    places = np.stack([-radius * (1 - np.cos(back)), 0 * back, -radius * np.sin(back)], axis=1)
    np.testing.assert_allclose(batch.pose[:, :, :3], np.tile(places, (len(batch), 1, 1)), atol=1e-5)
    np.testing.assert_allclose(batch.pose[:, -1, 3:], np.tile([1, 0, 0, 0], (len(batch), 1)), atol=1e-6)
    turns = 2 * torch.atan2(batch.pose[:, :, 5], batch.pose[:, :, 3])
    np.testing.assert_allclose(turns, np.tile(back, (len(batch), 1)), atol=1e-5)


def test_only_the_wanted_frames_of_depth_and_the_wanted_poses_are_read(split: Path) -> None:
    opened, store = recorded(split, "trajectory")
    sampler = TrajectoryData(clip=CLIP, ahead_s=1.0).sampler(opened)
    plan = sampler.request(Wanted.of([0])).plans[0]
    assert plan.depth is not None
    manifest = opened.manifest
    video, member = manifest.video(0, DEPTH), manifest.member(0, DEPTH)
    assert len(plan.depth.frames) == CLIP.frames
    assert sum(one.size for one in plan.depth.frames) == video.size[plan.numbers].sum() < member.size / 9
    assert plan.camera.size == 56 * (1 + 8 + FPS)
    without = TrajectoryData(clip=CLIP, ahead_s=1.0, depth=False).sampler(opened)
    assert sampler.request(Wanted.of([0])).plans[0].numbers.tolist() == plan.numbers.tolist()
    assert without.request(Wanted.of([0])).plans[0].depth is None
    assert not store.read_ranges


def test_a_mask_hides_the_same_of_colours_and_depth_and_views_share_a_walk(split: Path) -> None:
    batch = first(split, mask=masks.Tube(ratio=0.75), patch=8, views=2, batch_size=3)
    assert batch.mask is not None
    assert batch.mask.visible.shape == (6, 3 * 4)
    assert (batch.pts_s[::2] == batch.pts_s[1::2]).all()
    assert batch.key[::2] == batch.key[1::2]


def test_a_walk_that_ends_before_its_waypoint_is_a_bad_sample(tmp_path: Path) -> None:
    short = small_walk(12)
    folder = write_split("trajectory", tmp_path, lambda raw: trajectory_samples(raw, SAMPLES, short))
    batch = first(folder, ahead_s=0.3)
    np.testing.assert_allclose(batch.waypoint[:, 2].abs(), 0.3 * TURN, atol=1e-5)
    opened, _ = recorded(folder, "trajectory")
    with pytest.raises(SampleError, match=r"has 12 frames at 10 per second, too few for a waypoint 1\.2 s ahead"):
        TrajectoryData(clip=CLIP, ahead_s=1.2).sampler(opened).request(Wanted.of([0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": masks.MotionGuided()}, "walks have only depth"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TrajectoryData(), **settings)
