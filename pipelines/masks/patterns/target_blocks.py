"""Target blocks: predict a few blocks of an image, each separately, from one large block that excludes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Self

import numpy as np

from maskstream.pipelines.masks.core import PICTURE, Draw, Maps, Mask, MaskBatch, Scheme, Scope, TokenGrid
from maskstream.pipelines.stream.tensors import wrap_tensor
from maskstream.shards.arrays import Bools, Int64s
from maskstream.shards.limits import Interval, PositiveInt, PositiveInterval

from .padded import Padded

if TYPE_CHECKING:
    from torch import Tensor


ATTEMPTS = 20
"""Draws of the context's position; after them, the one that keeps the most tokens is used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockMaskBatch(MaskBatch):
    """MaskBatch whose targets are blocks.

    `blocks` is int64 (B, P, K): P blocks of K tokens per sample, which may overlap; `target` lists each token of their
    union once.

    Attributes:
        blocks: int64 (B, P, K): tokens of each block.
    """

    blocks: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockMaps(Maps):
    """Mask of one view; `blocks`, int64 (P, K), is a row of BlockMaskBatch."""

    blocks: Int64s
    """int64 (P, K): tokens of each block."""

    @classmethod
    def batched(cls, maps: Sequence[Self], grid: TokenGrid, *, ragged: int | None = None) -> BlockMaskBatch:
        """Combine the maps of a batch's samples into a BlockMaskBatch; `ragged` as in `mask_batch`.

        Raises:
            ValueError: Block sizes differ between samples.
        """
        sizes = sorted({m.blocks.shape for m in maps})
        if len(sizes) > 1:
            raise ValueError(
                f"all blocks of a batch must have the same size, got {sizes[0]} and {sizes[-1]} (blocks, "
                "tokens); use TargetBlocks(scope='batch')"
            )
        batch = super(BlockMaps, cls).batched(maps, grid, ragged=ragged)
        return BlockMaskBatch(
            grid=batch.grid,
            masked=batch.masked,
            visible=batch.visible,
            target=batch.target,
            weight=batch.weight,
            n_visible=batch.n_visible,
            n_target=batch.n_target,
            blocks=wrap_tensor(np.array([m.blocks for m in maps])),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetBlocks(Mask):
    """Choose random blocks as targets; the encoder sees one large block, the context, minus the targets.

    Block sizes are equal for all targets and, by default, for all samples of a batch (`scope`); positions are drawn per
    view. Counts of visible tokens differ between samples (see `Padded`). The grid's axes are (h, w) or (time, freq).

    Source: I-JEPA (Assran et al. 2023, section 3 and appendix A.1). As in its code, one random number determines both
    area and aspect ratio, and a block is smaller than the plane in both directions. Differences: blocks may touch the
    last row and column, which the published code never reaches; the published collator cuts all contexts of a batch to
    the shortest (`MaskBatch.cut`); and after 20 failed draws the published code drops a target from the area that the
    context must avoid.

    Attributes:
        blocks: Number of targets.
        scale: Interval of a target's area as a fraction of the plane.
        aspect: Interval of a target's aspect ratio h / w.
        context: Interval of the area of the context, a square, as a fraction of the plane.
        least: Smallest number of context tokens; the context is redrawn if it has fewer.
        strips: Also remove the rows and columns of the targets from the context, so that no neighbour in time or
            frequency reveals them.
        stretched: Define aspect ratios on a square plane that is then stretched to the grid, so that a context can
            cover 85 % of 64 x 8 tokens. By default, blocks are not much longer than the short side of the grid.
        scope: Unit that shares block sizes: "view", "sample" or "batch".
    """

    blocks: PositiveInt = 4
    scale: Interval = (0.15, 0.2)
    aspect: PositiveInterval = (0.75, 1.5)
    context: Interval = (0.85, 1.0)
    least: PositiveInt = 11
    strips: bool = False
    stretched: bool = False
    scope: Scope = "batch"

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> BlockMaps:
        h, w = grid.need(*(("time", "freq") if "freq" in grid.axes else ("h", "w")), by="TargetBlocks")
        if min(h, w) < 2:
            raise ValueError(f"TargetBlocks needs a plane of 2 x 2 tokens or more, got {h} x {w}")
        of_targets, of_context = draw.generator(self.scope, "size of target blocks").random(2).tolist()
        stretch = h / w if self.stretched else 1.0
        size = _size(h, w, self.scale, self.aspect, stretch, of_targets)
        tokens = np.arange(h * w).reshape(h, w)
        blocks = np.stack([tokens[_place(h, w, size, draw.rng)].reshape(-1) for _ in range(self.blocks)])
        target = np.zeros(h * w, dtype=np.bool_)
        target[blocks] = True
        large = _size(h, w, self.context, (1.0, 1.0), stretch, of_context)
        return BlockMaps(hidden=~self._seen(target.reshape(h, w), large, draw.rng), target=target, blocks=blocks)

    def _seen(self, target: Bools, size: tuple[int, int], rng: np.random.Generator) -> Bools:
        """Draw the tokens of the context, at least one: bool (N,)."""
        h, w = target.shape
        rows, columns = target.any(axis=1, keepdims=True), target.any(axis=0, keepdims=True)
        barred = rows | columns if self.strips else target
        best = np.zeros(target.size, dtype=np.bool_)
        for _ in range(ATTEMPTS):
            seen = np.zeros_like(target)
            seen[_place(h, w, size, rng)] = True
            seen &= ~barred
            if seen.sum() > best.sum():
                best = seen.reshape(-1)
            if best.sum() >= self.least:
                return best
        if not best.any():
            others = np.flatnonzero(~target)
            best[rng.choice(others if len(others) else target.size)] = True
        return best


def _size(h: int, w: int, share: Interval, aspect: Interval, stretch: float, number: float) -> tuple[int, int]:
    """Return the rows and columns of a block.

    `number` in [0, 1) selects the point in both intervals; the aspect ratio is multiplied by `stretch`.
    """
    area, ratio = (low + number * (high - low) for low, high in (share, aspect))
    tokens, ratio = int(h * w * area), ratio * stretch
    rows, columns = round(sqrt(tokens * ratio)), round(sqrt(tokens / ratio))
    return min(max(rows, 1), h - 1), min(max(columns, 1), w - 1)


def _place(h: int, w: int, size: tuple[int, int], rng: np.random.Generator) -> tuple[slice, slice]:
    """Draw the position of a block in the plane."""
    top, left = (rng.random(2) * (h - size[0] + 1, w - size[1] + 1)).astype(np.int64).tolist()
    return slice(top, top + size[0]), slice(left, left + size[1])


SCHEMES = (
    Scheme(
        name="i-jepa",
        paper="I-JEPA",
        section="sec. 3",
        mask=Padded(mask=TargetBlocks()),
        grid=PICTURE,
        title="Target blocks",
        note=(
            "Four blocks of one size are predicted separately. The encoder sees a large square without them; a "
            "few tokens are neither seen nor predicted."
        ),
    ),
)
