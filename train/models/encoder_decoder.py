"""What all autoencoders of tokens have: an encoder of the visible ones, and a decoder that predicts the hidden ones.

Tokens may be of several kinds, such as cubes of video and patches of sound: embeddings, positions, norms and heads are
each kind's own. Masked autoencoders have one kind, AVSiam and DiffMAViL two.

Shapes: B samples, N tokens, V of them visible, M of them predicted, D the encoder's width, E the decoder's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..core.block import Stack
from .window_decoder import Windows


class TokenEncoder(nn.Module):
    """Visible tokens to vectors: each kind's embedding and positions, then blocks, shared by all kinds or its own.

    n_inputs: the values of a token of each kind. positions: float32 (N, D) of each kind.
    """

    def __init__(
        self,
        n_inputs: Sequence[int],
        positions: Sequence[Tensor],
        *,
        depth: int,
        heads: int,
        mlp_ratio: int,
        eps: float,
        shared: bool = True,
    ) -> None:
        super().__init__()
        width, kinds = positions[0].shape[1], len(n_inputs)
        self.shared = shared
        self.embed = nn.ModuleList(nn.Linear(n, width) for n in n_inputs)
        self.stacks = nn.ModuleList(
            Stack(depth, width, heads, mlp_ratio, eps, kinds=kinds if shared else 1)
            for _ in range(1 if shared else kinds)
        )
        self.positions = Positions(positions)

    def forward(self, inputs: Tensor, visible: Tensor, kind: int = 0, valid: Tensor | None = None) -> Tensor:
        """inputs: float32 (B, V, values) of the tokens `visible` int64 (B, V), of which only those that are `valid`
        bool (B, V) are attended to. The result is (B, V, D).
        """
        x = self.embed[kind](inputs) + self.positions(kind)[visible]
        mask = None if valid is None else valid[:, None, None, :]
        if self.shared:
            return cast(Tensor, self.stacks[0](x, mask, kind=kind))
        return cast(Tensor, self.stacks[kind](x, mask))


class TokenDecoder(nn.Module):
    """Predicts hidden tokens: it reads what the encoder says of the visible ones, followed by mask tokens, without
    putting them back in order, and only the mask tokens are predicted.

    positions: float32 (N, E) of each kind. A learnt vector tells kinds apart where there are several. windows: the
    blocks attend within these only, and then all tokens are put back in order; for one kind.
    """

    def __init__(
        self,
        encoder_width: int,
        n_targets: Sequence[int],
        positions: Sequence[Tensor],
        *,
        depth: int,
        heads: int,
        mlp_ratio: int,
        eps: float,
        norm_eps: float | None = None,
        windows: Windows | None = None,
    ) -> None:
        super().__init__()
        width = positions[0].shape[1]
        self.bridge = nn.Linear(encoder_width, width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.kind = nn.Parameter(torch.zeros(len(n_targets), width)) if len(n_targets) > 1 else None
        self.stack = Stack(depth, width, heads, mlp_ratio, eps, norm_eps=norm_eps)
        self.windows = windows
        self.head = nn.ModuleList(nn.Linear(width, n) for n in n_targets)
        self.positions = Positions(positions)

    def begin(self) -> None:
        """The mask token and the vectors of the kinds as they begin."""
        for vectors in (self.mask_token, self.kind):
            if vectors is not None:
                nn.init.trunc_normal_(vectors, std=0.02, a=-0.02, b=0.02)

    def forward(self, encoded: Sequence[Tensor], visible: Sequence[Tensor], target: Sequence[Tensor]) -> list[Tensor]:
        """Of each kind the predictions (B, M, n_targets) of its tokens `target` (B, M), from the encoder's output
        (B, V, D) of its tokens `visible` (B, V).
        """
        seen = [self.bridge(one) for one in encoded]
        if self.windows is not None:
            return [self.head[0](self.stack.norm(self._in_grid(self.windows, seen[0], visible[0], target[0])))]
        places = [self._place(kind) for kind in range(len(seen))]
        hidden = [self.mask_token + place[index] for place, index in zip(places, target, strict=True)]
        known = [one + place[index] for one, place, index in zip(seen, places, visible, strict=True)]
        counts = [index.shape[1] for index in target]
        x = self.stack(torch.cat((*known, *hidden), dim=1), last=sum(counts))
        return [head(part) for head, part in zip(self.head, x.split(counts, dim=1), strict=True)]

    def _place(self, kind: int) -> Tensor:
        """What is added to a token of a kind at each place, (N, E)."""
        positions: Tensor = self.positions(kind)
        return positions if self.kind is None else positions + self.kind[kind]

    def _in_grid(self, windows: Windows, seen: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """All tokens in their places, mask tokens where none was seen, (B, M, E) of them after the blocks."""
        positions = self._place(0)
        grid = self.mask_token.to(seen.dtype).expand(len(seen), len(positions), -1)
        grid = grid.scatter(1, visible[..., None].expand_as(seen), seen)
        x = windows(grid + positions, self.stack.blocks)
        return cast(Tensor, x.gather(1, target[..., None].expand(-1, -1, x.shape[2])))


class Positions(nn.Module):
    """Fixed positions of each kind of token, which follow the model to its device and are in no file."""

    def __init__(self, of: Sequence[Tensor]) -> None:
        super().__init__()
        for kind, one in enumerate(of):
            self.register_buffer(f"of_{kind}", one, persistent=False)

    def forward(self, kind: int = 0) -> Tensor:
        return cast(Tensor, getattr(self, f"of_{kind}"))
