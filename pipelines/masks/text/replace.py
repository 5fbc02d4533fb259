"""Replace: hidden tokens enter the encoder as [MASK], as a random token, or unchanged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw, sized
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.core.scheme import TEXT, Scheme
from maskstream.pipelines.masks.patterns.padded import Padded

from .batch import TextMaps
from .words import WholeWords

OF_THE_SPLIT = -1
"""Stands for an id, or the number of ids, of the tokenizer of a split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replace(Mask):
    """The masks of `mask`, with the token ids that the encoder reads: `TextMaskBatch.tokens`, int64 (B, N).

    Each hidden token is unchanged with probability `keep`, becomes a uniformly random id below `vocabulary` with
    probability `random`, and `mask_id` otherwise, independently of the others. The labels are the original ids at
    `target`. Left out, mask_id and vocabulary become those of the tokenizer of the split that a loader opens. The cues
    are `tokens` and those of `mask`. Source: BERT (Devlin et al. 2019, sec. 3.1): 80 % [MASK], 10 % random, 10 %
    unchanged.
    """

    mask: Mask
    mask_id: int = OF_THE_SPLIT
    vocabulary: int = OF_THE_SPLIT
    keep: float = 0.1
    random: float = 0.1

    def __post_init__(self) -> None:
        if self.keep < 0 or self.random < 0 or self.keep + self.random > 1:
            raise ValueError(
                f"keep and random are probabilities, 0 or more and together at most 1, got keep={self.keep}, "
                f"random={self.random}"
            )
        left_out = self.vocabulary == self.mask_id == OF_THE_SPLIT
        if (self.vocabulary < 1 or self.mask_id < 0) and not left_out:
            raise ValueError(
                f"vocabulary is a number of ids and mask_id an id, got vocabulary={self.vocabulary}, "
                f"mask_id={self.mask_id}"
            )

    @property
    def needs(self) -> frozenset[str]:
        return self.mask.needs | {"tokens"}

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return self.mask.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> TextMaps:
        if self.mask_id == OF_THE_SPLIT:
            raise ValueError(f"{self} has no ids; give mask_id= and vocabulary=, or draw it by a loader of texts")
        maps = self.mask.maps(grid, draw)
        tokens = sized(draw.cues.need("tokens", by="Replace"), grid.size, "tokens", "Replace").astype(np.int64)
        places = np.flatnonzero(maps.hidden)
        chance = draw.rng.random(len(places))
        changed = places[chance >= self.keep]
        tokens[changed] = self.mask_id
        random = places[(chance >= self.keep) & (chance < self.keep + self.random)]
        tokens[random] = draw.rng.integers(self.vocabulary, size=len(random))
        return replace(TextMaps.of(maps), tokens=tokens)


SCHEMES = (
    Scheme(
        paper="BERT",
        section="sec. 3.1",
        mask=Padded(mask=Replace(mask=WholeWords(ratio=0.3), mask_id=103, vocabulary=30522)),
        grid=TEXT,
        title="Replaced tokens",
        note=(
            "Of the hidden tokens 80 % become [MASK], 10 % a random token, 10 % stay as they are; "
            "`TextMaskBatch.tokens` are the ids that the encoder reads."
        ),
    ),
)
