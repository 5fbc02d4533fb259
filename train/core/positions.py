"""Positions of tokens in a grid: waves along each of its axes, none longer than the grid asks for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHORTEST = 3.0
"""Tokens of the shortest wave; shorter ones than two could not be told from longer ones."""


def grid_positions(grid: tuple[int, ...], width: int) -> Tensor:
    """Fixed positions float32 (N, width) of the tokens of a grid in row-major order.

    Each axis that is longer than one token has an equal part of the width, sines and cosines of waves whose lengths
    rise geometrically from 3 tokens to 4 times the axis. Those of Vaswani et al. (2017) reach 10,000 tokens: on grids
    of 7 to 64 most of them stand still, and small models take long to find what lies beside a token. ValueError where
    the width is not a multiple of 4 or too small.
    """
    axes = [axis for axis, length in enumerate(grid) if length > 1]
    pairs = width // 2
    if width % 4 or not axes or pairs < len(axes):
        raise ValueError(f"positions of a grid {grid} need a width that is a multiple of 4, 2 an axis, got {width}")
    places = torch.cartesian_prod(*(torch.arange(length, dtype=torch.float64) for length in grid))
    columns = []
    for n, axis in enumerate(axes):
        own = pairs * (n + 1) // len(axes) - pairs * n // len(axes)
        lengths = torch.logspace(math.log10(SHORTEST), math.log10(4 * grid[axis]), own, dtype=torch.float64)
        angle = places.reshape(-1, len(grid))[:, axis, None] * (2 * math.pi / lengths)
        columns += [angle.sin(), angle.cos()]
    return torch.cat(columns, dim=1).float()
