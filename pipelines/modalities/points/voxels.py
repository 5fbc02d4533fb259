"""Voxels of point clouds, batched, on any device: where points lie in a cube of R^3 cells, what lies in each cell.

The rule is DiT-3D's (Mo et al., 2023; after Point-Voxel CNN): a cloud is centred, divided by twice the greatest norm
and moved by 0.5, so that it lies in the unit cube; times R, clamped to [0, R - 1] and rounded that is each point's
voxel.

Shapes: B clouds of N points with C features, resolution R, patches of p^3 voxels. Tokens are numbered in C order of
(x, y, z). Sums are taken with scatter_add_: on the CPU in the order of the points, so that results repeat bit by bit;
on CUDA in any order unless torch.use_deterministic_algorithms(True) is set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...masks.core.grid import TokenGrid
from ...stream.batch import Movable


@dataclass(frozen=True, kw_only=True, slots=True)
class Voxels(Movable):
    """A batch of clouds in voxels.

    features: float32 (B, C, R, R, R), the mean of the points' features in each voxel, 0 where there is none. counts:
    int64 (B, R, R, R), the points in each. places: float32 (B, N, 3), the points in units of voxels, in [0, R - 1];
    point n lies in the voxel that `places[:, n]` rounds to. reach: float32 (B,), half the edge of the cube in the
    points' own units: how far from their mean the farthest lies.
    """

    features: Tensor
    counts: Tensor
    places: Tensor
    reach: Tensor


def voxel_places(points: Tensor, resolution: int) -> Tensor:
    """Points (B, N, 3 or more) in units of voxels: float32 (B, N, 3) in [0, R - 1].

    A cloud whose points all coincide, such as one of a single point, lies in the middle. The mean is taken in float64,
    so that the order of the sum does not decide where a point lies.
    """
    if resolution < 1:
        raise ValueError(f"the resolution is voxels along an edge, 1 or more, got {resolution}")
    centred = _centred(points)
    unit = centred / (2 * _reach(centred)[:, None, None]).clamp_min(torch.finfo(torch.float32).tiny) + 0.5
    return (unit * resolution).clamp(0, resolution - 1)


def _centred(points: Tensor) -> Tensor:
    """x, y, z less their mean, float32 (B, N, 3)."""
    xyz = points[..., :3].float()
    return xyz - xyz.double().mean(dim=1, keepdim=True).float()


def _reach(centred: Tensor) -> Tensor:
    """The greatest norm in each cloud, float32 (B,)."""
    return centred.square().sum(dim=2).amax(dim=1).sqrt()


def voxel_numbers(places: Tensor, resolution: int) -> Tensor:
    """The number of each point's voxel in C order of (x, y, z): int64 (B, N); halves round to even."""
    cells = places.round().long()
    return (cells[..., 0] * resolution + cells[..., 1]) * resolution + cells[..., 2]


@torch.no_grad()
def voxelise(points: Tensor, resolution: int, places: Tensor | None = None) -> Voxels:
    """Clouds (B, N, C), of which the first three columns are x, y, z, in voxels; all columns are their features.

    places: where the points lie, by default `voxel_places(points, resolution)`. Only voxels with points are written to,
    so it costs what the points cost, however empty the cube is. There is no gradient.
    """
    batch, _, columns = points.shape
    where = voxel_places(points, resolution) if places is None else places
    at = voxel_numbers(where, resolution)
    counts = _zeros(batch, resolution**3, like=at)
    counts.scatter_add_(1, at, torch.ones_like(at))
    features = _zeros(batch, columns, resolution**3, like=points.float())
    each = at[:, None].expand(-1, columns, -1)
    features.scatter_add_(2, each, points.float().transpose(1, 2))
    features.scatter_(2, each, features.gather(2, each) / counts.gather(1, at)[:, None])
    cube = (resolution,) * 3
    return Voxels(
        features=features.view(batch, columns, *cube),
        counts=counts.view(batch, *cube),
        places=where,
        reach=_reach(_centred(points)),
    )


def _zeros(*shape: int, like: Tensor) -> Tensor:
    """Zeros of a shape, on the device and of the kind of another tensor.

    numpy's memory comes from the system as zeros, page by page when it is touched; torch writes all of it.
    """
    if like.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.from_numpy(np.zeros(shape, dtype=np.int64 if like.dtype == torch.int64 else np.float32))
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def devoxelise(grid: Tensor, places: Tensor) -> Tensor:
    """The values of a grid (B, R, R, R, C) at places (B, N, 3) in units of voxels, by trilinear interpolation.

    Returns (B, N, C) in the grid's dtype. At whole places they are the voxels' own values.
    """
    batch, resolution, columns = len(grid), grid.shape[1], grid.shape[4]
    low = places.floor().clamp(0, max(resolution - 2, 0))
    share = (places - low).clamp(0, 1)
    corner = low.long()
    values = grid.reshape(batch, -1, columns)
    out = values.new_zeros(*places.shape[:2], columns)
    for corner_index in range(8):
        step = torch.tensor([corner_index >> 2 & 1, corner_index >> 1 & 1, corner_index & 1], device=places.device)
        at = voxel_numbers((corner + step).clamp_max(resolution - 1), resolution)
        weight = torch.where(step.bool(), share, 1 - share).prod(dim=2, keepdim=True)
        out = out + weight.to(values.dtype) * values.gather(1, at[..., None].expand(-1, -1, columns))
    return out


def voxel_grid(resolution: int, patch: int) -> TokenGrid:
    """The (x, y, z) grid of tokens of `patch`^3 voxels; ValueError where they do not fill the cube."""
    if patch < 1 or resolution < 1 or resolution % patch:
        raise ValueError(
            f"resolution={resolution} is not a positive multiple of patch={patch}; "
            f"{max(resolution // max(patch, 1), 1) * max(patch, 1)} is"
        )
    return TokenGrid(axes=("x", "y", "z"), shape=(resolution // patch,) * 3, patch=(patch,) * 3)


def point_tokens(places: Tensor, resolution: int, patch: int) -> Tensor:
    """The number of the token that each point's voxel belongs to: int64 (B, N)."""
    side = voxel_grid(resolution, patch).shape[0]
    return voxel_numbers(torch.div(places.round(), patch, rounding_mode="floor"), side)


def occupied_tokens(points: Tensor, resolution: int, patch: int) -> Tensor:
    """Whether any point lies in a token's patch^3 voxels: bool (B, (R / patch)^3).

    Points decide, not features: a voxel may hold points whose mean is 0.
    """
    tokens = point_tokens(voxel_places(points, resolution), resolution, patch)
    occupied = torch.zeros(len(points), voxel_grid(resolution, patch).size, dtype=torch.bool, device=points.device)
    return occupied.scatter_(1, tokens, torch.ones_like(tokens, dtype=torch.bool))
