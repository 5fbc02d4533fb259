"""Distances of clouds against scipy's KD-tree, and what sets of clouds are said to be."""

import numpy as np
import pytest
import torch

from maskstream.train.nn.objectives import chamfer, compute_squared_distances
from maskstream.train.papers.fastdit3d.evaluate import compare_sets, compute_chamfer_table
from maskstream.train.papers.pointmae.model import group_points, sample_farthest_points

spatial = pytest.importorskip("scipy.spatial")


def clouds(batch, n, seed=0, spread=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, n, 3)) * spread)


def by_tree(a, b):
    there, back = spatial.cKDTree(b).query(a)[0], spatial.cKDTree(a).query(b)[0]
    return (there**2).mean() + (back**2).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chamfer_is_that_of_a_kd_tree(dtype):
    a, b = clouds(4, 300, seed=1).to(dtype), clouds(4, 211, seed=2).to(dtype)
    want = [by_tree(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    torch.testing.assert_close(chamfer(a, b), torch.tensor(want, dtype=dtype), rtol=1e-5, atol=0)


def test_close_points_far_away_keep_their_distance():
    a = torch.full((1, 5, 3), 1000.0)
    assert chamfer(a, a + 0.125).item() == 2 * 3 * 0.125**2
    assert chamfer(a, a).item() == 0


def test_a_table_holds_every_pair():
    a, b = clouds(3, 50, seed=3), clouds(5, 60, seed=4)
    table = compute_chamfer_table(a, b)
    want = [[by_tree(x, y) for y in b.numpy()] for x in a.numpy()]
    torch.testing.assert_close(table, torch.tensor(want))
    with pytest.raises(ValueError, match="both sets need at least one cloud"):
        compute_chamfer_table(a[:0], b)


def test_chamfer_pulls_points_to_their_nearest():
    a = torch.zeros(1, 1, 3, requires_grad=True)
    chamfer(a, torch.tensor([[[1.0, 0, 0], [3.0, 0, 0]]])).sum().backward()
    assert a.grad.tolist() == [[[-2 - (2 + 6) / 2, 0, 0]]]


def test_a_set_beside_itself_beside_one_cloud_and_beside_another_set():
    real = clouds(12, 40, seed=5)
    nearly = real + 1e-4 * clouds(12, 40, seed=6)
    same = compare_sets(nearly, real)
    assert same.coverage == 1
    assert same.accuracy == 0
    assert same.matching < 1e-6
    collapsed = compare_sets(real[:1] + 1e-4 * clouds(12, 40, seed=7), real)
    assert collapsed.coverage == 1 / 12
    other = compare_sets(clouds(12, 40, seed=8, spread=5), real)
    assert other.accuracy == 1
    mixed = clouds(60, 20, seed=9)
    assert compare_sets(mixed[:30], mixed[30:]).accuracy == pytest.approx(0.5, abs=0.2)
    with pytest.raises(ValueError, match="2 or more"):
        compare_sets(real[:1], real)


def plain_farthest(points, count):
    chosen = [0]
    while len(chosen) < count:
        gaps = ((points[:, None] - points[chosen]) ** 2).sum(axis=2).min(axis=1)
        chosen.append(int(gaps.argmax()))
    return chosen


def test_farthest_points_are_those_of_a_plain_loop():
    points = clouds(3, 200, seed=10)
    chosen = sample_farthest_points(points, 30)
    assert chosen.tolist() == [plain_farthest(cloud, 30) for cloud in points.numpy()]
    assert sample_farthest_points(torch.zeros(1, 5, 3), 5).shape == (1, 5)
    with pytest.raises(ValueError, match="got 201"):
        sample_farthest_points(points, 201)


def test_groups_are_the_nearest_points():
    points = clouds(2, 100, seed=11)
    centres, groups = group_points(points, 10, 7)
    for cloud, middles, members in zip(points.numpy(), centres.numpy(), groups.numpy(), strict=True):
        tree = spatial.cKDTree(cloud)
        for middle, group in zip(middles, members, strict=True):
            want = cloud[tree.query(middle, 7)[1]] - middle
            assert sorted(map(tuple, group.round(9).tolist())) == sorted(map(tuple, want.round(9).tolist()))
    with pytest.raises(ValueError, match="got 101"):
        group_points(points, 3, 101)


def test_distances_have_their_shape():
    assert compute_squared_distances(clouds(2, 3), clouds(2, 4)).shape == (2, 3, 4)
