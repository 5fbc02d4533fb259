"""Tokens and whole words: a word is hidden with all of its tokens or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core import (
    TEXT,
    Draw,
    Fixed,
    Law,
    Maps,
    Mask,
    Ratio,
    RatioLaw,
    Rounding,
    Scheme,
    Shot,
    TextDraws,
    TokenGrid,
    as_law,
    as_ratio_law,
    check_rounding,
    hidden_count,
    sized,
)
from maskstream.pipelines.masks.laws.progress import RatioDecay
from maskstream.pipelines.masks.laws.random import UniformCount
from maskstream.pipelines.masks.patterns.padded import Padded

KERNELS = ("maskstream.pipelines.masks.text.token_draws",)


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskOfWords(Mask):
    """A mask that hides tokens or words of a text: a count of them by the law `ratio`, or `each` by itself."""

    ratio: Ratio = 0.15
    each: bool = False
    rounding: Rounding = "nearest_masked"

    def __post_init__(self) -> None:
        if self.each:
            self.ratio_law()
        as_law(self.ratio)
        check_rounding(self.rounding)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words"})

    def ratio_law(self) -> RatioLaw:
        """The law of the chance of each. Raises ValueError for a law of counts."""
        return as_ratio_law(self.ratio, by=f"{type(self).__name__}(each=True)")

    def counts(self, law: Fixed, words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many tokens `law` hides of each text, int64 (B,), by the cue `words` (B, N)."""
        from .token_draws import count_text_tokens

        lengths = count_text_tokens(words).tolist()
        return np.array([hidden_count(n, law.ratio, self.rounding) for n in lengths], np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens(MaskOfWords):
    """Uniformly random tokens of a text, none of them special or padding.

    each: every token is hidden with probability `ratio`, independently of the others. Counts differ from text to text
        (see `Padded`), and `rounding` has no effect. Otherwise round(ratio * length) tokens are hidden, at least 1 and
        at most all; the length includes special tokens and no padding.

    The grid's axes are (token,); the cue is `words`. Sources: BERT (Devlin et al. 2019) at 0.15; PMLM (Liao et al.
    2020) with the law UniformCount; MosaicBERT (Portes et al. 2023) with `each` at 0.3; with `each` and a law of
    progress, masking ratio decay (Yang et al. 2023).
    """

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        words = build_word_cue(grid, draw, by="Tokens")
        if self.each:
            ratio = self.ratio_law().draw(draw)
            chances: npt.NDArray[np.bool_] = draw.rng.random(len(words)) < ratio
            return chances & (words >= 0)
        length = len(words) - int(np.count_nonzero(words == PADDING))
        (places,) = (words >= 0).nonzero()
        visible = len(places) - min(as_law(self.ratio).count(length, draw, self.rounding), len(places))
        hidden = np.zeros(len(words), dtype=np.bool_)
        hidden[places[draw.rng.permutation(len(places))[visible:]]] = True
        return hidden

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[Maps] | None:
        law = as_law(self.ratio)
        if type(self) is not Tokens or type(law) is not Fixed:
            return None
        from .token_draws import hide_each, hide_tokens

        grid.need("token", by="Tokens")
        if self.each:
            hidden = hide_each(draws.streams, draws.words, np.full(len(draws.words), float(law.ratio)))
        else:
            hidden = hide_tokens(draws.streams, draws.words, self.counts(law, draws.words), draws.goes_on)
        return [Maps(hidden=row) for row in hidden]


SPECIAL = -1
"""The cue `words` of a special token, such as [CLS] and [SEP], which is never hidden."""
PADDING = -2
"""The cue `words` of padding, which is never hidden and not part of a text's length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeWords(MaskOfWords):
    """Words in a random order, until round(ratio * length) tokens are hidden, but at least 1.

    A word that would exceed the count is skipped and the next one is tried. So at most this many tokens are hidden, and
    counts differ from text to text (see `Padded`). The length includes special tokens, which are never hidden, and no
    padding.

    each: every word is hidden with probability `ratio`, independently of the others, as Hugging Face's collator does
        since transformers 5; `rounding` has no effect.

    The grid's axes are (token,); the cue is `words`. Source: BERT's whole word masking, as in transformers until 4;
    RetroMAE's encoder (Xiao et al. 2022) at 0.3; M3AE's text (Chen et al. 2022) at 0.15.
    """

    ratio: Ratio = 0.3

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        words = TextWords.of(grid, draw, by="WholeWords")
        if self.each:
            return words.spread(draw.rng.random(len(words.lengths)) < self.ratio_law().draw(draw))
        count = words.hidden_count(as_law(self.ratio), draw, self.rounding)
        return words.spread(words.taken(1, count, draw.rng)[0])

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[Maps] | None:
        law = as_law(self.ratio)
        if type(self) is not WholeWords or type(law) is not Fixed:
            return None
        from .token_draws import hide_words

        grid.need("token", by="WholeWords")
        chance = float(law.ratio) if self.each else -1.0
        hidden = hide_words(draws.streams, draws.words, self.counts(law, draws.words), chance)
        return [Maps(hidden=row) for row in hidden]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextWords:
    """The W words of a text of N tokens.

    number: int64 (N,), each token's word, counted from 0; W for special tokens and padding. first: int64 (W,), the
    first token of each word. lengths: int64 (W,), the tokens of each. length: the tokens that are not padding.
    """

    number: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    length: int

    @classmethod
    def of(cls, grid: TokenGrid, draw: Draw, by: str) -> TextWords:
        """The words of a draw, for the pattern `by`; ValueError for a cue that does not fit the grid."""
        given = build_word_cue(grid, draw, by)
        places = np.flatnonzero(given >= 0)
        words = given[places]
        new = words[1:] != words[:-1]
        if (words[1:] < words[:-1]).any():
            raise ValueError(f"{by} needs words whose numbers ascend along the text, got {given.tolist()}")
        inside = np.zeros(len(places), dtype=np.int64)
        np.cumsum(new, out=inside[1:])
        lengths = np.bincount(inside)
        number = np.full(len(given), len(lengths), dtype=np.int64)
        number[places] = inside
        first = np.concatenate((places[:1], places[1:][new]))
        length = len(given) - int(np.count_nonzero(given == PADDING))
        return cls(number=number, first=first, lengths=lengths, length=length)

    def hidden_count(self, law: Law, draw: Draw, rounding: Rounding) -> int:
        """How many tokens `law` hides."""
        return law.count(self.length, draw, rounding)

    def taken(
        self, rows: int, count: int, rng: np.random.Generator, candidates: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Words in a random order of each row until they have `count` tokens: bool (rows, W).

        A word that would make it more is skipped. candidates: the words that are tried, by default all.
        """
        from .token_draws import take_words

        taken = np.zeros((rows, len(self.lengths)), dtype=np.bool_)
        tried = np.arange(len(self.lengths)) if candidates is None else candidates
        seed = rng.integers(0xFFFF_FFFF_FFFF_FFFF, dtype=np.uint64, endpoint=True)
        take_words(self.lengths, tried, count, seed, taken)
        return taken

    def spread(self, taken: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The map of tokens (..., N) of a map of words (..., W), bool."""
        none = np.zeros((*taken.shape[:-1], 1), dtype=np.bool_)
        tokens: npt.NDArray[np.bool_] = np.concatenate([taken, none], axis=-1)[..., self.number]
        return tokens


def build_word_cue(grid: TokenGrid, draw: Draw, by: str) -> npt.NDArray[Any]:
    """The cue `words` of a text on a grid of (token,), for the pattern `by`; ValueError where it does not fit."""
    (n,) = grid.need("token", by=by)
    return sized(draw.cues.need("words", by=by), n, "words", by)


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
    Scheme(
        name="m3ae-text",
        paper="M3AE",
        section="its text",
        mask=Padded(mask=WholeWords(ratio=0.15)),
        grid=TEXT,
        title="Whole words",
        note="A word is hidden with all of its tokens, or not at all.",
    ),
)
