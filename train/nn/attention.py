"""Attention: its product, computed in the faster of two ways, self-attention and cross-attention.

Shapes: L query tokens and S key tokens of D channels.

It is torch's `scaled_dot_product_attention`, and for bf16 on a CPU two matrix products, which are faster there. Only
the wanted tokens leave a stack (`last`), so its last block computes no others.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MATMUL_TOKENS = 2048
"""The most keys for which bf16 attention on a CPU makes its whole matrix; beyond it, the memory counts."""


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of queries (..., L, d), keys and values (..., S, d): (..., L, d).

    mask: bool, True where attention is allowed. The result is that of scaled_dot_product_attention, which is the faster
    way on CUDA devices and for float32. For bf16 on a CPU, two matrix products are faster: 1.2 times for 1,568 tokens,
    2 times for 200 (one thread, forward and backward, `benchmarks/trainer.py`).
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= MATMUL_TOKENS:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return torch.softmax(scores, dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Attention(nn.Module):
    """Self-attention over tokens (..., L, D), with a bias for query and value and none for key.

    A bias for key would add the same to all scores of a query, which changes no softmax.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, last: int | None = None) -> Tensor:
        """mask: see `attended`. last: only the last `last` tokens ask, and only they are returned (..., last, D)."""
        if last is None or last == x.shape[-2]:
            bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
            q, k, v = self._heads(F.linear(x, self.qkv.weight, bias), 3).unbind(0)
        else:
            width = len(self.q_bias)
            of_query, of_rest = torch.split(self.qkv.weight, [width, 2 * width])
            (q,) = self._heads(F.linear(x[..., -last:, :], of_query, self.q_bias), 1).unbind(0)
            bias = torch.cat((torch.zeros_like(self.v_bias), self.v_bias))
            k, v = self._heads(F.linear(x, of_rest, bias), 2).unbind(0)
        return cast(Tensor, self.out(attended(q, k, v, _of_last(mask, last)).transpose(-3, -2).flatten(-2)))

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        """Splits (..., L, parts * D) into (parts, ..., heads, L, d)."""
        return x.reshape(*x.shape[:-1], parts, self.heads, -1).movedim(-3, 0).transpose(-3, -2)


def _of_last(mask: Tensor | None, last: int | None) -> Tensor | None:
    """The rows of a mask (..., L, S) of the last queries; one row for all queries stays."""
    return mask if mask is None or last is None or mask.shape[-2] == 1 else mask[..., -last:, :]


class CrossAttention(nn.Module):
    """Cross-attention: tokens (B, L, D) attend to other tokens (B, S, D), which get a layer norm first."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=eps)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: see `attended`."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(self.norm(seen)).unflatten(-1, (2, self.heads, -1)).movedim(2, 0).transpose(2, 3)
        return cast(Tensor, self.out(attended(q, k, v, mask).transpose(1, 2).flatten(2)))
