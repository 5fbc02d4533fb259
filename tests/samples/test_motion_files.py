"""Motions of Lugaru and DeepMimic: joints where an independent calculation has them, and what is refused."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from maskstream.preprocess.encode.pose.motion_files import convert_to_h36m, upright
from maskstream.preprocess.source import RejectError
from maskstream.samples.pose.lugaru import JOINTS as LUGARU
from maskstream.samples.pose.lugaru import read_lugaru
from maskstream.samples.pose.pybullet_motions import NUMBERS, read_deepmimic
from maskstream.shards.media.h36m import JOINTS

from ..preprocess.encode.motion_files import lugaru_bytes


def test_key_poses_of_lugaru(tmp_path):
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(4, 20, 3))
    path = tmp_path / "Kick"
    path.write_bytes(lugaru_bytes(keys, [5.0, 2.5, 10.0, 1.0]))
    found = read_lugaru(path)
    np.testing.assert_allclose(found.times_s, [0, 0.1, 0.3, 0.35])
    np.testing.assert_allclose(found.places[..., 2], 0.2 * keys[..., 1], rtol=1e-6)
    np.testing.assert_allclose(found.places[..., 0], 0.2 * keys[..., 0], rtol=1e-6)
    # Both frames are right-handed: three points and their turn have the same volume.
    volume = np.linalg.det(found.places[:, :3])
    np.testing.assert_allclose(volume, 0.2**3 * np.linalg.det(keys[:, :3]), rtol=1e-4)
    in_order, rig = convert_to_h36m(found)
    assert rig == "Lugaru"
    np.testing.assert_array_equal(in_order.places[:, 3], found.places[:, LUGARU.index("right ankle")])
    middle = found.places[:, [LUGARU.index("left shoulder"), LUGARU.index("right shoulder")]].mean(axis=1)
    np.testing.assert_allclose(in_order.places[:, JOINTS.index("thorax")], middle)


@pytest.mark.parametrize("cut", [0, 7, 100, 351])
def test_a_lugaru_file_that_is_cut_is_refused(tmp_path, cut):
    path = tmp_path / "Kick"
    path.write_bytes(lugaru_bytes(np.zeros((1, 20, 3)), [1.0])[:cut])
    with pytest.raises(RejectError, match=r"too few|truncated"):
        read_lugaru(path)


def test_one_key_pose_and_a_speed_of_zero_are_refused(tmp_path):
    path = tmp_path / "Kick"
    path.write_bytes(lugaru_bytes(np.zeros((1, 20, 3)), [1.0]))
    with pytest.raises(RejectError, match="1 pose; a sequence needs at least two"):
        read_lugaru(path)
    path.write_bytes(lugaru_bytes(np.zeros((2, 20, 3)), [1.0, 0.0]))
    with pytest.raises(RejectError, match="speed"):
        read_lugaru(path)


def humanoid(tmp_path, frames):
    path = tmp_path / "motion.txt"
    path.write_text(json.dumps({"Loop": "wrap", "Frames": frames}))
    return path


def standing():
    """A frame in which nothing is turned."""
    frame = np.zeros(NUMBERS)
    frame[0], frame[2] = 0.05, 0.9
    frame[[4, 8, 12, 16, 21, 25, 30, 35, 39]] = 1
    return frame


def test_a_standing_humanoid_stands_and_its_turns_are_those_of_scipy(tmp_path):
    rng = np.random.default_rng(0)
    turned = standing()
    root, chest, hip, shoulder = Rotation.from_quat(rng.normal(size=(4, 4)))
    for at, turn in ((4, root), (8, chest), (16, hip), (39, shoulder)):
        turned[at : at + 4] = np.roll(turn.as_quat(), 1)
    turned[20], turned[43] = -0.7, 1.1
    found = read_deepmimic(humanoid(tmp_path, [standing().tolist(), turned.tolist()]))
    place = dict(zip(found.names, np.moveaxis(found.places, 1, 0), strict=True))
    assert place["right_ankle"][0, 2] == pytest.approx(0.9 - 0.421546 - 0.40987)
    assert place["head"][0, 2] > place["neck"][0, 2] > place["chest"][0, 2] > 0.9
    np.testing.assert_allclose(found.times_s, [0, 0.05])
    start = np.array([0, 0.9, 0])
    knee = start + root.apply(np.array([0, 0, 0.084887]) + hip.apply([0, -0.421546, 0]))
    ankle = knee + (root * hip * Rotation.from_euler("z", -0.7)).apply([0, -0.40987, 0])
    elbow = start + root.apply(np.array([0, 0.236151, 0]) + chest.apply([-0.02405, 0.2435, -0.18311]))
    elbow += (root * chest * shoulder).apply([0, -0.274788, 0])
    wrist = elbow + (root * chest * shoulder * Rotation.from_euler("z", 1.1)).apply([0, -0.258947, 0])
    for name, wanted in (("right_knee", knee), ("right_ankle", ankle), ("left_elbow", elbow), ("left_wrist", wrist)):
        np.testing.assert_allclose(place[name][1], upright(wanted), atol=1e-9)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"Frames": [[1, 2]]}', '{"Frames": "x"}', "[" * 100_000])
def test_what_is_no_humanoid_is_refused(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(RejectError):
        read_deepmimic(path)
