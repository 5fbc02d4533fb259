"""Masks by score: hide the highest-scoring tokens, and keep them hidden at later levels."""

from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.masks.core import (
    TEXT,
    Draw,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    Shot,
    TokenGrid,
    as_schedule,
    sized,
)
from maskstream.shards.arrays import Bools
from maskstream.shards.limits import NaturalInt

from .padded import Padded


@dataclass(frozen=True, kw_only=True, slots=True)
class TopScores(Mask):
    """Hide the tokens with the highest scores: `count` of them, or floor(ratio * n) of the n tokens that can be hidden.

    A token can be hidden if its score is not -inf and, if the mask input `words` is present, it is neither special nor
    padding. Tokens hidden by an earlier level (optional mask input `hidden`) remain hidden and are counted. Ties are
    broken by position. No random number is drawn, so the mask is the same in all epochs. Any grid; the mask input is
    `scores`.

    Source: Recursive ROAR (Madsen et al. 2022): pass each level the scores of the model trained at the previous level,
    as a side file with the same keys.

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
        count: Number of hidden tokens; None uses `ratio`.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
    """

    ratio: Ratio = 0.1
    count: NaturalInt | None = None
    rounding: Rounding = "floor_masked"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"scores"})

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        scores = sized(draw.cues.need("scores", by="TopScores"), grid.size, "scores", "TopScores").astype(np.float64)
        if np.isnan(scores).any():
            raise ValueError(
                f"TopScores needs scores without NaN, got {np.isnan(scores).sum()} NaN among {len(scores)}"
            )
        if draw.cues.words is not None:
            scores[sized(draw.cues.words, grid.size, "words", "TopScores") < 0] = -np.inf
        hidden = np.zeros(grid.size, dtype=np.bool_)
        if draw.cues.hidden is not None:
            hidden |= sized(draw.cues.hidden, grid.size, "hidden", "TopScores")
        n = int((hidden | (scores > -np.inf)).sum())
        count = as_schedule(self.ratio).count(n, draw, self.rounding) if self.count is None else min(self.count, n)
        hidden[np.lexsort((-scores, ~hidden))[:count]] = True
        return hidden


SCHEMES = (
    Scheme(
        name="roar",
        paper="Recursive ROAR",
        mask=Padded(mask=TopScores(ratio=0.1)),
        grid=TEXT,
        title="Most important first, level by level",
        note=(
            "An evaluation: the tokens with the highest scores are hidden and stay hidden at the next level, for "
            "which the model is retrained."
        ),
        shots=(
            Shot(caption="level 1, a tenth"),
            Shot(caption="level 2, a fifth", view=1, mask=Padded(mask=TopScores(ratio=0.2))),
        ),
        scene="levels",
    ),
)
