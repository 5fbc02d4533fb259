"""Multi-block masks: hide the union of a few blocks of space and time."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from maskstream.pipelines.masks.core import (
    CLIP,
    Draw,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    Scope,
    Shot,
    TokenGrid,
    as_schedule,
)
from maskstream.shards.arrays import Bools
from maskstream.shards.limits import Interval, PositiveInt, PositiveInterval

from .padded import Padded
from .random import adjust_map, draw_random_tokens
from .views import ByView

ATTEMPTS = 10
"""Number of draws that hide everything before one position of the plane is forced to be visible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiBlock(Mask):
    """Hide the union of several blocks at random positions.

    All blocks have one size, shared by all samples of a batch by default (`scope`). The defaults are V-JEPA's
    short-range mask; MultiBlock(blocks=2, scale=(0.7, 0.7)) is its long-range mask. Used together on one clip
    (`ByView`, `augment.SharedCrop`), they hide 63 and 81 % of 8 x 14 x 14 tokens on average. The published collator
    then truncates all clips of a batch to the one with the fewest visible tokens, 76 and 93 % hidden in batches of 24.
    Here `Padded` keeps all visible tokens, and `MaskBatch.cut` truncates them.

    The grid's axes are (t, h, w). Source: V-JEPA (Bardes et al. 2024, multi-block masking).

    Attributes:
        ratio: None, as published, lets counts differ between samples (see `Padded`). With a ratio, counts are exact:
            random positions (or tokens, if blocks do not span the clip) are then hidden or unhidden.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
        blocks: Number of blocks.
        scale: Interval of a block's area as a fraction of the plane h x w.
        aspect: Interval of a block's aspect ratio h / w.
        duration: Interval of a block's length as a fraction of the clip.
        scope: Unit that shares one block size: "view", "sample" or "batch".
        coupled: Derive the sizes of all multi-block masks in a `scope` from the same random numbers, as the two
            published masks share a seed. By default, masks with different numbers of blocks are independent.
    """

    ratio: Ratio | None = None
    rounding: Rounding = "floor_visible"
    blocks: PositiveInt = 8
    scale: Interval = (0.15, 0.15)
    aspect: PositiveInterval = (0.75, 1.5)
    duration: Interval = (1.0, 1.0)
    scope: Scope = "batch"
    coupled: bool = False

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        t, h, w = grid.need("t", "h", "w", by="MultiBlock")
        purpose = "block size" if self.coupled else f"block size {self.blocks}"
        size = self._size((t, h, w), draw.generator(self.scope, purpose))
        if size[0] == t:  # all slices are equal, so draw one
            return np.tile(self._join_blocks((1, h, w), (1, *size[1:]), draw), t)
        return self._join_blocks((t, h, w), size, draw)

    def _size(self, shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, int, int]:
        t, h, w = shape
        duration, scale, aspect = (
            low + (high - low) * u
            for (low, high), u in zip((self.duration, self.scale, self.aspect), rng.random(3).tolist(), strict=True)
        )
        area = int(h * w * scale)
        rows, columns = round(sqrt(area * aspect)), round(sqrt(area / aspect))
        return max(int(t * duration), 1), min(max(rows, 1), h), min(max(columns, 1), w)

    def _join_blocks(self, shape: tuple[int, int, int], size: tuple[int, int, int], draw: Draw) -> Bools:
        """Draw the union of blocks of `size` in a grid of `shape`, flat: bool (N,)."""
        (t, h, w), (depth, rows, columns) = shape, size
        n = t * h * w
        for _ in range(ATTEMPTS):
            hidden = np.zeros(shape, dtype=np.bool_)
            corners = draw.rng.random((self.blocks, 3)) * (t - depth + 1, h - rows + 1, w - columns + 1)
            for start, top, left in corners.astype(np.int64).tolist():
                hidden[start : start + depth, top : top + rows, left : left + columns] = True
            flat = hidden.reshape(-1)
            if self.ratio is not None:
                return adjust_map(flat, as_schedule(self.ratio).visible(n, draw, self.rounding), draw.rng)
            if not flat.all():
                return flat
        return np.tile(draw_random_tokens(h * w, 1, draw.rng), t)


SCHEMES = (
    Scheme(
        name="v-jepa",
        paper="V-JEPA",
        section="multi-block masking",
        mask=Padded(
            mask=ByView(masks=(MultiBlock(coupled=True), MultiBlock(blocks=2, scale=(0.7, 0.7), coupled=True)))
        ),
        grid=CLIP,
        title="Multi-block",
        note=(
            "Two masks of one clip, eight small blocks and two large ones, all with the same aspect ratio: 63 "
            "and 81 % hidden on average. The published collator cuts a batch to its shortest clip, to 76 and 93 "
            "% in batches of 24."
        ),
        shots=(Shot(caption="View 1: short-range"), Shot(caption="View 2: long-range", view=1)),
    ),
)
