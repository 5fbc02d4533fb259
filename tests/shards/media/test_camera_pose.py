"""Poses of a camera against matrices: what is seen from where, mirrors, headings and waypoints."""

from __future__ import annotations

import numpy as np
import pytest

from maskstream.shards.media.camera_pose import (
    build_level_pose,
    heading,
    inverse,
    mirrored,
    product,
    seen_from,
    turned,
    waypoint,
    wrapped,
)


def matrix(rotation: np.ndarray) -> np.ndarray:
    """The matrix of a unit quaternion w, x, y, z, by its textbook formula."""
    w, x, y, z = rotation
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def four_by_four(pose: np.ndarray) -> np.ndarray:
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = matrix(pose[3:]), pose[:3]
    return whole


@pytest.fixture
def poses() -> np.ndarray:
    rng = np.random.default_rng(3)
    rotations = rng.normal(size=(6, 4))
    return np.concatenate([rng.normal(size=(6, 3)), rotations / np.linalg.norm(rotations, axis=1)[:, None]], axis=1)


def test_rotations_are_those_of_their_matrices(poses: np.ndarray) -> None:
    a, b, way = poses[0, 3:], poses[1, 3:], np.array([0.3, -2.0, 0.7])
    np.testing.assert_allclose(turned(a, way), matrix(a) @ way, atol=1e-12)
    np.testing.assert_allclose(matrix(product(a, b)), matrix(a) @ matrix(b), atol=1e-12)
    np.testing.assert_allclose(matrix(inverse(a)), matrix(a).T, atol=1e-12)


def test_poses_seen_from_a_camera_are_those_of_matrices(poses: np.ndarray) -> None:
    for found, pose in zip(seen_from(poses, poses[2]), poses, strict=True):
        wanted = np.linalg.inv(four_by_four(poses[2])) @ four_by_four(pose)
        np.testing.assert_allclose(four_by_four(found), wanted, atol=1e-12)
        assert found[3] >= 0
    np.testing.assert_allclose(seen_from(poses, poses[2])[2], [0, 0, 0, 1, 0, 0, 0], atol=1e-12)


def test_a_mirror_changes_left_and_right_of_all_that_a_pose_maps(poses: np.ndarray) -> None:
    flip = np.diag([-1.0, 1, 1, 1])
    for found, pose in zip(mirrored(poses), poses, strict=True):
        np.testing.assert_allclose(four_by_four(found), flip @ four_by_four(pose) @ flip, atol=1e-12)
    np.testing.assert_array_equal(mirrored(mirrored(poses)), poses)


@pytest.mark.parametrize("angle", [-3.0, -0.4, 0.0, 1.2, 3.1])
def test_a_level_camera_looks_along_its_heading_with_its_x_axis_to_the_right(angle: float) -> None:
    pose = build_level_pose(np.array([1.0, 2.0, 1.5]), angle)
    right, down, forward = matrix(pose[3:]).T
    np.testing.assert_allclose(forward, [np.cos(angle), np.sin(angle), 0], atol=1e-12)
    np.testing.assert_allclose(right, [np.sin(angle), -np.cos(angle), 0], atol=1e-12)
    np.testing.assert_allclose(down, [0, 0, -1], atol=1e-12)
    assert heading(pose) == pytest.approx(angle)


def test_a_waypoint_is_said_as_a_person_would() -> None:
    """Facing north, two metres east and three north, then facing east: right 2, forward 3, a quarter turn right."""
    north, east = np.pi / 2, 0.0
    here = build_level_pose(np.array([10.0, 20.0, 1.5]), north)
    there = build_level_pose(np.array([12.0, 23.0, 1.7]), east)
    np.testing.assert_allclose(waypoint(there, here), [2, 3, np.pi / 2], atol=1e-12)
    tilted = here.copy()  # looking up by 0.3 rad: the ground stays level
    tilted[3:] = product(here[3:], np.array([np.cos(0.15), np.sin(0.15), 0, 0]))
    np.testing.assert_allclose(waypoint(there, tilted), [2, 3, np.pi / 2], atol=1e-12)


@pytest.mark.parametrize(("angle", "wanted"), [(np.pi, np.pi), (-np.pi, np.pi), (7.0, 7 - 2 * np.pi), (-0.5, -0.5)])
def test_angles_are_wrapped(angle: float, wanted: float) -> None:
    assert wrapped(angle) == pytest.approx(wanted)
