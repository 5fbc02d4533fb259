"""Distances of point clouds, and how good a set of made clouds is beside a set of real ones.

    measure     question                                             source
    chamfer     how far two clouds are from each other: mean         Fan et al., 2017
                squared distances, both ways added
    coverage    what share of the real clouds is the nearest of a    Achlioptas et al., 2018
                made one; higher is better
    matching    how far a real cloud is from the nearest made one;   Achlioptas et al., 2018
                lower is better
    accuracy    how often the nearest other cloud of a cloud is of   1-NNA: Lopez-Paz and Oquab, 2017;
                its own set; 0.5 where the sets cannot be told       for clouds Yang et al., 2019
                apart, 1 where they can

Shapes: B clouds, N and M points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.chamfer import chamfer

_AT_ONCE = 1 << 24  # distances between points that are held at a time


def chamfer_table(a: Tensor, b: Tensor) -> Tensor:
    """The Chamfer distance of every cloud of a (A, N, 3) to every one of b (B, M, 3): float (A, B)."""
    if not a.numel() or not b.numel():
        raise ValueError(f"both sets need clouds, got the shapes {tuple(a.shape)} and {tuple(b.shape)}")
    step = max(1, _AT_ONCE // (a.shape[1] * b.shape[1]))
    parts = [b[i : i + step] for i in range(0, len(b), step)]
    rows = [torch.cat([chamfer(cloud.expand(len(part), -1, -1), part) for part in parts]) for cloud in a]
    return torch.stack(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetDistances:
    """Made clouds beside real ones, by Chamfer distance; see the head of this file."""

    coverage: float
    matching: float
    accuracy: float


def compare_sets(made: Tensor, real: Tensor) -> SetDistances:
    """made (A, N, 3), real (B, M, 3), on one scale. ValueError unless each has 2 or more clouds."""
    if len(made) < 2 or len(real) < 2:
        raise ValueError(f"a comparison needs 2 or more clouds in each set, got {len(made)} and {len(real)}")
    across = chamfer_table(made, real)
    whole = torch.cat(
        (torch.cat((chamfer_table(made, made), across), dim=1), torch.cat((across.T, chamfer_table(real, real)), dim=1))
    )
    whole.fill_diagonal_(float("inf"))
    is_made = torch.arange(len(whole)) < len(made)
    nearest = whole.argmin(dim=1).cpu()
    return SetDistances(
        coverage=len(set(across.argmin(dim=1).tolist())) / len(real),
        matching=float(across.amin(dim=0).mean()),
        accuracy=float((is_made[nearest] == is_made).float().mean()),
    )
