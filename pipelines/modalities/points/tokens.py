"""How a cloud is cut into the tokens that a mask lies on: cubes of voxels, or groups of neighbouring points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ....shards.config import Config
from ...masks import Cues, TokenGrid
from .voxels import occupied_tokens, voxel_grid


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelTokens(Config):
    """Cubes of `patch`^3 voxels of a cloud in `resolution`^3 voxels: DiT-3D's tokens, on the grid (x, y, z).

    A mask that asks for the cue `occupied` is told in which tokens points lie. occupancy: of the "noised" points where
    the loader adds noise, for those are what a diffusion model sees, or of the "clean" ones. Which of the two
    FastDiT-3D takes is not published.
    """

    resolution: int = 32
    patch: int = 4
    occupancy: Literal["noised", "clean"] = "noised"

    def __post_init__(self) -> None:
        voxel_grid(self.resolution, self.patch)
        if self.occupancy not in ("noised", "clean"):
            raise ValueError(f"occupancy is of the 'noised' or the 'clean' points, got {self.occupancy!r}")

    @property
    def grid(self) -> TokenGrid:
        """(resolution / patch)^3 tokens."""
        return voxel_grid(self.resolution, self.patch)

    def cues(self, clean: torch.Tensor, noised: torch.Tensor) -> Cues:
        """What one view shows of its points, float32 (N, 3 or more), and of those with their noise, if any."""
        seen = clean if self.occupancy == "clean" else noised
        return Cues(occupied=occupied_tokens(seen[None], self.resolution, self.patch)[0].numpy())


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTokens(Config):
    """`groups` groups of `size` points, each around a centre: Point-MAE's tokens (Pang et al., 2022), on a line.

    The model finds them (train/tokens/point_groups.py): centres by farthest point sampling, members by distance.
    """

    groups: int = 64
    size: int = 32

    def __post_init__(self) -> None:
        if min(self.groups, self.size) < 1:
            raise ValueError(f"groups and size are 1 or more, got {self.groups} and {self.size}")

    @property
    def grid(self) -> TokenGrid:
        """One token a group, in the order in which the centres are found."""
        return TokenGrid(axes=("group",), shape=(self.groups,), patch=(self.size,))

    def cues(self, clean: torch.Tensor, noised: torch.Tensor) -> Cues:
        """None: groups are masked at random."""
        return Cues()


PointTokens = VoxelTokens | GroupTokens
