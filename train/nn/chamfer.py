"""The Chamfer distance between point clouds (Fan et al., 2017). It does not depend on the order of the points.

Shapes: B clouds, N and M points.
"""

from __future__ import annotations

from torch import Tensor


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (B, N, M) between points (B, N, 3) and (B, M, 3).

    They are summed axis by axis, which stays exact for points that lie close together.
    """
    total = (a[:, :, None, 0] - b[:, None, :, 0]).square()
    for axis in (1, 2):
        total = total + (a[:, :, None, axis] - b[:, None, :, axis]).square()
    return total


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared distance from each point to its nearest point in the other cloud, summed over both directions.

    float (B,), differentiable.
    """
    distance = squared_distances(a, b)
    return distance.amin(dim=2).mean(dim=1) + distance.amin(dim=1).mean(dim=1)
