"""The tokens of a point cloud: cubes of voxels, or groups of neighbouring points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from maskstream.pipelines.masks import Cues, TokenGrid
from maskstream.shards.config import Config

from .voxels import occupied_tokens, voxel_grid


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelTokens(Config):
    """Cubes of `patch`^3 voxels, of a cloud in `resolution`^3 voxels: DiT-3D's tokens, on the grid (x, y, z).

    Masks get the cue `occupied`: which tokens contain points. occupancy: whether it is computed from the "noised"
    points, which a diffusion model sees, or from the "clean" ones; without noise both are the same. FastDiT-3D does not
    publish which of the two it uses.
    """

    resolution: int = 32
    patch: int = 4
    occupancy: Literal["noised", "clean"] = "noised"

    def __post_init__(self) -> None:
        voxel_grid(self.resolution, self.patch)
        if self.occupancy not in ("noised", "clean"):
            raise ValueError(f"occupancy must be 'noised' or 'clean', got {self.occupancy!r}")

    @property
    def grid(self) -> TokenGrid:
        """The grid of (resolution / patch)^3 tokens."""
        return voxel_grid(self.resolution, self.patch)

    def cues(self, clean: torch.Tensor, noised: torch.Tensor) -> Cues:
        """The cue `occupied` of one view, from its clean and noised points, float32 (N, 3 or more)."""
        seen = clean if self.occupancy == "clean" else noised
        return Cues(occupied=occupied_tokens(seen[None], self.resolution, self.patch)[0].numpy())


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTokens(Config):
    """`groups` groups of the `size` points nearest to a centre: Point-MAE's tokens (Pang et al., 2022), on one axis.

    The model makes the groups (papers/pointmae/groups.py): centres by farthest point sampling, members by k nearest
    neighbours.
    """

    groups: int = 64
    size: int = 32

    def __post_init__(self) -> None:
        if min(self.groups, self.size) < 1:
            raise ValueError(f"groups and size must be at least 1, got {self.groups} and {self.size}")

    @property
    def grid(self) -> TokenGrid:
        """The grid with one token per group, in the order in which farthest point sampling finds the centres."""
        return TokenGrid(axes=("group",), shape=(self.groups,), patch=(self.size,))

    def cues(self, clean: torch.Tensor, noised: torch.Tensor) -> Cues:
        """No cues of points float32 (N, 3 or more): the groups are unknown until the model makes them."""
        return Cues()


PointTokens = VoxelTokens | GroupTokens
