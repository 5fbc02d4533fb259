"""Augmentations of point clouds: what they change, and what stays unchanged."""

import numpy as np
import pytest

from maskstream.pipelines.modalities.points.read import PointAugment, PointStats, rotation


def cloud(n=500, columns=5):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, columns)) * 4 + 10).astype(np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_normalised_clouds_have_radius_1_or_deviation_1():
    ball = PointAugment(normalise="ball")(cloud(), rng())
    np.testing.assert_allclose(ball[:, :3].mean(axis=0), 0, atol=1e-5)
    assert np.linalg.norm(ball[:, :3], axis=1).max() == pytest.approx(1, abs=1e-5)
    deviation = PointAugment(normalise="deviation")(cloud(), rng())
    assert np.square(deviation[:, :3]).mean() == pytest.approx(1, abs=1e-4)
    stats = PointStats(mean=(1.0, 2.0, 3.0), deviation=2.0)
    given = PointAugment(normalise=stats)(cloud(), rng())
    np.testing.assert_allclose(given[:, :3], (cloud()[:, :3] - [1, 2, 3]) / 2, rtol=1e-6)


def test_features_and_the_input_stay_unchanged():
    points = cloud()
    before = points.copy()
    out = PointAugment(scale=(0.5, 2), rotate="any", jitter=0.1)(points, rng())
    np.testing.assert_array_equal(points, before)
    np.testing.assert_array_equal(out[:, 3:], before[:, 3:])
    assert out.dtype == np.float32
    assert not np.allclose(out[:, :3], before[:, :3])


def test_points_that_coincide_are_centred():
    assert not PointAugment(normalise="ball")(np.full((9, 3), 7, np.float32), rng()).any()


@pytest.mark.parametrize(("axis", "kept"), [("x", 0), ("y", 1), ("z", 2), ("any", None)])
def test_rotations_are_rotations_about_their_axis(axis, kept):
    turns = np.stack([rotation(axis, rng(seed)) for seed in range(400)])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    if kept is not None:
        np.testing.assert_allclose(turns[:, kept], np.broadcast_to(np.eye(3)[kept], (400, 3)), atol=1e-12)
    free = [i for i in range(3) if i != kept]
    assert np.abs(turns[:, free][:, :, free].mean(axis=0)).max() < 0.12


def test_jitter_and_scale_stay_within_their_bounds():
    points = cloud()
    plain = PointAugment(normalise="none")(points, rng())
    np.testing.assert_array_equal(plain, points)
    moved = PointAugment(normalise="none", jitter=0.5, jitter_most=0.6)(points, rng())[:, :3] - points[:, :3]
    assert np.abs(moved).max() == pytest.approx(0.6, abs=1e-5)
    assert moved.std() == pytest.approx(0.5 * 0.8, rel=0.15)
    factors = [PointAugment(normalise="none", scale=(0.5, 2))(points, rng(s))[0, 0] / points[0, 0] for s in range(200)]
    assert 0.5 <= min(factors) < 0.6
    assert 1.9 < max(factors) <= 2


def test_each_axis_has_a_factor_and_a_shift_of_its_own_in_the_order_of_point_mae():
    """Pang et al. (2022): x' = a x + b for each axis, a of [2/3, 3/2] and then b of [-0.2, 0.2].

    With the same draws it is what PointcloudScaleAndTranslate of their code gives (7445a68), to float32.
    """
    points, own, theirs = cloud(), rng(5), rng(5)
    out = PointAugment(normalise="none", scale=(2 / 3, 3 / 2), per_axis=True, shift=0.2)(points, own)
    factors, shifts = theirs.uniform(2 / 3, 3 / 2, size=3), theirs.uniform(-0.2, 0.2, size=3)
    np.testing.assert_array_equal(out[:, :3], (points[:, :3].astype(np.float64) * factors + shifts).astype(np.float32))
    assert len({*factors.round(6)}) == len({*shifts.round(6)}) == 3
    assert own.random() == theirs.random()


def test_normals_stay_across_a_surface_whose_axes_are_scaled_apart():
    rng_, ways = rng(3), rng(4).normal(size=(2, 50, 3))
    normal = np.cross(*ways)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    augment = PointAugment(normalise="none", scale=(0.5, 2), per_axis=True)
    points = np.concatenate([ways[0], normal], axis=1).astype(np.float32)
    out = augment(points, rng_, normals=(3, 4, 5))
    np.testing.assert_allclose(np.linalg.norm(out[:, 3:], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose((out[:, :3] * out[:, 3:]).sum(axis=1), 0, atol=1e-5)
    assert np.abs(out[:, 3:] - normal).max() > 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {"normalise": "cube"},
        {"scale": (0, 1)},
        {"scale": (2, 1)},
        {"rotate": "w"},
        {"jitter": -1},
        {"jitter_most": -1},
        {"shift": -1},
    ],
)
def test_illegal_settings_are_refused(settings):
    with pytest.raises(ValueError, match="got"):
        PointAugment(**settings)


@pytest.mark.parametrize("normalise", ["ball", "deviation"])
def test_sums_are_those_of_numpy_along_the_points_to_the_last_bit(normalise):
    drawn = np.random.default_rng(3)
    for n in (1, 2, 7, 300, 5000):
        points = (drawn.normal(size=(n, 4)) * 10.0 ** drawn.integers(-5, 9) + 100).astype(np.float32)
        xyz = points[:, :3].astype(np.float64)
        xyz -= xyz.mean(axis=0)
        squares = np.square(xyz)
        size = np.sqrt(squares.sum(axis=1).max() if normalise == "ball" else squares.mean())
        expected = np.concatenate([(xyz / (size or 1)).astype(np.float32), points[:, 3:]], axis=1)
        assert (PointAugment(normalise=normalise)(points, drawn) == expected).all()
