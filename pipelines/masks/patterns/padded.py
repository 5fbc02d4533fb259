"""`Padded` for samples with different counts, and `Joint` for samples with several parts, such as image and text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.masks.core import Draw, Maps, Mask, MaskBatch, TextDraws, TokenGrid, batch_of
from maskstream.shards.arrays import Bools
from maskstream.shards.config import Config
from maskstream.shards.limits import PositiveInt


@dataclass(frozen=True, kw_only=True, slots=True)
class Padded(Mask):
    """Allow another mask to have different counts per sample; `MaskBatch.n_visible` and `n_target` hold them.

    `visible` and `target` are padded to the longest row, rounded up to a multiple of `bucket`, so that at most N /
    bucket shapes occur.

    Attributes:
        mask: Mask to draw.
        bucket: Multiple to which row lengths are rounded up.
    """

    mask: Mask
    bucket: PositiveInt = 1

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.mask.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        return self.mask.maps(grid, draw)

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[Maps] | None:
        return self.mask.maps_of_texts(grid, draws) if type(self) is Padded else None  # subclasses may draw differently

    def batched(self, grid: TokenGrid, maps: Sequence[Maps]) -> MaskBatch:
        return batch_of(maps, grid, ragged=self.bucket)


@dataclass(frozen=True, kw_only=True, slots=True)
class Joint(Config):
    """Mask each named part of a sample separately; `draw` returns a MaskBatch per part.

        pair = Joint(parts={"image": Random(ratio=0.75), "text": Padded(mask=WholeWords(ratio=0.15))})
        draws = {part: [Draw.of(seed, epoch, key, view, place, inputs[part], part=part), ...] for part in pair.parts}
        batches = pair.draw({"image": image_grid, "text": text_grid}, draws)

    Each part has its own draw, with its own mask inputs and generators (`Draw.of(part=...)`), so its mask does not
    depend on other parts. Parts can share a ratio by using one schedule with scope "sample". Sources: M3AE (Chen et al.
    2022): 81 of an image's 324 tokens visible, 15 % of a text's words hidden; MPM (2023): skeletons in 2-D and 3-D.

    Attributes:
        parts: Mask of each part, by name.
    """

    parts: Mapping[str, Mask]

    @property
    def needs(self) -> dict[str, frozenset[str]]:
        """Names of the mask inputs of each part."""
        return {part: mask.needs for part, mask in self.parts.items()}

    @property
    def needs_progress(self) -> bool:
        """True if any of the masks changes over the run."""
        return any(mask.needs_progress for mask in self.parts.values())

    def draw(
        self, grids: Mapping[str, TokenGrid], draws: Mapping[str, Sequence[Draw | np.random.Generator]]
    ) -> dict[str, MaskBatch]:
        """Draw the masks of each part.

        Raises:
            ValueError: A part has no grid or no draws, or as in `Mask.draw`.
        """
        for name, given in (("grids", grids), ("draws", draws)):
            if set(given) != set(self.parts):
                raise ValueError(f"{name} must have the parts {sorted(self.parts)}, got {sorted(given)}")
        return {part: mask.draw(grids[part], draws[part]) for part, mask in self.parts.items()}
