"""Position embeddings: sinusoids along a line, along the axes of a grid, with wavelengths that fit it; and learnt.

Shapes: N tokens, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

SHORTEST = 3.0
"""The shortest wavelength, in tokens; below 2 tokens, waves alias."""


def rates(width: int) -> Tensor:
    """The angular frequencies of width / 2 waves in radians per token, float64 (width / 2,).

    They fall geometrically from 1 to nearly 1 / 10,000 (Vaswani et al., 2017, 3.5).
    """
    return torch.pow(10000.0, -torch.arange(0, width, 2, dtype=torch.float64) / width)


def sinusoid(length: int, width: int) -> Tensor:
    """Embeddings of positions 0 to length - 1, float32 (length, width): sines in the first half, then cosines."""
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rates(width)
    return torch.cat((angle.sin(), angle.cos()), dim=1).float()


def interleaved_sinusoid(length: int, width: int) -> Tensor:
    """The same, with sines in even columns and cosines in odd ones, as in Vaswani et al. (2017)."""
    return sinusoid(length, width).reshape(length, 2, -1).transpose(1, 2).flatten(1)


def axis_sinusoids(grid: tuple[int, ...], width: int) -> Tensor:
    """Position embeddings float32 (N, width) of a grid's tokens in row-major order.

    Each axis has an equal part of the width, with the sinusoid of its coordinate. ValueError if the width cannot be
    divided into equal, even parts.
    """
    if width % (2 * len(grid)):
        raise ValueError(
            f"positions in {len(grid)} dimensions need a width that is a multiple of {2 * len(grid)}, got {width}"
        )
    places = torch.cartesian_prod(*(torch.arange(length) for length in grid)).reshape(-1, len(grid))
    lines = [sinusoid(length, width // len(grid)) for length in grid]
    return torch.cat([line[places[:, axis]] for axis, line in enumerate(lines)], dim=1)


def grid_positions(grid: tuple[int, ...], width: int) -> Tensor:
    """Fixed position embeddings float32 (N, width) of the tokens of a grid in row-major order.

    Each axis that is longer than one token has an equal part of the width: sines and cosines whose wavelengths rise
    geometrically from 3 tokens to 4 times the length of the axis. The wavelengths of Vaswani et al. (2017) reach 10,000
    tokens; on axes of 7 to 64 tokens most of these waves are nearly constant, and small models are slow to learn which
    tokens are neighbours. ValueError if the width is not a multiple of 4 or is too small.
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


class Positions(nn.Module):
    """Fixed position embeddings float32 (N, D) per kind of token, as buffers that are not saved."""

    def __init__(self, of: Sequence[Tensor]) -> None:
        super().__init__()
        self.width = of[0].shape[1]
        for kind, one in enumerate(of):
            self.register_buffer(f"of_{kind}", one, persistent=False)

    def forward(self, kind: int = 0) -> Tensor:
        """The embeddings of a kind of token, (N, D)."""
        return cast(Tensor, getattr(self, f"of_{kind}"))


class LearntPositions(nn.Module):
    """Learnt position embeddings of one kind of token, apart for time and space, as in MAE-ST (Feichtenhofer et al.,
    2022, 3.2): a token has the sum of the vector of its time and that of its place in space.

    grid: the shape of the token grid, of which the first axis is time. Initial values are normal with deviation 0.02.
    """

    TABLES: ClassVar[tuple[str, ...]] = ("time", "space")

    def __init__(self, grid: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Parameter(torch.empty(grid[0], width))
        self.space = nn.Parameter(torch.empty(math.prod(grid[1:]), width))
        for table in (self.time, self.space):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, kind: int = 0) -> Tensor:
        """The embeddings (N, D) in row-major order of the grid; `kind` is 0."""
        return (self.time[:, None] + self.space).flatten(0, 1)
