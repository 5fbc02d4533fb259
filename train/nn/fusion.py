"""Fusion of an image and its text: two streams of tokens that attend to themselves and to each other.

Shapes: B samples, V tokens of an image, L tokens of a text, D channels.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from .attention import Attention, CrossAttention
from .block import MLP


class CoAttention(nn.Module):
    """A pre-norm block of one stream (B, S, D): attention to itself, attention to the other stream, and an MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.cross = CrossAttention(width, heads, eps)
        self.norm3 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, mlp_ratio)

    def forward(self, x: Tensor, other: Tensor, own: Tensor | None = None, others: Tensor | None = None) -> Tensor:
        """own, others: attention masks bool (B, 1, 1, S), where the stream and the other one have padding."""
        x = x + self.attention(self.norm1(x), own)
        x = x + self.cross(self.norm2(x), other, others)
        return cast(Tensor, x + self.mlp(self.norm3(x)))


class FusionBlock(nn.Module):
    """A block of each stream. Both read what the other stream was before the block (METER, Dou et al., 2022)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        self.image = CoAttention(width, heads, mlp_ratio, eps)
        self.text = CoAttention(width, heads, mlp_ratio, eps)

    def forward(self, image: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, V, D), text (B, L, D), valid: an attention mask of the text, bool (B, 1, 1, L)."""
        return self.image(image, text, None, valid), self.text(text, image, valid, None)
