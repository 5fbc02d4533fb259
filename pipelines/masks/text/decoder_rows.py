"""Decoder rows: each position of a text's decoder attends to its own random part of the text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.core.ratio import Ratio, as_law
from maskstream.pipelines.masks.core.scheme import Scheme
from maskstream.pipelines.masks.patterns.padded import Padded

from .batch import TextMaps
from .words import PADDING, TextWords, WholeWords


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderRows(Mask):
    """The masks of `encoder` with what each position of the decoder attends to: `TextMaskBatch.attend`, bool (B, N, N).

    For a text of L tokens min(L, pool) masks of whole words at `ratio` are drawn, independent of the encoder's. Row i
    picks one of them at random and attends to its visible tokens except i. So every row attends to all special tokens,
    such as [CLS], except its own. No row attends to padding, and a row of padding attends to the first token alone.
    True = attends, as in scaled_dot_product_attention. Source:
    RetroMAE (Xiao et al. 2022, enhanced decoding), with ratios from 0.5 to 0.7.

    The matrix takes N^2 bytes of a sample. It takes about 1 ms at N = 512.
    """

    encoder: Mask = field(default_factory=WholeWords)
    ratio: Ratio = 0.5
    pool: int = 256

    def __post_init__(self) -> None:
        as_law(self.ratio)
        if self.pool < 1:
            raise ValueError(f"pool is a number of masks, 1 or more, got {self.pool}")

    @property
    def needs(self) -> frozenset[str]:
        return self.encoder.needs | {"words"}

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return self.encoder.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> TextMaps:
        return replace(TextMaps.of(self.encoder.maps(grid, draw)), attend=self.attend(grid, draw))

    def attend(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        """The matrix of one view of a text: bool (N, N), row i for the position i."""
        words = TextWords.of(grid, draw, by="DecoderRows")
        n, masks = len(words.number), min(words.length, self.pool)
        count = words.hidden_count(as_law(self.ratio), draw, "nearest_masked")
        seen = ~words.spread(words.taken(masks, count, draw.rng))
        padding = draw.cues.need("words", by="DecoderRows") == PADDING
        seen[:, padding] = False
        matrix = np.zeros((n, n), dtype=np.bool_)
        matrix[~padding] = seen.take(draw.rng.integers(masks, size=words.length), axis=0)
        np.fill_diagonal(matrix, False)
        matrix[padding, 0] = True
        return matrix


SCHEMES = (
    Scheme(
        name="retromae",
        paper="RetroMAE",
        section="enhanced decoding",
        mask=Padded(mask=DecoderRows(encoder=WholeWords(ratio=0.3), ratio=0.5)),
        grid=TokenGrid(axes=("token",), shape=(512,), patch=(1,)),
        title="Decoder rows",
        note=(
            "Whole words for the encoder. The decoder reconstructs every token, and each of its positions attends to a "
            "random half of its own (`TextMaskBatch.attend`)."
        ),
    ),
)
