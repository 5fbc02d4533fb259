"""Motions of every format: joints where an independent calculation has them, in metres, and what is refused."""

import numpy as np
import pytest

from maskstream.preprocess.encode.pose.encoder import PoseEncoder, resampled
from maskstream.preprocess.encode.pose.motion_files import RIGS, Motion, convert_to_h36m, read_bvh, upright
from maskstream.preprocess.source import RejectError, Source, Span
from maskstream.shards.media.h36m import JOINTS, MIRRORED, PARENTS, bones
from maskstream.shards.media.npy import read_npy

from ...pipelines.small_media import random_motion
from .motion_files import bvh_bytes

ARM = """HIERARCHY
ROOT Hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Elbow
  {
    OFFSET 2 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 1 0 0
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.1
0 0 0 0 0 0 0 0 0
5 6 7 90 0 0 90 0 0
0 0 0 0 0 90 0 90 0
"""


def lengths(poses):
    return np.linalg.norm(poses - poses[:, PARENTS], axis=-1)


def encoded(path, **meta):
    made = PoseEncoder().encode(Source(id="a", path=path, meta=meta))
    return read_npy(made.members["poses.npy"].data), made


def test_joints_of_a_capture_follow_their_parents_turns(tmp_path):
    path = tmp_path / "arm.bvh"
    path.write_text(ARM)
    found = read_bvh(path)
    assert found.names == ("Hip", "Elbow", "ElbowEnd")
    assert found.parents.tolist() == [-1, 0, 1]
    assert found.frame_s == 0.1
    np.testing.assert_allclose(found.places[0], [[0, 0, 0], [2, 0, 0], [3, 0, 0]], atol=1e-9)
    # x turns to y about z, and again: the forearm points back along x.
    np.testing.assert_allclose(found.places[1], [[5, 6, 7], [5, 8, 7], [4, 8, 7]], atol=1e-9)
    # x turns to -z about y; the elbow's turn about x leaves its own x where it is.
    np.testing.assert_allclose(found.places[2], [[0, 0, 0], [0, 0, -2], [0, 0, -3]], atol=1e-9)
    np.testing.assert_allclose(found.motion(0.01, "y").places[1, 0], [0.05, -0.07, 0.06])
    np.testing.assert_allclose(found.motion(2, "z").places[1, 0], [10, 12, 14])


def test_a_capture_of_a_person_keeps_its_joints_and_its_way(tmp_path):
    pose = random_motion(np.random.default_rng(0), 1)[0]
    way = np.cumsum(np.random.default_rng(1).normal(size=(20, 3)), axis=0)
    (tmp_path / "a.bvh").write_bytes(bvh_bytes(100 * np.stack([pose[:, 0], pose[:, 2], -pose[:, 1]], axis=1), way))
    found, made = encoded(tmp_path / "a.bvh")
    assert made.meta["rig"] == "BVH with legs, feet and arms"
    np.testing.assert_allclose(found[:, 0], upright(way / 100), atol=1e-5)
    known = [joint for joint in range(17) if joint != 8]
    np.testing.assert_allclose((found - found[:, :1])[3, known], (pose - pose[0])[known], atol=1e-5)
    np.testing.assert_allclose(found[:, 8], (found[:, 11] + found[:, 14]) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ARM[:-20], "27 numbers, got"),
        (ARM.split("MOTION")[0], "not a BVH file"),
        ("", "not a BVH file"),
        (ARM.replace("5 6 7", "5 x 7"), "could not convert"),
        (ARM.replace("Xposition", "Wposition"), "no channel 'Wposition'"),
        (ARM.replace("ROOT Hip\n{", ""), "not a readable BVH file"),
    ],
)
def test_a_capture_that_is_damaged_is_refused(tmp_path, text, words):
    path = tmp_path / "cut.bvh"
    path.write_text(text)
    with pytest.raises(RejectError, match=words):
        read_bvh(path)


def test_a_part_has_the_poses_that_begin_in_it(tmp_path):
    poses = random_motion(np.random.default_rng(0), 40)
    np.savez(tmp_path / "a.npz", positions=poses, rate_hz=50.0)
    encoder = PoseEncoder()

    def part(start_s, stop_s):
        return encoder.encode(Source(id="a", path=tmp_path / "a.npz", span=Span(start_s=start_s, stop_s=stop_s)))

    for (start_s, stop_s), frames in {
        (0.0, 0.3): (0, 15),
        (0.3, None): (15, 40),
        (0.302, 0.4005): (16, 20),
        (0.5, 0.9): (25, 40),
    }.items():
        made = part(start_s, stop_s)
        np.testing.assert_allclose(read_npy(made.members["poses.npy"].data), poses[slice(*frames)], atol=1e-6)
        assert (made.meta["n_frames"], made.meta["n_poses"]) == (frames[1] - frames[0], 40)
        assert made.meta["seconds"] == pytest.approx((frames[1] - frames[0] - 1) / 50)
    span = Span(start_s=0.5, stop_s=0.9)
    assert len(encoder.motion(Source(id="a", path=tmp_path / "a.npz", span=span)).places) == 15
    for start_s, stop_s, words in (
        (0.9, 1.0, "ends at 0.80 s, before"),
        (0.2, 9.0, "ends at 0.80 s, within the part"),
        (0.2, 0.22, "has 1 pose"),
    ):
        with pytest.raises(RejectError, match=words):
            part(start_s, stop_s)


def test_an_npz_comes_back_as_it_was_written(tmp_path):
    poses = random_motion(np.random.default_rng(0), 40)
    np.savez_compressed(tmp_path / "a.npz", positions=poses, rate_hz=50.0)
    found, made = encoded(tmp_path / "a.npz")
    np.testing.assert_allclose(found, poses, atol=1e-6)
    assert made.meta["rig"] == "Human3.6M"
    assert (made.members["poses.npy"].facts["n_frames"], made.members["poses.npy"].facts["rate_hz"]) == (40, 50.0)
    shuffled = np.random.default_rng(1).permutation(20)
    more = np.zeros((40, 20, 3))
    more[:, shuffled[:17]] = poses
    np.savez(tmp_path / "b.npz", positions=more, rate_hz=50, joints=shuffled[:17])
    np.testing.assert_array_equal(encoded(tmp_path / "b.npz")[0], found)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"rate_hz": 50}, "no array 'positions'"),
        ({"positions": np.zeros((3, 17, 3))}, "no array 'rate_hz'"),
        ({"positions": np.zeros((3, 18, 3)), "rate_hz": 50}, "18 joints"),
        ({"positions": np.zeros((3, 17, 2)), "rate_hz": 50}, r"\(3, 17, 2\)"),
        ({"positions": np.zeros((3, 18, 3)), "rate_hz": 50, "joints": np.arange(2, 19)}, "18 joints"),
        ({"positions": np.zeros((3, 17, 3)), "rate_hz": 0}, "above 0"),
        ({"positions": np.zeros((3, 17, 3)), "rate_hz": np.nan}, "above 0"),
        ({"positions": np.full((3, 17, 3), np.inf), "rate_hz": 50}, "not finite"),
        ({"positions": np.array({"S1": 1}, dtype=object), "rate_hz": 50}, "not an NPZ file of numbers"),
        ({"positions": 1e6 + random_motion(np.random.default_rng(0), 5), "rate_hz": 50}, "from the origin"),
        ({"positions": random_motion(np.random.default_rng(0), 2), "rate_hz": 500}, "1 pose"),
        ({"positions": 100 * random_motion(np.random.default_rng(0), 5), "rate_hz": 50}, "legs are 9.* m long"),
    ],
)
def test_npz_files_that_are_no_motions_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", allow_pickle=True, **arrays)
    with pytest.raises(RejectError, match=words):
        encoded(tmp_path / "a.npz")


def test_unknown_formats_and_rigs_are_named(tmp_path):
    (tmp_path / "a.fbx").write_bytes(b"x")
    with pytest.raises(RejectError, match="expected one of bvh, npz"):
        encoded(tmp_path / "a.fbx")
    motion = Motion(places=np.zeros((2, 3, 3)), names=("Hips", "RightHip", "Tail"), times_s=np.arange(2.0))
    with pytest.raises(RejectError, match="BVH with hips, knees and ankles also needs Chest, HeadEnd"):
        convert_to_h36m(motion)
    assert all(len(rig) == len(JOINTS) for rig in RIGS.values())


def test_bones_keep_their_lengths_between_two_frames():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(5, 17, 3))
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    poses = unit * rng.uniform(0.1, 0.5, (17, 1))
    for joint in range(1, 17):
        poses[:, joint] += poses[:, PARENTS[joint]]
    motion = Motion(places=poses, names=JOINTS, times_s=np.array([0, 0.1, 0.3, 0.4, 0.6]) + 7)
    made = resampled(motion, 100).places
    assert made.shape == (61, 17, 3)
    np.testing.assert_allclose(made[[0, 10, 30, 40, 60]], poses, atol=1e-9)
    np.testing.assert_allclose(lengths(made)[:, 1:], np.broadcast_to(lengths(poses)[:1, 1:], (61, 16)), atol=1e-9)
    np.testing.assert_allclose(made[5, 0], (poses[0, 0] + poses[1, 0]) / 2)


def test_a_motion_at_its_own_rate_stays_and_twice_the_rate_has_it_at_every_second_frame():
    poses = random_motion(np.random.default_rng(0), 30)
    motion = Motion(places=poses, names=JOINTS, times_s=np.arange(30) / 30)
    np.testing.assert_allclose(resampled(motion, 30).places, poses, atol=1e-9)
    np.testing.assert_allclose(resampled(motion, 60).places[::2], poses, atol=1e-9)


def test_mirrored_joints_and_bones():
    assert [MIRRORED[one] for one in MIRRORED] == list(range(17))
    for joint, name in enumerate(JOINTS):
        other = name.replace("left", "L").replace("right", "left").replace("L", "right")
        assert JOINTS[MIRRORED[joint]] == other
    assert len(bones(17)) == 16
    kept = [name for name in JOINTS if name != "neck"]
    assert {(kept[a], kept[b]) for a, b in bones(16)} >= {("head", "thorax"), ("thorax", "spine")}


def test_settings_are_checked():
    with pytest.raises(ValueError, match="above 0"):
        PoseEncoder(rate_hz=0)
    with pytest.raises(ValueError, match="bvh_up"):
        PoseEncoder(bvh_up="x")
