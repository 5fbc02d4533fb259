"""Distances between point clouds, and measures that compare a set of generated clouds with a set of real ones.

    measure     definition                                           source
    chamfer     the mean squared distance to the nearest point of    Fan et al., 2017
                the other cloud, summed over both directions
    coverage    the share of real clouds that are the nearest to     Achlioptas et al., 2018
                some generated cloud; higher is better
    matching    the mean distance (MMD) from a real cloud to the     Achlioptas et al., 2018
                nearest generated one; lower is better
    accuracy    1-NNA: how often a cloud's nearest neighbour is      Lopez-Paz and Oquab, 2017;
                of its own set; 0.5 if the sets cannot be told       for clouds Yang et al., 2019
                apart, 1 if they can

Shapes: B clouds, N and M points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskstream.train.nn.chamfer import chamfer

_AT_ONCE = 1 << 24  # the most point distances held in memory at a time


def chamfer_table(a: Tensor, b: Tensor) -> Tensor:
    """The Chamfer distance between each cloud of a (A, N, 3) and each of b (B, M, 3): float (A, B)."""
    if not a.numel() or not b.numel():
        raise ValueError(f"both sets need at least one cloud, got the shapes {tuple(a.shape)} and {tuple(b.shape)}")
    step = max(1, _AT_ONCE // (a.shape[1] * b.shape[1]))
    parts = [b[i : i + step] for i in range(0, len(b), step)]
    rows = [torch.cat([chamfer(cloud.expand(len(part), -1, -1), part) for part in parts]) for cloud in a]
    return torch.stack(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudDistances:
    """The measures of generated clouds against real ones, by Chamfer distance; see the head of this file."""

    coverage: float
    matching: float
    accuracy: float


def compare_sets(made: Tensor, real: Tensor) -> CloudDistances:
    """Compares generated clouds (A, N, 3) with real ones (B, M, 3) on the same scale.

    ValueError unless each set has 2 or more clouds.
    """
    if len(made) < 2 or len(real) < 2:
        raise ValueError(f"a comparison needs 2 or more clouds in each set, got {len(made)} and {len(real)}")
    across = chamfer_table(made, real)
    whole = torch.cat(
        (torch.cat((chamfer_table(made, made), across), dim=1), torch.cat((across.T, chamfer_table(real, real)), dim=1))
    )
    whole.fill_diagonal_(float("inf"))
    is_made = torch.arange(len(whole)) < len(made)
    nearest = whole.argmin(dim=1).cpu()
    return CloudDistances(
        coverage=len(set(across.argmin(dim=1).tolist())) / len(real),
        matching=float(across.amin(dim=0).mean()),
        accuracy=float((is_made[nearest] == is_made).float().mean()),
    )
