"""Tokens of a grid: position embeddings, selection by index, and attention within windows.

Positions are sinusoids along a line, along the axes of a grid, with wavelengths that fit it, or learnt.

Selecting from all rows as one copies whole tokens. Indexing by (row, index) is 7 to 18 times slower on a CPU, but its
gradient is deterministic on a CUDA device too. Gathering with an expanded index reads one index per value.

The stack in which every second block uses shifted windows is Audio-MAE's (Huang et al., 2022, section 3.3): windows of
4 x 4 over 64 x 8 tokens, shifted by 2 along time, model the local patterns of a spectrogram better than global
attention. The shift wraps around (Swin, Liu et al., 2021), and a mask keeps the two ends of the grid from attending to
each other.

Shapes: N tokens, D channels.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

SHORTEST = 3.0
"""The shortest wavelength, in tokens; below 2 tokens, waves alias."""


def rates(width: int) -> Tensor:
    """Return the angular frequencies of width / 2 waves in radians per token, float64 (width / 2,).

    They fall geometrically from 1 to nearly 1 / 10,000 (Vaswani et al., 2017, 3.5).
    """
    return torch.pow(10000.0, -torch.arange(0, width, 2, dtype=torch.float64) / width)


def build_sinusoid(length: int, width: int) -> Tensor:
    """Return embeddings of positions 0 to length - 1, float32 (length, width): sines in the first half, then
    cosines.

    Args:
        length: Number of positions.
        width: Number of channels.
    """
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rates(width)
    return torch.cat((angle.sin(), angle.cos()), dim=1).float()


def build_interleaved_sinusoid(length: int, width: int) -> Tensor:
    """Return the values of `build_sinusoid`, with sines in even and cosines in odd columns, as in Vaswani et al.
    (2017).

    Args:
        length: Number of positions.
        width: Number of channels.
    """
    return build_sinusoid(length, width).reshape(length, 2, -1).transpose(1, 2).flatten(1)


def build_axis_sinusoids(grid: tuple[int, ...], width: int) -> Tensor:
    """Return position embeddings of a grid's tokens in row-major order.

    Each axis has an equal part of the width, with the sinusoid of its coordinate.

    Args:
        grid: Shape of the grid.
        width: Number of channels.

    Returns:
        float32 (N, width).

    Raises:
        ValueError: The width cannot be divided into equal, even parts.
    """
    if width % (2 * len(grid)):
        raise ValueError(
            f"positions in {len(grid)} dimensions need a width that is a multiple of {2 * len(grid)}, got {width}"
        )
    places = torch.cartesian_prod(*(torch.arange(length) for length in grid)).reshape(-1, len(grid))
    lines = [build_sinusoid(length, width // len(grid)) for length in grid]
    return torch.cat([line[places[:, axis]] for axis, line in enumerate(lines)], dim=1)


def build_grid_positions(grid: tuple[int, ...], width: int) -> Tensor:
    """Return fixed position embeddings of the tokens of a grid in row-major order.

    Each axis that is longer than one token has an equal part of the width: sines and cosines whose wavelengths rise
    geometrically from 3 tokens to 4 times the length of the axis. The wavelengths of Vaswani et al. (2017) reach 10,000
    tokens; on axes of 7 to 64 tokens most of these waves are nearly constant, and small models are slow to learn which
    tokens are neighbours.

    Args:
        grid: Shape of the grid.
        width: Number of channels.

    Returns:
        float32 (N, width).

    Raises:
        ValueError: The width is not a multiple of 4 or is too small.
    """
    axes = [axis for axis, length in enumerate(grid) if length > 1]
    pairs = width // 2
    if width % 4 or not axes or pairs < len(axes):
        raise ValueError(f"positions on a grid {grid} need a width that is a multiple of 4, 2 per axis, got {width}")
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
        """Return the embeddings (N, D) of a kind of token."""
        return list(self.buffers())[kind]


class LearntPositions(nn.Module):
    """Learned position embeddings of one kind of token, separate for time and space, as in MAE-ST (Feichtenhofer et
    al., 2022, 3.2): a token gets the sum of the vectors of its time and of its position in space.

    Initial values are normal with standard deviation 0.02.

    Args:
        grid: Shape of the token grid; the first axis is time.
        width: Number of channels.
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
        """Return the embeddings (N, D) in row-major order of the grid; `kind` is 0."""
        return (self.time[:, None] + self.space).flatten(0, 1)


def within(index: Tensor, grid: Sequence[int], whole: Sequence[int]) -> Tensor:
    """Return the indices of tokens on a larger grid with the same first corner.

    Args:
        index: Indices on the small grid, int64.
        grid: Shape of the small grid.
        whole: Shape of the large grid.
    """
    if tuple(grid) == tuple(whole):
        return index
    place, stride = torch.zeros_like(index), 1
    for own, most in zip(reversed(grid), reversed(whole), strict=True):
        place, index, stride = place + index % own * stride, index // own, stride * most
    return place


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Select tokens from each row.

    An index of N or more selects a token of another row, if tokens need no gradient.

    Args:
        tokens: Tokens (B, N, ...).
        index: Indices int64 (B, K).

    Returns:
        Selected tokens (B, K, ...).
    """
    if tokens.requires_grad:
        return tokens[number_rows(index), index]
    among_all = index + number_rows(index) * tokens.shape[1]
    return tokens.flatten(0, 1).index_select(0, among_all.flatten()).view(*index.shape, *tokens.shape[2:])


def put_tokens(tokens: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Return a copy of tokens with some of them replaced.

    Args:
        tokens: Tokens (B, N, ...).
        index: Indices int64 (B, K) of the tokens to replace.
        values: New tokens (B, K, ...), converted to the dtype of `tokens`.
    """
    return tokens.index_put((number_rows(index), index), values.to(tokens.dtype))


def number_rows(index: Tensor) -> Tensor:
    """Return the row numbers int64 (B, 1, ...) of an index (B, ...), for advanced indexing."""
    return torch.arange(index.shape[0], device=index.device).view(-1, *[1] * (index.ndim - 1))


def to_cells(x: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Divide a grid into cells that do not overlap.

    Args:
        x: Values (B, *grid, D), or in one row (B, N, D).
        grid: Number of values along each axis.
        window: Number of values of a cell along each axis.

    Returns:
        A view (B, *cells, *window, D).
    """
    n, sides = len(grid), (side for g, w in zip(grid, window, strict=True) for side in (g // w, w))
    split = x.reshape(x.shape[0], *sides, x.shape[-1])
    return split.permute(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)


def from_cells(cells: Tensor) -> Tensor:
    """Return the values (B, *grid, D) of a grid from its cells, the inverse of `to_cells`."""
    n = cells.ndim // 2 - 1
    sides = [a * b for a, b in zip(cells.shape[1 : n + 1], cells.shape[n + 1 : -1], strict=True)]
    order = [axis for i in range(1, n + 1) for axis in (i, n + i)]
    return cells.permute(0, *order, 2 * n + 1).reshape(cells.shape[0], *sides, cells.shape[-1])


def to_windows(x: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Divide the tokens of a grid into windows that do not overlap.

    Args:
        x: Tokens (B, N, D).
        grid: Number of tokens along each axis.
        window: Number of tokens of a window along each axis.

    Returns:
        (B, N / L, L, D), with L tokens per window.
    """
    return to_cells(x, grid, window).reshape(x.shape[0], -1, prod(window), x.shape[-1])


def from_windows(windows: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Return the tokens (B, N, D) of a grid from its windows, the inverse of `to_windows`.

    Args:
        windows: The windows (B, N / L, L, D).
        grid: Number of tokens along each axis.
        window: Number of tokens of a window along each axis.
    """
    counts = (g // w for g, w in zip(grid, window, strict=True))
    return from_cells(windows.reshape(windows.shape[0], *counts, *window, windows.shape[-1])).flatten(1, -2)


class Windows(nn.Module):
    """Runs blocks on windows of (w, v) tokens of a grid (T, F)."""

    outside: Tensor

    def __init__(self, grid: tuple[int, ...], window: tuple[int, int]) -> None:
        super().__init__()
        if len(grid) != 2:
            raise ValueError(f"a window of {window} tokens needs a grid of two axes, got {grid}; leave it out")
        if grid[0] % window[0] or grid[1] % window[1]:
            raise ValueError(f"a window of {window} does not divide a grid of {grid} tokens; choose one that does")
        self.grid, self.window = grid, window
        self.shift = window[0] // 2 if grid[0] > window[0] else 0
        self.register_buffer("outside", self._build_window_mask(), persistent=False)

    def forward(self, x: Tensor, blocks: Iterable[Callable[[Tensor, Tensor | None], Tensor]]) -> Tensor:
        """Run blocks on all tokens of the grid (B, N, E); a block receives (B, windows, w * v, E) and a mask.

        Args:
            x: The tokens.
            blocks: The blocks; every second one uses shifted windows.
        """
        columns = self.grid[1]
        for i, block in enumerate(blocks):
            shift = self.shift if i % 2 else 0
            if shift:
                x = x.roll(-shift * columns, dims=1)
            windows = block(to_windows(x, self.grid, self.window), self.outside if shift else None)
            x = from_windows(windows, self.grid, self.window)
            if shift:
                x = x.roll(shift * columns, dims=1)
        return x

    def _build_window_mask(self) -> Tensor:
        """Return the attention mask of shifted windows, True where attention is allowed: bool (windows, 1, wv, wv)."""
        (t, f), (w, v) = self.grid, self.window
        wrapped = (torch.arange(t) >= t - self.shift).long()[:, None].expand(t, f)
        part = wrapped.reshape(t // w, w, f // v, v).transpose(1, 2).reshape(-1, w * v)
        return (part[:, None, :] == part[:, :, None])[:, None]
