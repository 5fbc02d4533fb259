"""Part decoded: only some of the tokens that a mask hides are reconstructed, so that the decoder's steps cost less."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Maps, Mask
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.core.ratio import check_ratio, hidden_count
from maskstream.pipelines.masks.core.scheme import PICTURE, Scheme

from .random import Random


@dataclass(frozen=True, kw_only=True, slots=True)
class PartDecoded(Mask):
    """Hides what `mask` hides. The decoder reconstructs a random part of its targets, round(share n) of n, at least 1.

    Each target is as likely as the others, and new ones are drawn for each view, so the expected loss is that of all
    targets. With half of them a step of the decoder costs less than half. Source: CrossMAE (Fu et al. 2024), partial
    reconstruction.
    """

    mask: Mask = field(default_factory=lambda: Random(ratio=0.75))
    share: float = 0.5

    def __post_init__(self) -> None:
        check_ratio(self.share, name="the share of the hidden tokens that is reconstructed")
        if not self.share:
            raise ValueError("share=0 leaves nothing to reconstruct; give a share above 0")

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return self.mask.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        maps = self.mask.maps(grid, draw)
        pool = np.flatnonzero(maps.hidden if maps.target is None else maps.target)
        target = np.zeros(grid.size, dtype=np.bool_)
        target[draw.rng.permutation(pool)[: hidden_count(len(pool), self.share, "nearest_masked")]] = True
        return replace(maps, target=target)


SCHEMES = (
    Scheme(
        paper="CrossMAE",
        section="partial reconstruction",
        mask=PartDecoded(mask=Random(ratio=0.75), share=0.5),
        grid=PICTURE,
        visible=49,
        title="Part decoded",
        note="The encoder sees what MAE's sees. Of the 147 hidden tokens a random half is reconstructed.",
    ),
)
