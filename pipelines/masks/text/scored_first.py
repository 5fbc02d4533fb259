"""Scored first: tokens with a score are hidden first, then random others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw, sized
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.core.ratio import Ratio, as_law
from maskstream.pipelines.masks.core.scheme import TEXT, Scheme
from maskstream.pipelines.masks.patterns.padded import Padded

from .words import PADDING, word_cue


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredFirst(Mask):
    """Tokens with a score above 0 are hidden first, by score, equal ones in random order; then random others.

    Of a text of L tokens, padding not counted, floor(ratio * (L - 1) + 0.5) are hidden, at least 1 (none at ratio 0)
    and at most those that are not special. The published code may also hide the closing special token, here none is.
    The grid's axes are (token,); the cues are `words` and `scores`. Source: OneRef (Xiao et al. 2024), the text part of
    referring-aware dynamic masking, where the subject's first token has the highest score and the object's the next.
    """

    ratio: Ratio = 0.4

    def __post_init__(self) -> None:
        as_law(self.ratio)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words", "scores"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        words = word_cue(grid, draw, by="ScoredFirst")
        scores = sized(draw.cues.need("scores", by="ScoredFirst"), grid.size, "scores", "ScoredFirst")
        places = np.flatnonzero(words >= 0)
        after_first = len(words) - int((words == PADDING).sum()) - 1
        count = as_law(self.ratio).count(max(after_first, 1), draw, "half_up_masked")
        places = draw.rng.permutation(places)
        order = np.argsort(-np.maximum(scores[places], 0), kind="stable")
        hidden = np.zeros(len(words), dtype=np.bool_)
        hidden[places[order[:count]]] = True
        return hidden


SCHEMES = (
    Scheme(
        name="oneref-text",
        paper="OneRef",
        section="referring-aware masking of texts",
        mask=Padded(mask=ScoredFirst(ratio=0.4)),
        grid=TEXT,
        title="Subject and object first",
        note="Words that matter, such as the subject and the object, are hidden first, then others at random.",
        scene="phrase",
    ),
)
