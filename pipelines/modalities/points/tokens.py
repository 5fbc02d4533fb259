"""Tokens of a point cloud: cubes of voxels, or groups of neighbouring points; and interpolation back to the points.

Voxels follow DiT-3D (Mo et al., 2023; after Point-Voxel CNN). A cloud is centred, divided by twice its largest norm and
shifted by 0.5, so that it lies in the unit cube. The coordinates times R, clamped to [0, R - 1] and rounded, are the
voxel of each point.

Shapes: B clouds of N points with C features, resolution R, patches of p^3 voxels. Voxels and tokens are numbered in C
order of (x, y, z). Sums use scatter_add_, which is deterministic on the CPU, and on CUDA only with
torch.use_deterministic_algorithms(True).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.masks import Cues, TokenGrid
from maskstream.pipelines.stream.batch import Movable
from maskstream.shards.config import Config
from maskstream.shards.limits import PositiveInt


@dataclass(frozen=True, kw_only=True, slots=True)
class Voxels(Movable):
    """A batch of voxelised point clouds."""

    features: Tensor
    """float32 (B, C, R, R, R): mean feature of the points in each voxel; 0 in empty voxels."""
    counts: Tensor
    """int64 (B, R, R, R): number of points in each voxel."""
    places: Tensor
    """float32 (B, N, 3): coordinates in units of voxels, in [0, R - 1]; rounding them yields the voxel
    of each point.
    """
    reach: Tensor
    """float32 (B,): largest distance of a point from its cloud's mean, in the points' units; half the
    edge of the cube.
    """


def scale_to_voxels(points: Tensor, resolution: int) -> Tensor:
    """Convert the coordinates of points (B, N, 3 or more) to units of voxels: float32 (B, N, 3), in [0, R - 1].

    A cloud whose points all coincide lies in the middle of the cube. The mean is computed in float64, so the voxel of a
    point does not depend on the order of the sum.

    Raises:
        ValueError: The resolution is below 1.
    """
    if resolution < 1:
        raise ValueError(f"resolution (the number of voxels along an edge) must be at least 1, got {resolution}")
    centred = _centre_points(points)
    unit = centred / (2 * _measure_reach(centred)[:, None, None]).clamp_min(torch.finfo(torch.float32).tiny) + 0.5
    return (unit * resolution).clamp(0, resolution - 1)


def _centre_points(points: Tensor) -> Tensor:
    """Subtract the mean of x, y, z: float32 (B, N, 3)."""
    xyz = points[..., :3].float()
    return xyz - xyz.double().mean(dim=1, keepdim=True).float()


def _measure_reach(centred: Tensor) -> Tensor:
    """Return the largest norm in each cloud, float32 (B,)."""
    return centred.square().sum(dim=2).amax(dim=1).sqrt()


def number_voxels(places: Tensor, resolution: int) -> Tensor:
    """Return the voxel number of each point, int64 (B, N), in C order of (x, y, z); halves round to even."""
    cells = places.round().long()
    return (cells[..., 0] * resolution + cells[..., 1]) * resolution + cells[..., 2]


@torch.no_grad()
def voxelise(points: Tensor, resolution: int, places: Tensor | None = None) -> Voxels:
    """Voxelise clouds (B, N, C); the first three columns are x, y, z, and all C columns are features.

    `places` are coordinates in units of voxels, by default `scale_to_voxels(points, resolution)`. Only occupied voxels
    are written, so on the CPU the cost hardly depends on the resolution. No gradient is computed.
    """
    batch, _, columns = points.shape
    where = scale_to_voxels(points, resolution) if places is None else places
    at = number_voxels(where, resolution)
    counts = _make_zeros(batch, resolution**3, like=at)
    counts.scatter_add_(1, at, torch.ones_like(at))
    features = _make_zeros(batch, columns, resolution**3, like=points.float())
    each = at[:, None].expand(-1, columns, -1)
    features.scatter_add_(2, each, points.float().transpose(1, 2))
    features.scatter_(2, each, features.gather(2, each) / counts.gather(1, at)[:, None])
    cube = (resolution,) * 3
    return Voxels(
        features=features.view(batch, columns, *cube),
        counts=counts.view(batch, *cube),
        places=where,
        reach=_measure_reach(_centre_points(points)),
    )


def _make_zeros(*shape: int, like: Tensor) -> Tensor:
    """Allocate zeros with the device and dtype of `like`.

    On the CPU, numpy allocates them: the system clears its pages on first use, while torch writes all of them.
    """
    if like.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.from_numpy(np.zeros(shape, dtype=np.int64 if like.dtype == torch.int64 else np.float32))
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def interpolate_voxels(grid: Tensor, places: Tensor) -> Tensor:
    """Interpolate a grid (B, R, R, R, C) trilinearly at `places` (B, N, 3), in units of voxels.

    Returns (B, N, C) in the grid's dtype. At integer coordinates, these are the voxels' own values.
    """
    batch, resolution, columns = len(grid), grid.shape[1], grid.shape[4]
    low = places.floor().clamp(0, max(resolution - 2, 0))
    share = (places - low).clamp(0, 1)
    corner = low.long()
    values = grid.reshape(batch, -1, columns)
    out = values.new_zeros(*places.shape[:2], columns)
    for corner_index in range(8):
        step = torch.tensor([corner_index >> 2 & 1, corner_index >> 1 & 1, corner_index & 1], device=places.device)
        at = number_voxels((corner + step).clamp_max(resolution - 1), resolution)
        weight = torch.where(step.bool(), share, 1 - share).prod(dim=2, keepdim=True)
        out = out + weight.to(values.dtype) * values.gather(1, at[..., None].expand(-1, -1, columns))
    return out


def compute_voxel_grid(resolution: int, patch: int) -> TokenGrid:
    """Return the (x, y, z) grid of tokens of `patch`^3 voxels.

    Raises:
        ValueError: The resolution is not a multiple of the patch.
    """
    if patch < 1 or resolution < 1 or resolution % patch:
        raise ValueError(
            f"resolution={resolution} is not a positive multiple of patch={patch}; "
            f"{max(resolution // max(patch, 1), 1) * max(patch, 1)} is"
        )
    return TokenGrid(axes=("x", "y", "z"), shape=(resolution // patch,) * 3, patch=(patch,) * 3)


def number_point_tokens(places: Tensor, resolution: int, patch: int) -> Tensor:
    """Return the token number of each point, int64 (B, N)."""
    side = compute_voxel_grid(resolution, patch).shape[0]
    return number_voxels(torch.div(places.round(), patch, rounding_mode="floor"), side)


def find_occupied_tokens(points: Tensor, resolution: int, patch: int) -> Tensor:
    """Return which tokens contain a point: bool (B, (R / patch)^3).

    Points are counted, since the mean feature of an occupied voxel may be 0.
    """
    tokens = number_point_tokens(scale_to_voxels(points, resolution), resolution, patch)
    occupied = torch.zeros(
        len(points), compute_voxel_grid(resolution, patch).size, dtype=torch.bool, device=points.device
    )
    return occupied.scatter_(1, tokens, torch.ones_like(tokens, dtype=torch.bool))


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelTokens(Config):
    """Cubes of `patch`^3 voxels from a cloud in `resolution`^3 voxels: DiT-3D's tokens, on the grid (x, y, z).

    Masks can read `occupied`: the tokens that contain points.

    Attributes:
        resolution: Voxels along an edge.
        patch: Voxels along the edge of a token.
        occupancy: Compute `occupied` from the "noised" points, which a diffusion model sees, or from the "clean" ones;
            without noise, both are the same. FastDiT-3D does not publish which it uses.
    """

    resolution: int = 32
    patch: int = 4
    occupancy: Literal["noised", "clean"] = "noised"

    def validate(self) -> None:
        compute_voxel_grid(self.resolution, self.patch)

    @property
    def grid(self) -> TokenGrid:
        """Grid of (resolution / patch)^3 tokens."""
        return compute_voxel_grid(self.resolution, self.patch)

    def cues(self, clean: torch.Tensor, noised: torch.Tensor) -> Cues:
        """Return `occupied` for one view, from its clean and noised points, float32 (N, 3 or more)."""
        seen = clean if self.occupancy == "clean" else noised
        return Cues(occupied=find_occupied_tokens(seen[None], self.resolution, self.patch)[0].numpy())


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTokens(Config):
    """`groups` groups of the `size` points nearest to a centre: Point-MAE's tokens (Pang et al., 2022), on one axis.

    The model forms the groups (papers/pointmae/groups.py): centres by farthest point sampling, members by k nearest
    neighbours.

    Attributes:
        groups: Number of groups.
        size: Points per group.
    """

    groups: PositiveInt = 64
    size: PositiveInt = 32

    @property
    def grid(self) -> TokenGrid:
        """Grid with one token per group, in the order in which farthest point sampling finds the centres."""
        return TokenGrid(axes=("group",), shape=(self.groups,), patch=(self.size,))

    def cues(self, clean: torch.Tensor, noised: torch.Tensor) -> Cues:
        """Return no mask inputs for points float32 (N, 3 or more): the groups are unknown until the
        model forms them.
        """
        return Cues()


PointTokens = VoxelTokens | GroupTokens
