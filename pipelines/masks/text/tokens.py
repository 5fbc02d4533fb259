"""Tokens: random tokens of a text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.core.ratio import Ratio, Rounding, as_law, as_ratio_law, check_rounding
from maskstream.pipelines.masks.core.scheme import TEXT, Scheme, Shot
from maskstream.pipelines.masks.laws.progress import RatioDecay
from maskstream.pipelines.masks.laws.random import UniformCount
from maskstream.pipelines.masks.patterns.padded import Padded
from maskstream.pipelines.masks.patterns.random import random_tokens

from .words import PADDING, word_cue


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens(Mask):
    """Uniformly random tokens of a text, none of them special or padding.

    each: every token is hidden with probability `ratio`, independently of the others. Counts differ from text to text
        (see `Padded`), and `rounding` has no effect. Otherwise round(ratio * length) tokens are hidden, at least 1 and
        at most all; the length includes special tokens and no padding.

    The grid's axes are (token,); the cue is `words`. Sources: BERT (Devlin et al. 2019) at 0.15; PMLM (Liao et al.
    2020) with the law UniformCount; MosaicBERT (Portes et al. 2023) with `each` at 0.3; with `each` and a law of
    progress, masking ratio decay (Yang et al. 2023).
    """

    ratio: Ratio = 0.15
    each: bool = False
    rounding: Rounding = "nearest_masked"

    def __post_init__(self) -> None:
        if self.each:
            as_ratio_law(self.ratio, by="Tokens(each=True)")
        as_law(self.ratio)
        check_rounding(self.rounding)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        words = word_cue(grid, draw, by="Tokens")
        if self.each:
            ratio = as_ratio_law(self.ratio, by="Tokens(each=True)").draw(draw)
            chances: npt.NDArray[np.bool_] = draw.rng.random(len(words)) < ratio
            return chances & (words >= 0)
        length = len(words) - int((words == PADDING).sum())
        places = np.flatnonzero(words >= 0)
        visible = len(places) - min(as_law(self.ratio).count(length, draw, self.rounding), len(places))
        hidden = np.zeros(len(words), dtype=np.bool_)
        hidden[places] = random_tokens(len(places), visible, draw.rng)
        return hidden


SCHEMES = (
    Scheme(
        name="mosaicbert",
        paper="MosaicBERT",
        mask=Padded(mask=Tokens(ratio=0.3, each=True)),
        grid=TEXT,
        title="Tokens, each by itself",
        note=(
            "Every token is hidden with the same probability, so that counts vary, as in Hugging Face's collator; "
            "`masks.Replace` makes 80 % [MASK] and 10 % random tokens of them."
        ),
    ),
    Scheme(
        name="pmlm",
        paper="PMLM",
        mask=Padded(mask=Tokens(ratio=UniformCount())),
        grid=TEXT,
        title="Any number of tokens",
        note="First a number is drawn, each equally likely from one token to all of them, then so many tokens.",
        shots=(Shot(caption="a draw"), Shot(caption="another", epoch=2)),
    ),
    Scheme(
        name="mrd",
        paper="Learning Better Masking",
        section="ratio decay",
        mask=Padded(mask=Tokens(ratio=RatioDecay(), each=True)),
        grid=TEXT,
        title="Ratio decay",
        note="The ratio falls along a cosine while the model learns; `shape=` has the paper's seven other schedules.",
        shots=(Shot(caption="first batch"), Shot(caption="last batch", progress=1.0)),
    ),
)
