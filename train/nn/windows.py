"""Attention within windows of a token grid, and a stack in which every second block uses shifted ones.

Source of the stack: Audio-MAE (Huang et al., 2022, section 3.3): windows of 4 x 4 over 64 x 8 tokens, shifted by 2
along time, model the local patterns of a spectrogram better than global attention. The shift wraps around (Swin, Liu et
al., 2021), and a mask keeps the two ends of the grid from attending to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod

import torch
from torch import Tensor, nn


def to_windows(x: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Divides the tokens of a grid, (B, N, D), into windows that do not overlap: (B, N / L, L, D).

    grid, window: tokens along each axis; L is the number of tokens of a window.
    """
    n = len(grid)
    split = x.reshape(len(x), *(side for g, w in zip(grid, window, strict=True) for side in (g // w, w)), x.shape[-1])
    order = (*range(1, 2 * n, 2), *range(2, 2 * n + 1, 2))
    return split.permute(0, *order, 2 * n + 1).reshape(len(x), -1, prod(window), x.shape[-1])


def from_windows(windows: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """The inverse of `to_windows`: the tokens of the grid, (B, N, D)."""
    n = len(grid)
    split = windows.reshape(len(windows), *(g // w for g, w in zip(grid, window, strict=True)), *window, -1)
    order = [axis for i in range(1, n + 1) for axis in (i, n + i)]
    return split.permute(0, *order, 2 * n + 1).reshape(len(windows), prod(grid), -1)


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
        self.register_buffer("outside", self._allowed(), persistent=False)

    def forward(self, x: Tensor, blocks: Iterable[Callable[[Tensor, Tensor | None], Tensor]]) -> Tensor:
        """Runs the blocks on all tokens of the grid (B, N, E). A block takes (B, windows, w * v, E) and a mask."""
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

    def _allowed(self) -> Tensor:
        """The attention mask of the shifted windows, True where attention is allowed: bool (windows, 1, wv, wv)."""
        (t, f), (w, v) = self.grid, self.window
        wrapped = (torch.arange(t) >= t - self.shift).long()[:, None].expand(t, f)
        part = wrapped.reshape(t // w, w, f // v, v).transpose(1, 2).reshape(-1, w * v)
        return (part[:, None, :] == part[:, :, None])[:, None]
