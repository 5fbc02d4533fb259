"""Groups of points: centres by farthest point sampling, and the points nearest to each centre.

Shapes: B clouds of N points, G groups of K points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskstream.train.nn.chamfer import squared_distances


def farthest_points(xyz: Tensor, count: int) -> Tensor:
    """Farthest point sampling: the indexes int64 (B, count) of points of (B, N, 3), beginning with point 0.

    Each point is the one farthest from those chosen before. If a cloud has fewer distinct points, some are repeated.
    """
    if not 1 <= count <= xyz.shape[1]:
        raise ValueError(f"count must lie between 1 and the {xyz.shape[1]} points of a cloud, got {count}")
    rows = torch.arange(len(xyz), device=xyz.device)
    chosen = torch.zeros(len(xyz), count, dtype=torch.int64, device=xyz.device)
    nearest = torch.full(xyz.shape[:2], float("inf"), dtype=xyz.dtype, device=xyz.device)
    for i in range(1, count):
        last = xyz[rows, chosen[:, i - 1]]
        nearest = torch.minimum(nearest, (xyz - last[:, None]).square().sum(dim=2))
        chosen[:, i] = nearest.argmax(dim=1)
    return chosen


def group_points(xyz: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """The centres (B, G, 3) in clouds (B, N, 3) and the `size` points nearest to each, relative to it: (B, G, K, 3)."""
    if not 1 <= size <= xyz.shape[1]:
        raise ValueError(f"size must lie between 1 and the {xyz.shape[1]} points of a cloud, got {size}")
    rows = torch.arange(len(xyz), device=xyz.device)
    centres = xyz[rows[:, None], farthest_points(xyz, groups)]
    members = squared_distances(centres, xyz).topk(size, dim=2, largest=False, sorted=False).indices
    return centres, xyz[rows[:, None, None], members] - centres[:, :, None]
