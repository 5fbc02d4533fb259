"""The masks of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from maskstream.pipelines.stream.batch import Movable

from .draw import TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskBatch(Movable):
    """Which tokens the encoder does not see and which the decoder reconstructs.

    grid: the tokens' grid; a token's number is its place in C order of the grid's shape. B samples of N tokens.
    masked: bool (B, N), True = hidden from the encoder. visible: int64 (B, V), sorted, the tokens where masked is
    False. target: int64 (B, M), sorted, the tokens that the decoder reconstructs. weight: float32 (B, M), what each
    target counts in the loss (0 for a target that the encoder saw).

    Where samples have different counts (masks.Padded), n_visible and n_target, int64 (B,), say how many of a row's
    entries are real. The other entries are 0, and such targets have weight 0. None means that every entry is real.
    mask_token: bool (B, N), the tokens that enter the encoder as the mask token. They are among `visible`, but the
    encoder does not see their content, so they have weight 1 as targets. None means that there are none.
    """

    grid: TokenGrid
    masked: Tensor
    visible: Tensor
    target: Tensor
    weight: Tensor
    n_visible: Tensor | None = None
    n_target: Tensor | None = None
    mask_token: Tensor | None = None

    @property
    def visible_valid(self) -> Tensor:
        """Which entries of `visible` are real: bool (B, V), a key padding mask for attention (True = attend)."""
        return _valid(self.visible, self.n_visible)

    @property
    def target_valid(self) -> Tensor:
        """Which entries of `target` are real: bool (B, M)."""
        return _valid(self.target, self.n_target)

    def weighted(self, weight: Tensor) -> Self:
        """The masks where each row's targets count `weight`, float32 (B,), times what they did."""
        return replace(self, weight=self.weight * weight[:, None])

    @property
    def restore(self) -> Tensor:
        """int64 (B, N): each token's place in the sequence of visible, then hidden tokens; MAE calls it ids_restore."""
        order = torch.argsort(self.masked.to(torch.uint8), dim=1, stable=True)
        return torch.argsort(order, dim=1)

    def rows(self, chosen: slice) -> Self:
        """The masks of the chosen samples."""
        return self._map(lambda tensor: tensor[chosen])

    def cut(self) -> Self:
        """The masks with as many visible tokens and targets in each row as the row with the fewest has.

        The others lose their last ones: such tokens are hidden, and nothing reconstructs them. V-JEPA's collator does
        so with a batch, with each of its two masks apart: mask.rows(slice(0, None, 2)).cut() of `Padded` masks. The
        result depends on which samples are together, so it is no mask of a loader, whose batches do not.
        """
        if self.n_visible is None or self.n_target is None:
            return self
        shown, wanted = int(self.n_visible.min()), int(self.n_target.min())
        visible = self.visible[:, :shown]
        masked = torch.ones_like(self.masked).scatter_(1, visible, False)
        return replace(
            self,
            masked=masked,
            visible=visible,
            target=self.target[:, :wanted],
            weight=self.weight[:, :wanted],
            n_visible=None,
            n_target=None,
            mask_token=None if self.mask_token is None else self.mask_token & ~masked,
        )

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """One MaskBatch of all parts, padded to the widest; ValueError where counts differ without `Padded`."""
        if len({(p.visible.shape[1], p.target.shape[1]) for p in parts}) == 1:
            return super(MaskBatch, cls).concatenated(parts)
        if any(p.n_visible is None for p in parts):
            counts = sorted({p.visible.shape[1] for p in parts})
            raise ValueError(
                f"the samples of a batch need equally many visible tokens, got from {counts[0]} to {counts[-1]}; use a "
                "law that gives one ratio to the whole batch (scope='batch'), or masks.Padded(mask)"
            )
        return super(MaskBatch, cls).concatenated([p._widened(parts) for p in parts])

    def _widened(self, parts: Sequence[Self]) -> Self:
        visible, target = (max(getattr(p, name).shape[1] for p in parts) for name in ("visible", "target"))
        return replace(
            self,
            visible=pad(self.visible, (0, visible - self.visible.shape[1])),
            target=pad(self.target, (0, target - self.target.shape[1])),
            weight=pad(self.weight, (0, target - self.weight.shape[1])),
        )


def _valid(positions: Tensor, counts: Tensor | None) -> Tensor:
    places = torch.arange(positions.shape[1], device=positions.device)
    return (places < (positions.shape[1] if counts is None else counts[:, None])).expand(positions.shape)
