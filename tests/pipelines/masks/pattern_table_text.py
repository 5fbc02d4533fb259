"""Patterns of text that take any schedule, on texts of one word a token: rows of test_masks_properties.py."""

import numpy as np

from maskstream.pipelines.masks import Cues, TokenGrid, Tokens, WholeWords

from .mask_table import grid_of
from .pattern_table import Pattern, all_tokens, lengths


def one_word_a_token(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    return Cues(words=np.arange(grid.size))


TEXT_PATTERNS = [
    Pattern(
        name=mask.__name__,
        build=lambda r, c, mask=mask: mask(ratio=r, rounding=c),
        grids=lengths("token"),
        visible=all_tokens,
        cues=one_word_a_token,
        example=grid_of(40, axes="token"),
        smallest=grid_of(1, axes="token"),
    )
    for mask in (Tokens, WholeWords)
]
