"""Positions of tokens, as sines and cosines: along a line, along the axes of a grid, and with waves that fit a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHORTEST = 3.0
"""Tokens of the shortest wave; shorter ones than two could not be told from longer ones."""


def rates(width: int) -> Tensor:
    """The angles that width / 2 waves turn by from a place to the next, float64: 1 to nearly 1 / 10,000, falling
    geometrically (Vaswani et al., 2017, 3.5).
    """
    return torch.pow(10000.0, -torch.arange(0, width, 2, dtype=torch.float64) / width)


def sinusoid(length: int, width: int) -> Tensor:
    """Places 0 to length - 1 on a line, float32 (length, width): sines in the first half, cosines in the second."""
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rates(width)
    return torch.cat((angle.sin(), angle.cos()), dim=1).float()


def interleaved_sinusoid(length: int, width: int) -> Tensor:
    """The same with sines in even columns and cosines in odd ones, as the transformer has them."""
    return sinusoid(length, width).reshape(length, 2, -1).transpose(1, 2).flatten(1)


def axis_sinusoids(grid: tuple[int, ...], width: int) -> Tensor:
    """Positions float32 (N, width) of a grid's tokens in row-major order: an equal part of the width for each axis,
    which is a line. ValueError where the width has no equal, even parts.
    """
    if width % (2 * len(grid)):
        raise ValueError(
            f"positions in {len(grid)} dimensions need a width that is a multiple of {2 * len(grid)}, got {width}"
        )
    places = torch.cartesian_prod(*(torch.arange(length) for length in grid)).reshape(-1, len(grid))
    lines = [sinusoid(length, width // len(grid)) for length in grid]
    return torch.cat([line[places[:, axis]] for axis, line in enumerate(lines)], dim=1)


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
