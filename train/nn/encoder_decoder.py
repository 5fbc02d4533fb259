"""The encoder of visible tokens and the decoder of hidden tokens that all masked autoencoders share.

Tokens may be of several kinds, such as cubes of video and patches of spectrograms. Each kind has a separate embedding,
positions, norms and head. Masked autoencoders have one kind, AVSiam and DiffMAViL have two.

Shapes: B samples, N tokens, V of them visible, M of them predicted, D the encoder's width, E the decoder's width.
"""

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .grid import LearntPositions, Positions, Windows, gather_tokens, put_tokens
from .transformer import BlockSizes, Stack


class VisibleEncoder(nn.Module):
    """Encodes visible tokens: embedding and positions of each kind, then blocks.

    Args:
        n_inputs: Number of values of a token, per kind.
        positions: Positions float32 (N, D), per kind, or a module that returns them.
        sizes: Sizes of the blocks.
        shared: Whether all kinds use the same blocks, with separate norms; otherwise each kind has its own blocks.
        class_token: Whether a learned token, without a position, precedes the others.
    """

    def __init__(
        self,
        n_inputs: Sequence[int],
        positions: Sequence[Tensor] | LearntPositions,
        sizes: BlockSizes,
        *,
        shared: bool = True,
        class_token: bool = False,
    ) -> None:
        super().__init__()
        self.positions = positions if isinstance(positions, LearntPositions) else Positions(positions)
        width, kinds = self.positions.width, len(n_inputs)
        self.shared = shared
        self.embed = nn.ModuleList(nn.Linear(n, width) for n in n_inputs)
        self.stacks = nn.ModuleList(
            Stack(sizes.depth, width, sizes.heads, sizes.mlp_ratio, sizes.eps, kinds=kinds if shared else 1)
            for _ in range(1 if shared else kinds)
        )
        self.class_token = nn.Parameter(torch.empty(width).normal_(std=0.02)) if class_token else None

    def forward(self, inputs: Tensor, visible: Tensor, kind: int = 0, valid: Tensor | None = None) -> Tensor:
        """Encode visible tokens.

        Args:
            inputs: Values of the tokens, float32 (B, V, values).
            visible: Their indices on the grid, int64 (B, V).
            kind: Kind of the tokens.
            valid: bool (B, V); False for padding, which is not attended to.

        Returns:
            (B, V, D), or (B, 1 + V, D) with a class token, which comes first.
        """
        x = self.embedded(inputs, visible, kind)
        if self.class_token is not None:
            valid = None if valid is None else F.pad(valid, (1, 0), value=True)
        mask = None if valid is None else valid[:, None, None, :]
        if self.shared:
            return cast(Tensor, self.stacks[0](x, mask, kind=kind))
        return cast(Tensor, self.stacks[kind](x, mask))

    def embedded(self, inputs: Tensor, visible: Tensor, kind: int = 0) -> Tensor:
        """Return the input of the blocks: the embedded tokens with their positions, after the class token if there is
        one.

        Args:
            inputs: Visible tokens (B, V, values).
            visible: Their indices, int64 (B, V).
            kind: Index of the kind of tokens.
        """
        x = self.embed[kind](inputs) + self.positions(kind)[visible]
        if self.class_token is None:
            return cast(Tensor, x)
        return torch.cat((self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x), dim=1)


class TokenDecoder(nn.Module):
    """Predicts hidden tokens from the encoded visible tokens followed by mask tokens, which are not put back in order.

    With several kinds, each has a learned embedding.

    Args:
        encoder_width: Channels of the encoder.
        n_targets: Number of predicted values of a token, per kind.
        positions: Positions float32 (N, E), per kind, or a module that returns them.
        sizes: Sizes of the blocks.
        norm_eps: Epsilon of the last layer norm; defaults to the blocks'.
        windows: Windows of attention; tokens are then put back in order. Only for one kind.
        class_token: Whether the encoder's output begins with a class token, which the decoder reads too; its position
            is 0, or learned if the positions are.
        own_class: Whether the decoder has a learned class token instead of the encoder's.
        bias: Whether the linear layer from the encoder's width to the decoder's has a bias.
    """

    TABLES: ClassVar[tuple[str, ...]] = ("kind",)
    """The parameters that are tables of embeddings, which do not decay."""

    def __init__(
        self,
        encoder_width: int,
        n_targets: Sequence[int],
        positions: Sequence[Tensor] | LearntPositions,
        sizes: BlockSizes,
        *,
        norm_eps: float | None = None,
        windows: Windows | None = None,
        class_token: bool = False,
        own_class: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        learnt = isinstance(positions, LearntPositions)
        self.positions = positions if isinstance(positions, LearntPositions) else Positions(positions)
        width = self.positions.width
        self.has_class, self.own_class = class_token, own_class
        self.class_place = nn.Parameter(torch.zeros(width)) if own_class or (class_token and learnt) else None
        self.bridge = nn.Linear(encoder_width, width, bias=bias)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.kind = nn.Parameter(torch.zeros(len(n_targets), width)) if len(n_targets) > 1 else None
        self.stack = Stack(sizes.depth, width, sizes.heads, sizes.mlp_ratio, sizes.eps, norm_eps=norm_eps)
        self.windows = windows
        self.head = nn.ModuleList(nn.Linear(width, n) for n in n_targets)

    def init_weights(self) -> None:
        """Initialise the mask token, the position of the class token and the embeddings of the kinds."""
        for vectors in (self.mask_token, self.class_place, self.kind):
            if vectors is not None:
                nn.init.trunc_normal_(vectors, std=0.02, a=-0.02, b=0.02)

    def forward(
        self,
        encoded: Sequence[Tensor],
        visible: Sequence[Tensor],
        target: Sequence[Tensor],
        valid: Tensor | None = None,
    ) -> list[Tensor]:
        """Predict the target tokens.

        Args:
            encoded: The encoder's output (B, V, D) per kind; (B, 1 + V, D) with a class token.
            visible: Indices of the visible tokens (B, V) per kind.
            target: Indices of the target tokens (B, M) per kind.
            valid: bool (B, V + M), the visible tokens of all kinds, then the targets; False for padding, which is not
                attended to. Not with windows or a class token.

        Returns:
            Predictions (B, M, n_targets) per kind.
        """
        if self.own_class:
            encoded = [one[:, 1:] for one in encoded]
        seen = [self.bridge(one) for one in encoded]
        whole: list[Tensor] = []
        if self.own_class and self.class_place is not None:
            whole = [self.class_place.to(seen[0].dtype).expand(len(seen[0]), 1, -1)]
        elif self.has_class:
            whole = [one[:, :1] if self.class_place is None else one[:, :1] + self.class_place for one in seen]
            seen = [one[:, 1:] for one in seen]
        if self.windows is not None:
            return [self.head[0](self.stack.norm(self._run_in_grid(self.windows, seen[0], visible[0], target[0])))]
        places = [self._place(kind) for kind in range(len(seen))]
        hidden = [self.mask_token + place[index] for place, index in zip(places, target, strict=True)]
        known = [one + place[index] for one, place, index in zip(seen, places, visible, strict=True)]
        counts = [index.shape[1] for index in target]
        mask = None if valid is None else valid[:, None, None, :]
        x = self.stack(torch.cat((*whole, *known, *hidden), dim=1), mask, last=sum(counts))
        return [head(part) for head, part in zip(self.head, x.split(counts, dim=1), strict=True)]

    def _place(self, kind: int) -> Tensor:
        """Return the position embeddings of a kind, plus the kind's embedding if there are several: (N, E)."""
        positions: Tensor = self.positions(kind)
        return positions if self.kind is None else positions + self.kind[kind]

    def _run_in_grid(self, windows: Windows, seen: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """Put all tokens in grid order, run the windowed blocks, and return the target tokens (B, M, E)."""
        positions = self._place(0)
        grid = self.mask_token.to(seen.dtype).expand(len(seen), len(positions), -1)
        x = windows(put_tokens(grid, visible, seen) + positions, self.stack.blocks)
        return gather_tokens(x, target)
