"""Clips of poses: what cameras see is a projection of the stored motion, whatever is drawn, and masks are MPM's."""

import numpy as np
import pytest
import torch

from maskstream.pipelines import Cameras, PoseClip, masks, pose_loader
from maskstream.pipelines.modalities.pose.data import PoseData, mirrored, seen
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.h36m import MIRRORED
from maskstream.shards.media.npy import read_npy

from ...every_modality import write_split
from ...small_media import random_motion

OPTIONS = {"batch_size": 15, "device": "cpu", "threads": 1, "seed": 3}
WHOLE = PoseClip(frames=9, stride=1, middle="center")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("pose", tmp_path_factory.mktemp("pose"))


def first(split, **settings):
    loader = pose_loader(split, **{"clip": WHOLE, **settings}, **OPTIONS)
    batch = next(iter(loader))
    loader.close()
    return batch


def stored(split):
    """The stored motion of every sample, by its key."""
    manifest = Manifest.load(split)
    members = {manifest.key(i): manifest.member(i, "poses.npy") for i in range(len(manifest))}
    return {key: read_npy(manifest.store.read(m.name, m.offset, m.size)) for key, m in members.items()}


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_batch_is_a_motion_in_the_axes_of_a_camera_and_its_picture(split, flip):
    batch, motions = first(split, flip=flip), stored(split)
    assert batch.pose_3d.shape == (15, 9, 17, 3)
    assert batch.pose_2d.shape == (15, 9, 17, 2)
    assert batch.pose_3d.dtype == batch.pose_2d.dtype == torch.float32
    places = (batch.pose_3d + batch.root[:, :, None]).double()
    flat = batch.focal[:, None, None, None] * places[..., :2] / places[..., 2:]
    torch.testing.assert_close(flat.float(), batch.pose_2d, atol=1e-5, rtol=1e-5)
    assert (batch.pose_3d[:, :, 0] == 0).all()
    assert (places[..., 2] > 3.5).all()
    assert batch.pose_2d.abs().max() < 1
    for key, seen_places in zip(batch.key, places.numpy(), strict=True):
        poses = motions[key][len(motions[key]) // 2 - 4 :][:9]
        poses = poses[:, MIRRORED] if flip else poses
        flat_of, flat_own = (x.reshape(-1, 3) - x.reshape(-1, 3).mean(axis=0) for x in (poses, seen_places))
        turn, *_ = np.linalg.lstsq(flat_of, flat_own, rcond=None)
        np.testing.assert_allclose(flat_of @ turn, flat_own, atol=1e-4)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-3)
        assert np.sign(np.linalg.det(turn)) == (-1 if flip else 1)
        assert turn[2, 1] < 0  # what is higher is higher in the picture


def test_cameras_are_within_their_settings():
    poses = random_motion(np.random.default_rng(0), 30).astype(np.float32)
    cameras = Cameras(distance_m=(3, 4), elevation_deg=(10, 20), focal=(1.5, 2), aim_m=0)
    turns = []
    for i in range(200):
        made = cameras(poses, np.random.default_rng(i))
        assert 1.5 <= made.focal <= 2
        middle = made.root.mean(axis=0)
        reach = np.linalg.norm(poses - poses[:, 0].mean(axis=0), axis=-1).max()
        assert 3 + reach - 1e-4 <= np.linalg.norm(middle) <= 4 + reach + 1e-4
        np.testing.assert_allclose(middle[:2], 0, atol=1e-4)
        place = made.pose_3d.astype(np.float64)
        turn, *_ = np.linalg.lstsq((poses - poses[:, :1]).reshape(-1, 3), place.reshape(-1, 3), rcond=None)
        forwards = turn[:, 2]
        assert 10 - 1e-3 <= np.degrees(np.arcsin(-forwards[2])) <= 20 + 1e-3
        turns.append(np.arctan2(forwards[1], forwards[0]))
    assert np.abs(np.exp(1j * np.array(turns)).mean()) < 0.2


def test_a_picture_that_is_mirrored_is_the_picture_of_the_mirrored_pose():
    places = random_motion(np.random.default_rng(0), 4) + np.array([0, 0, 5])
    mirror = np.array(MIRRORED)
    one = mirrored(seen(places, 2.0), mirror)
    other = seen((places * (-1, 1, 1))[:, mirror], 2.0)
    for a, b in zip(one[:3], other[:3], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_skeleton_of_16_joints_is_that_of_17_without_the_neck(split):
    whole, fewer = first(split), first(split, joints=16)
    kept = [joint for joint in range(17) if joint != 9]
    torch.testing.assert_close(fewer.pose_3d, whole.pose_3d[:, :, kept])
    torch.testing.assert_close(fewer.pose_2d, whole.pose_2d[:, :, kept])


def test_a_clip_that_runs_off_its_motion_repeats_the_ends():
    rng = np.random.default_rng(0)
    clip = PoseClip(frames=5, stride=3)
    for _ in range(50):
        numbers = clip.numbers(8, rng)
        assert numbers.min() >= 0
        assert numbers.max() <= 7
        assert set(np.diff(numbers).tolist()) <= {0, 1, 2, 3}
    assert PoseClip(frames=5, stride=3, middle="center").numbers(8, rng).tolist() == [0, 1, 4, 7, 7]
    assert {clip.numbers(8, rng)[2] for _ in range(200)} == set(range(8))


def test_masks_of_both_poses_are_drawn_apart_and_shared_by_a_batch_as_in_mpm(split):
    mpm = masks.Joints(frames=0.5, joints=5, scope="batch")
    batch = first(split, mask=mpm)
    for mask in (batch.mask_2d, batch.mask_3d):
        hidden = mask.masked.view(15, 9, 17)
        assert (hidden == hidden[:1]).all()
        whole = hidden[0].all(dim=1)
        assert int(whole.sum()) == 4
        assert (hidden[0][~whole].sum(dim=1) == 5).all()
    assert (batch.mask_2d.masked != batch.mask_3d.masked).any()
    own = first(split, mask=masks.Joints(frames=0.5, joints=5))
    assert (own.mask_2d.masked != own.mask_2d.masked[:1]).any()


def test_views_share_frames_and_have_cameras_and_masks_of_their_own(split):
    batch = first(split, views=2, mask=masks.Joints())
    assert len(batch) == 30
    one, two = batch.pose_3d[0::2], batch.pose_3d[1::2]
    assert not torch.allclose(one, two)
    torch.testing.assert_close(one.norm(dim=-1)[..., 0], two.norm(dim=-1)[..., 0], atol=1e-5, rtol=1e-5)
    assert (batch.mask_2d.masked[0::2] != batch.mask_2d.masked[1::2]).any()


def test_what_is_not_legal_is_named():
    for settings, words in (
        ({"joints": 15}, "17 or 16"),
        ({"flip": 1.5}, "flip must be"),
        ({"mask": masks.MotionGuided()}, "no cues"),
    ):
        with pytest.raises(ValueError, match=words):
            PoseData(**settings)
    with pytest.raises(ValueError, match=r"distance_m must be .* in ascending order, got \(5, 4\)"):
        Cameras(distance_m=(5, 4))
    with pytest.raises(ValueError, match="elevation"):
        Cameras(elevation_deg=(0, 90))
    with pytest.raises(ValueError, match="at least 1"):
        PoseClip(stride=0)
    with pytest.raises(ValueError, match="middle must be 'random' or 'center', got 'left'"):
        PoseClip(middle="left")
