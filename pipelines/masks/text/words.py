"""Masks of tokens and of whole words."""

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
    Maps,
    Mask,
    ProportionSchedule,
    Ratio,
    RatioSchedule,
    Rounding,
    Scheme,
    Shot,
    TextDraws,
    TokenGrid,
    as_proportion_schedule,
    as_schedule,
    hidden_count,
    sized,
)
from maskstream.pipelines.masks.patterns.padded import Padded
from maskstream.pipelines.masks.schedules.progress import RatioDecay
from maskstream.pipelines.masks.schedules.random import UniformCount
from maskstream.shards.arrays import Bools, Int64s

KERNELS = ("maskstream.pipelines.masks.text.token_draws",)


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskOfWords(Mask):
    """Base class of masks that hide tokens or words of a text: a count, or each independently.

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
        each: Hide each token (or word) independently with probability `ratio`; `rounding` then has no effect, and
            counts differ between texts (see `Padded`).
        rounding: Conversion of the ratio to a count; see core/ratio.py.
    """

    ratio: Ratio = 0.15
    each: bool = False
    rounding: Rounding = "nearest_masked"

    def validate(self) -> None:
        if self.each:
            self.proportion_schedule()

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words"})

    def proportion_schedule(self) -> ProportionSchedule:
        """Return the schedule of the probability.

        Raises:
            ValueError: The schedule draws counts.
        """
        return as_proportion_schedule(self.ratio, by=f"{type(self).__name__}(each=True)")

    def counts(self, schedule: Fixed, words: Int64s) -> Int64s:
        """Return how many tokens to hide in each text, int64 (B,), from the mask input `words` (B, N)."""
        from .token_draws import count_text_tokens

        lengths = count_text_tokens(words).tolist()
        return np.array([hidden_count(n, schedule.ratio, self.rounding) for n in lengths], np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens(MaskOfWords):
    """Hide uniformly random tokens of a text, never special tokens or padding.

    Without `each`, round(ratio * length) tokens are hidden, at least 1 and at most all; the length includes special
    tokens but not padding.

    The grid's axes are (token,); the mask input is `words`. Sources: BERT (Devlin et al. 2019) at 0.15; PMLM (Liao et
    al. 2020) with UniformCount; MosaicBERT (Portes et al. 2023) with `each` at 0.3; masking ratio decay (Yang et al.
    2023) with `each` and a schedule over the run.
    """

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        words = build_word_cue(grid, draw, by="Tokens")
        if self.each:
            ratio = self.proportion_schedule().draw(draw)
            chances: Bools = draw.rng.random(len(words)) < ratio
            return chances & (words >= 0)
        length = len(words) - int(np.count_nonzero(words == PADDING))
        (places,) = (words >= 0).nonzero()
        visible = len(places) - min(as_schedule(self.ratio).count(length, draw, self.rounding), len(places))
        hidden = np.zeros(len(words), dtype=np.bool_)
        hidden[places[draw.rng.permutation(len(places))[visible:]]] = True
        return hidden

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[Maps] | None:
        schedule = as_schedule(self.ratio)
        if type(self) is not Tokens or type(schedule) is not Fixed:
            return None
        from .token_draws import hide_each, hide_tokens

        grid.need("token", by="Tokens")
        if self.each:
            hidden = hide_each(draws.streams, draws.words, np.full(len(draws.words), float(schedule.ratio)))
        else:
            hidden = hide_tokens(draws.streams, draws.words, self.counts(schedule, draws.words), draws.goes_on)
        return [Maps(hidden=row) for row in hidden]


SPECIAL = -1
"""Value in `words` of special tokens, such as [CLS] and [SEP], which are never hidden."""
PADDING = -2
"""Value in `words` of padding, which is never hidden and does not count towards a text's length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeWords(MaskOfWords):
    """Hide whole words in random order until round(ratio * length) tokens are hidden, at least 1.

    A word that would exceed the count is skipped, so at most this many tokens are hidden, and counts differ between
    texts (see `Padded`). The length includes special tokens, which are never hidden, but not padding. With `each`,
    every word is hidden independently with probability `ratio`, as in Hugging Face's collator since transformers 5.

    The grid's axes are (token,); the mask input is `words`. Sources: BERT's whole word masking, as in transformers up
    to version 4; RetroMAE's encoder (Xiao et al. 2022) at 0.3; M3AE's text (Chen et al. 2022) at 0.15.

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
    """

    ratio: Ratio = 0.3

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        words = TextWords.of(grid, draw, by="WholeWords")
        if self.each:
            return words.spread(draw.rng.random(len(words.lengths)) < self.proportion_schedule().draw(draw))
        count = words.hidden_count(as_schedule(self.ratio), draw, self.rounding)
        return words.spread(words.taken(1, count, draw.rng)[0])

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[Maps] | None:
        schedule = as_schedule(self.ratio)
        if type(self) is not WholeWords or type(schedule) is not Fixed:
            return None
        from .token_draws import hide_words

        grid.need("token", by="WholeWords")
        chance = float(schedule.ratio) if self.each else -1.0
        hidden = hide_words(draws.streams, draws.words, self.counts(schedule, draws.words), chance)
        return [Maps(hidden=row) for row in hidden]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextWords:
    """The W words of a text of N tokens."""

    number: Int64s
    """int64 (N,): word of each token, counted from 0; W for special tokens and padding."""
    first: Int64s
    """int64 (W,): first token of each word."""
    lengths: Int64s
    """int64 (W,): number of tokens of each word."""
    length: int
    """Number of tokens that are not padding."""

    @classmethod
    def of(cls, grid: TokenGrid, draw: Draw, by: str) -> TextWords:
        """Read the words from a draw.

        Raises:
            ValueError: The mask input does not fit the grid; the message names the pattern `by`.
        """
        given = build_word_cue(grid, draw, by)
        places = np.flatnonzero(given >= 0)
        words = given[places]
        new = words[1:] != words[:-1]
        if (words[1:] < words[:-1]).any():
            raise ValueError(f"{by} needs word numbers that increase along the text, got {given.tolist()}")
        inside = np.zeros(len(places), dtype=np.int64)
        np.cumsum(new, out=inside[1:])
        lengths = np.bincount(inside)
        number = np.full(len(given), len(lengths), dtype=np.int64)
        number[places] = inside
        first = np.concatenate((places[:1], places[1:][new]))
        length = len(given) - int(np.count_nonzero(given == PADDING))
        return cls(number=number, first=first, lengths=lengths, length=length)

    def hidden_count(self, schedule: RatioSchedule, draw: Draw, rounding: Rounding) -> int:
        """Return how many tokens to hide."""
        return schedule.count(self.length, draw, rounding)

    def taken(self, rows: int, count: int, rng: np.random.Generator, candidates: Int64s | None = None) -> Bools:
        """Choose words in random order in each row until they have `count` tokens: bool (rows, W).

        Words that would exceed the count are skipped. `candidates` limits the words that are tried; by default, all
        are.
        """
        from .token_draws import take_words

        taken = np.zeros((rows, len(self.lengths)), dtype=np.bool_)
        tried = np.arange(len(self.lengths)) if candidates is None else candidates
        seed = rng.integers(0xFFFF_FFFF_FFFF_FFFF, dtype=np.uint64, endpoint=True)
        take_words(self.lengths, tried, count, seed, taken)
        return taken

    def spread(self, taken: Bools) -> Bools:
        """Expand a map of words, bool (..., W), to a map of tokens, bool (..., N)."""
        none = np.zeros((*taken.shape[:-1], 1), dtype=np.bool_)
        tokens: Bools = np.concatenate([taken, none], axis=-1)[..., self.number]
        return tokens


def build_word_cue(grid: TokenGrid, draw: Draw, by: str) -> npt.NDArray[Any]:
    """Return the mask input `words` for a grid of (token,).

    Raises:
        ValueError: The input does not fit the grid; the message names the pattern `by`.
    """
    (n,) = grid.need("token", by=by)
    return sized(draw.cues.need("words", by=by), n, "words", by)


SCHEMES = (
    Scheme(
        name="mosaicbert",
        paper="MosaicBERT",
        mask=Padded(mask=Tokens(ratio=0.3, each=True)),
        grid=TEXT,
        title="Independent tokens",
        note=(
            "Tokens are hidden independently, so counts vary, as in Hugging Face's collator. `masks.Replace` "
            "turns 80 % of them into [MASK] and 10 % into random tokens."
        ),
    ),
    Scheme(
        name="pmlm",
        paper="PMLM",
        mask=Padded(mask=Tokens(ratio=UniformCount())),
        grid=TEXT,
        title="Any number of tokens",
        note="The number of hidden tokens is drawn uniformly, from one to all.",
        shots=(Shot(caption="a draw"), Shot(caption="another", epoch=2)),
    ),
    Scheme(
        name="mrd",
        paper="Learning Better Masking",
        section="ratio decay",
        mask=Padded(mask=Tokens(ratio=RatioDecay(), each=True)),
        grid=TEXT,
        title="Ratio decay",
        note="The ratio falls along a cosine during training; `shape=` selects the paper's seven other schedules.",
        shots=(Shot(caption="first batch"), Shot(caption="last batch", progress=1.0)),
    ),
    Scheme(
        name="m3ae-text",
        paper="M3AE",
        section="its text",
        mask=Padded(mask=WholeWords(ratio=0.15)),
        grid=TEXT,
        title="Whole words",
        note="Hides words with all of their tokens.",
    ),
)
