"""The parts of a diffusion transformer over voxels: conditioned blocks, experts and attention windows.

Shapes: B clouds, L tokens, D channels, S tokens along an edge of the cube.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.train.nn.positions import rates
from maskstream.train.nn.transformer import MLP, Attention
from maskstream.train.nn.windows import from_windows, to_windows


class TimeEmbedding(nn.Module):
    """Embeds times int64 (B,) as float (B, width): sines and cosines of 128 frequencies, then an MLP."""

    rate: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("rate", rates(256).float(), persistent=False)
        self.up = nn.Linear(256, width)
        self.down = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        angle = time[:, None].float() * self.rate
        return cast(Tensor, self.down(F.silu(self.up(torch.cat((angle.cos(), angle.sin()), dim=1)))))


class Experts(nn.Module):
    """A mixture of experts: a router chooses one MLP for each cloud by its category, y = share * expert(x).

    All tokens of a cloud use the same expert, so categories can have parameters of their own. The router is linear in
    the category's embedding (B, D); the share is its softmax, through which it is trained (Fedus et al., 2021).
    FastDiT-3D also routes by category; how it does is not published.
    """

    def __init__(self, width: int, mlp_ratio: int, experts: int) -> None:
        super().__init__()
        inner = mlp_ratio * width
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.empty(experts, inner, width))
        self.up_bias = nn.Parameter(torch.zeros(experts, inner))
        self.down = nn.Parameter(torch.empty(experts, width, inner))
        self.down_bias = nn.Parameter(torch.zeros(experts, width))
        for weight in (self.up, self.down):
            for expert in weight:
                nn.init.xavier_uniform_(expert)

    def route(self, category: Tensor) -> tuple[Tensor, Tensor]:
        """The expert of each cloud, int64 (B,), and its share in (0, 1], float32 (B,)."""
        shares = torch.softmax(self.router(category).float(), dim=1)
        share, chosen = shares.max(dim=1)
        return chosen, share

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        chosen, share = self.route(category)
        inner = F.gelu(torch.baddbmm(self.up_bias[chosen][:, None], x, self.up[chosen].transpose(1, 2)))
        out = torch.baddbmm(self.down_bias[chosen][:, None], inner, self.down[chosen].transpose(1, 2))
        return out * share.to(out.dtype)[:, None, None]


class ConditionedBlock(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by a condition (B, C).

    This is DiT's adaLN (Peebles and Xie, 2022), but its gates start at 1, not at 0: the block starts as one without a
    condition and learns from the first step, which matters in short runs. The feed-forward part is an `MLP`, or
    `Experts` if there are several.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int, condition: int, experts: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Experts(width, mlp_ratio, experts) if experts > 1 else MLP(width, mlp_ratio)
        self.modulation = nn.Linear(condition, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, category: Tensor, window: int = 0, moved: bool = False) -> Tensor:
        """window: tokens along an edge of the attention windows of a whole cube x; 0 for attention over all tokens.
        moved: the windows are shifted by half a window and wrap around the faces of the cube.
        """
        parts = self.modulation(F.silu(condition))[:, None].chunk(6, dim=2)
        move1, scale1, gate1, move2, scale2, gate2 = parts
        y = self.norm1(x) * (1 + scale1) + move1
        y = self.attend_in_windows(y, window, moved) if window else self.attention(y)
        x = x + (1 + gate1) * y
        y = self.norm2(x) * (1 + scale2) + move2
        y = self.mlp(y, category) if isinstance(self.mlp, Experts) else self.mlp(y)
        return cast(Tensor, x + (1 + gate2) * y)

    def attend_in_windows(self, x: Tensor, window: int, moved: bool) -> Tensor:
        """Attention among the tokens of each window of window^3 tokens of cubes (B, S^3, D)."""
        cube, edges, shift = (round(x.shape[1] ** (1 / 3)),) * 3, (window,) * 3, window // 2
        if moved:
            x = x.reshape(len(x), *cube, -1).roll((-shift,) * 3, dims=(1, 2, 3)).flatten(1, 3)
        windows = to_windows(x, cube, edges)
        x = from_windows(self.attention(windows.flatten(0, 1)).view(windows.shape), cube, edges)
        return x.view(len(x), *cube, -1).roll((shift,) * 3, dims=(1, 2, 3)).flatten(1, 3) if moved else x
