"""Attention within windows of a token grid; every second block uses shifted windows.

Source: Audio-MAE (Huang et al., 2022, section 3.3): windows of 4 x 4 over 64 x 8 tokens, shifted by 2 along time, model
the local patterns of a spectrogram better than global attention. The shift wraps around (Swin, Liu et al., 2021), and
a mask keeps the two ends of the grid from attending to each other.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Windows(nn.Module):
    """Runs blocks on windows of (w, v) tokens of a grid (T, F)."""

    outside: Tensor

    def __init__(self, grid: tuple[int, ...], window: tuple[int, int]) -> None:
        super().__init__()
        if len(grid) != 2:
            raise ValueError(f"decoder_window={window} needs tokens on a grid of time and frequency; leave it out")
        if grid[0] % window[0] or grid[1] % window[1]:
            raise ValueError(f"decoder_window={window} does not divide a grid of {grid} tokens; choose one that does")
        self.grid, self.window = grid, window
        self.shift = window[0] // 2 if grid[0] > window[0] else 0
        self.register_buffer("outside", self._allowed(), persistent=False)

    def forward(self, x: Tensor, blocks: Iterable[nn.Module]) -> Tensor:
        """Runs the blocks on all tokens of the grid (B, N, E). A block takes (B, windows, w * v, E) and a mask."""
        (t, f), (w, v) = self.grid, self.window
        batch, _, width = x.shape
        for i, block in enumerate(blocks):
            shift = self.shift if i % 2 else 0
            if shift:
                x = x.roll(-shift * f, dims=1)
            windows = x.reshape(batch, t // w, w, f // v, v, width).transpose(2, 3).reshape(batch, -1, w * v, width)
            windows = block(windows, self.outside if shift else None)
            x = windows.reshape(batch, t // w, f // v, w, v, width).transpose(2, 3).reshape(batch, t * f, width)
            if shift:
                x = x.roll(shift * f, dims=1)
        return x

    def _allowed(self) -> Tensor:
        """The attention mask of the shifted windows, True where attention is allowed: bool (windows, 1, wv, wv)."""
        (t, f), (w, v) = self.grid, self.window
        wrapped = (torch.arange(t) >= t - self.shift).long()[:, None].expand(t, f)
        part = wrapped.reshape(t // w, w, f // v, v).transpose(1, 2).reshape(-1, w * v)
        return (part[:, None, :] == part[:, :, None])[:, None]
