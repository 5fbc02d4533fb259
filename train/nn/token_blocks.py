"""The blocks of encoders of text, over documents without padding, and the head that predicts token ids.

Shapes: T tokens of all documents of a batch, D channels.
"""

from __future__ import annotations

from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from .documents import Asking, Documents

NormAt = Literal["pre", "post"]
"""Where the layer norm of a residual branch stands: before it, or after the sum, as in BERT."""


class DocumentAttention(nn.Module):
    """Self-attention of tokens (T, D) within their documents; with `asking`, of these tokens alone."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, documents: Documents, asking: Asking | None = None) -> Tensor:
        if asking is None:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        else:
            width = x.shape[-1]
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(x[asking.index], weight[:width], bias[:width]).view(len(asking.index), self.heads, -1)
            k, v = F.linear(x, weight[width:], bias[width:]).view(len(x), 2, self.heads, -1).unbind(1)
        return cast(Tensor, self.out(documents.attention(q, k, v, asking).flatten(1)))


class FeedForward(nn.Module):
    """The feed-forward part of a block (..., D): two linear layers with a GELU between them.

    gated: the first layer makes a gate too, gelu(gate) * value, and has no bias (Shazeer, 2020).
    """

    def __init__(self, width: int, hidden: int, *, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.up = nn.Linear(width, 2 * hidden if gated else hidden, bias=not gated)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        if not self.gated:
            return cast(Tensor, self.down(F.gelu(self.up(x))))
        gate, value = self.up(x).chunk(2, dim=-1)
        return cast(Tensor, self.down(F.gelu(gate) * value))


class TokenBlock(nn.Module):
    """A transformer block over documents (T, D). asking: only these tokens are computed, from all of their
    documents, and the result is (K, D).
    """

    def __init__(self, width: int, heads: int, hidden: int, *, norm: NormAt, gated: bool, eps: float) -> None:
        super().__init__()
        self.post = norm == "post"
        self.attention = DocumentAttention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = FeedForward(width, hidden, gated=gated)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, documents: Documents, asking: Asking | None = None) -> Tensor:
        own = x if asking is None else x[asking.index]
        if self.post:
            x = self.norm1(own + self.attention(x, documents, asking))
            return cast(Tensor, self.norm2(x + self.mlp(x)))
        x = own + self.attention(self.norm1(x), documents, asking)
        return cast(Tensor, x + self.mlp(self.norm2(x)))
