"""Stacks of blocks.

Shapes: L query tokens and S key tokens of D channels.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from .block import Norms, TransformerBlock


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
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, mlp_ratio, eps, kinds=kinds, cross=cross) for _ in range(depth)
        )
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
        """last: return only the last `last` tokens (B, last, D); the last block computes no others. place: position
        vectors that are added before each block.
        """
        for i, block in enumerate(self.blocks):
            only = last if i + 1 == len(self.blocks) else None
            x = block(x if place is None else x + place, mask, kind=kind, seen=seen, last=only)
        return cast(Tensor, self.norm(x if last is None else x[:, -last:], kind))
