"""The transformer block that all models use.

Shapes: L query tokens and S key tokens of D channels.

It has norms per kind of token (AVSiam) and cross-attention (DiffMAViL). The voxel diffusion's block, with conditioned
norms and windows, has its own forward over the same `Attention` and `MLP`. Weights for a seed follow the order in which
layers are made.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, CrossAttention


class MLP(nn.Module):
    """The feed-forward part of a block, (..., L, D): two linear layers with a GELU between them."""

    def __init__(self, width: int, mlp_ratio: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, mlp_ratio * width)
        self.down = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.down(F.gelu(self.up(x))))


class TransformerBlock(nn.Module):
    """A pre-norm transformer block (..., L, D): attention and an MLP, each with a residual connection.

    kinds: the number of kinds of token; each kind has layer norms of its own, all other weights are shared. cross: use
    CrossAttention to the tokens `seen` instead of self-attention.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: int, eps: float = 1e-6, *, kinds: int = 1, cross: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = Norms(width, eps, kinds)
        self.attention = CrossAttention(width, heads, eps) if cross else Attention(width, heads)
        self.norm2 = Norms(width, eps, kinds)
        self.mlp = MLP(width, mlp_ratio)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        kind: int = 0,
        seen: Tensor | None = None,
        last: int | None = None,
    ) -> Tensor:
        """mask: the attention mask (see `attended`). kind: selects the norms. seen: keys of `cross`. last: return only
        the last `last` tokens, which attend to all; the others are not computed.
        """
        normed = self.norm1(x, kind)
        if isinstance(self.attention, CrossAttention):
            if seen is None:
                raise ValueError("a block of cross-attention needs the tokens `seen`, got none")
            x = x + self.attention(normed, seen)
        else:
            x = (x if last is None else x[..., -last:, :]) + self.attention(normed, mask, last=last)
        return cast(Tensor, x + self.mlp(self.norm2(x, kind)))


class Norms(nn.Module):
    """A layer norm for each kind of token."""

    def __init__(self, width: int, eps: float, kinds: int = 1) -> None:
        super().__init__()
        self.of = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in range(kinds))

    def forward(self, x: Tensor, kind: int = 0) -> Tensor:
        return cast(Tensor, self.of[kind](x))
