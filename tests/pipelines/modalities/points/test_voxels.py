"""Voxelisation equals a plain loop, on every device."""

import numpy as np
import pytest
import torch

from maskstream.pipelines.modalities.points.tokens import (
    compute_voxel_grid,
    find_occupied_tokens,
    interpolate_voxels,
    number_point_tokens,
    scale_to_voxels,
    voxelise,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def clouds(batch=3, n=400, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(batch, n, columns)) * [[[3.0]], [[0.01]], [[70.0]]][:batch]
    return torch.from_numpy(points.astype(np.float32))


def plain(points, resolution):
    """The rule in float64, one point at a time: the voxel of each point, the sums and counts of each voxel."""
    xyz = points[:, :3].astype(np.float64)
    xyz = xyz - xyz.mean(axis=0)
    unit = xyz / (2 * np.sqrt((xyz**2).sum(axis=1).max())) + 0.5
    cells = [tuple(round(min(max(v * resolution, 0), resolution - 1)) for v in point) for point in unit]
    sums, counts = np.zeros((points.shape[1], *[resolution] * 3)), np.zeros([resolution] * 3, dtype=int)
    for cell, point in zip(cells, points, strict=True):
        sums[(slice(None), *cell)] += point
        counts[cell] += 1
    return cells, sums, counts


@pytest.mark.parametrize("resolution", [1, 8, 33])
def test_voxels_equal_a_plain_loop(device, resolution):
    points = clouds(columns=5)
    voxels = voxelise(points.to(device), resolution)
    assert voxels.features.shape == (3, 5, *[resolution] * 3)
    for i, cloud in enumerate(points.numpy()):
        _, sums, counts = plain(cloud, resolution)
        assert voxels.counts[i].tolist() == counts.tolist()
        means = sums / np.maximum(counts, 1)
        np.testing.assert_allclose(voxels.features[i].cpu(), means, rtol=2e-5, atol=1e-4 * np.abs(cloud).max())
        assert voxels.reach[i].item() == pytest.approx(
            np.linalg.norm(cloud[:, :3] - cloud[:, :3].mean(0), axis=1).max()
        )
    assert voxels.counts.sum() == points.shape[0] * points.shape[1]


def test_a_cloud_is_the_same_alone_and_in_a_batch():
    points = clouds()
    together = voxelise(points, 16)
    for i in range(len(points)):
        alone = voxelise(points[i : i + 1], 16)
        assert torch.equal(alone.features[0], together.features[i])
        assert torch.equal(alone.places[0], together.places[i])


def test_voxels_are_invariant_to_shift_and_scale_and_lie_inside():
    points = clouds(seed=1)
    places = scale_to_voxels(points, 32)
    assert places.min() >= 0
    assert places.max() <= 31
    torch.testing.assert_close(scale_to_voxels(points * 2 + 0.5, 32), places, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "points", [torch.tensor([[[7.0, 8.0, 9.0]]]), torch.full((1, 50, 3), 1e20), torch.zeros(1, 9, 3)]
)
def test_points_that_coincide_lie_in_the_middle(points):
    voxels = voxelise(points, 8)
    assert voxels.counts[0, 4, 4, 4] == points.shape[1]
    assert torch.isfinite(voxels.places).all()


def test_interpolation_is_exact_at_voxels_and_for_linear_grids():
    r = 6
    axes = torch.stack(torch.meshgrid(*[torch.arange(r, dtype=torch.float32)] * 3, indexing="ij"), dim=-1)
    linear = (axes @ torch.tensor([[2.0, 1.0], [-1.0, 0.0], [0.5, 3.0]]) + 4)[None]
    places = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) * (r - 1)
    want = places @ torch.tensor([[2.0, 1.0], [-1.0, 0.0], [0.5, 3.0]]) + 4
    torch.testing.assert_close(interpolate_voxels(linear, places), want, atol=1e-4, rtol=1e-5)
    noise = torch.randn(1, r, r, r, 2, generator=torch.Generator().manual_seed(1))
    corners = axes.reshape(1, -1, 3)
    assert torch.equal(interpolate_voxels(noise, corners)[0], noise.reshape(-1, 2))


def test_interpolation_has_the_gradient_of_its_weights():
    grid = torch.zeros(1, 4, 4, 4, 1, dtype=torch.float64, requires_grad=True)
    places = torch.tensor([[[1.25, 2.5, 0.0], [3.0, 3.0, 3.0]]], dtype=torch.float64)
    interpolate_voxels(grid, places).sum().backward()
    assert grid.grad.sum() == pytest.approx(2)
    assert grid.grad[0, 1, 2, 0, 0] == pytest.approx(0.75 * 0.5)
    assert grid.grad[0, 3, 3, 3, 0] == pytest.approx(1)


@pytest.mark.parametrize("resolution", [16, 32])
def test_a_token_is_occupied_if_it_contains_a_point(device, resolution):
    patch, side = 4, resolution // 4
    points = clouds(seed=2)
    occupied = find_occupied_tokens(points.to(device), resolution, patch).cpu()
    tokens = number_point_tokens(scale_to_voxels(points, resolution), resolution, patch)
    for i, cloud in enumerate(points.numpy()):
        cells, _, _ = plain(cloud, resolution)
        numbers = [((x // patch) * side + y // patch) * side + z // patch for x, y, z in cells]
        assert tokens[i].tolist() == numbers
        assert set(occupied[i].nonzero().flatten().tolist()) == set(numbers)


def test_a_voxel_whose_mean_is_zero_is_occupied():
    points = torch.tensor([[[1.0, 1, 1], [-1.0, -1, -1], [0.0, 0, 0]]])
    voxels = voxelise(points, 8)
    assert not voxels.features[0, :, 4, 4, 4].any()
    assert find_occupied_tokens(points, 8, 2)[0, (2 * 4 + 2) * 4 + 2]


@pytest.mark.parametrize(("resolution", "patch"), [(30, 4), (32, 0), (0, 4), (4, 8)])
def test_patches_fill_the_cube(resolution, patch):
    with pytest.raises(ValueError, match="not a positive multiple"):
        compute_voxel_grid(resolution, patch)
    assert compute_voxel_grid(64, 4).size == 4096
    assert compute_voxel_grid(128, 4).size == 32768
