"""Groups of points: centres that lie far from each other, and the points nearest to each.

Shapes: B clouds of N points, G groups of K points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.chamfer import squared_distances


def farthest_points(xyz: Tensor, count: int) -> Tensor:
    """`count` points of (B, N, 3), each the farthest from those before it, from point 0 on: int64 (B, count).

    Of a cloud with fewer different points, some come more than once.
    """
    if not 1 <= count <= xyz.shape[1]:
        raise ValueError(f"of {xyz.shape[1]} points 1 to {xyz.shape[1]} can be chosen, got {count}")
    rows = torch.arange(len(xyz), device=xyz.device)
    chosen = torch.zeros(len(xyz), count, dtype=torch.int64, device=xyz.device)
    nearest = torch.full(xyz.shape[:2], float("inf"), dtype=xyz.dtype, device=xyz.device)
    for i in range(1, count):
        last = xyz[rows, chosen[:, i - 1]]
        nearest = torch.minimum(nearest, (xyz - last[:, None]).square().sum(dim=2))
        chosen[:, i] = nearest.argmax(dim=1)
    return chosen


def group_points(xyz: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """The centres (B, G, 3) of (B, N, 3) and the `size` points nearest to each, relative to it: (B, G, K, 3)."""
    if not 1 <= size <= xyz.shape[1]:
        raise ValueError(f"a group of {xyz.shape[1]} points has 1 to {xyz.shape[1]}, got {size}")
    rows = torch.arange(len(xyz), device=xyz.device)
    centres = xyz[rows[:, None], farthest_points(xyz, groups)]
    members = squared_distances(centres, xyz).topk(size, dim=2, largest=False, sorted=False).indices
    return centres, xyz[rows[:, None, None], members] - centres[:, :, None]
