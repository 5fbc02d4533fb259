"""The Chamfer distance of two clouds of points (Fan et al., 2017), which needs no order of them.

Shapes: B clouds, N and M points.
"""

from __future__ import annotations

from torch import Tensor


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (B, N, M) of points (B, N, 3) and (B, M, 3), axis by axis: exact also for close points."""
    total = (a[:, :, None, 0] - b[:, None, :, 0]).square()
    for axis in (1, 2):
        total = total + (a[:, :, None, axis] - b[:, None, :, axis]).square()
    return total


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared distance to the nearest point of the other cloud, both ways added: (B,), differentiable."""
    distance = squared_distances(a, b)
    return distance.amin(dim=2).mean(dim=1) + distance.amin(dim=1).mean(dim=1)
