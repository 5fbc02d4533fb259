"""The transformer block and the stack of blocks that all models use, and the initialisation of linear layers.

Shapes: L query tokens and S key tokens of D channels.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention over tokens (..., L, D), with a bias for query and value and none for key."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.reshape(*x.shape[:-1], 3, self.heads, -1).movedim(-3, 0).transpose(-3, -2).unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return cast(Tensor, self.out(seen.transpose(-3, -2).flatten(-2)))


class CrossAttention(nn.Module):
    """Cross-attention: tokens (B, L, D) attend to other tokens (B, S, D), which get a layer norm first."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=eps)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(self.norm(seen)).unflatten(-1, (2, self.heads, -1)).movedim(2, 0).transpose(2, 3)
        return cast(Tensor, self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """The feed-forward part of a block, (..., L, D): two linear layers with a GELU between them."""

    def __init__(self, width: int, mlp_ratio: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, mlp_ratio * width)
        self.down = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.down(F.gelu(self.up(x))))


class Block(nn.Module):
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

    def forward(self, x: Tensor, mask: Tensor | None = None, *, kind: int = 0, seen: Tensor | None = None) -> Tensor:
        """mask: the attention mask of scaled_dot_product_attention. kind: selects the norms. seen: keys of `cross`."""
        x = x + self.attention(self.norm1(x, kind), mask if seen is None else seen)
        return cast(Tensor, x + self.mlp(self.norm2(x, kind)))


class Norms(nn.Module):
    """A layer norm for each kind of token."""

    def __init__(self, width: int, eps: float, kinds: int = 1) -> None:
        super().__init__()
        self.of = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in range(kinds))

    def forward(self, x: Tensor, kind: int = 0) -> Tensor:
        return cast(Tensor, self.of[kind](x))


class Stack(nn.Module):
    """Blocks in sequence and a final layer norm, whose epsilon is `norm_eps`, by default that of the blocks."""

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        mlp_ratio: int,
        eps: float = 1e-6,
        *,
        norm_eps: float | None = None,
        kinds: int = 1,
        cross: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, eps, kinds=kinds, cross=cross) for _ in range(depth))
        self.norm = Norms(width, eps if norm_eps is None else norm_eps, kinds)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        kind: int = 0,
        seen: Tensor | None = None,
        last: int | None = None,
        place: Tensor | None = None,
    ) -> Tensor:
        """last: normalise and return only the last `last` tokens. place: position vectors added before each block."""
        for block in self.blocks:
            x = block(x if place is None else x + place, mask, kind=kind, seen=seen)
        return cast(Tensor, self.norm(x if last is None else x[:, -last:], kind))


def init_linear(model: nn.Module) -> None:
    """Gives every linear layer of a model Xavier-uniform weights and zero biases, as masked autoencoders do."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Selects the tokens at `index` int64 (B, K) from each row of tokens (B, N, ...): (B, K, ...)."""
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], index]
