"""Whole words: a word is hidden with all of its tokens or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import Mask
from .draw import Draw
from .grid import TokenGrid
from .ratio import Law, Ratio, Rounding, as_law, check_rounding

SPECIAL = -1
"""Cue `words`: a token of no word, such as [CLS] and [SEP]; it is never hidden."""
PADDING = -2
"""Cue `words`: what only fills a row up; it is never hidden and belongs to no length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeWords(Mask):
    """Words in a random order, until round(ratio * length) tokens are hidden, but at least 1.

    A word that would exceed the number is skipped and the next one is tried, so that at most this many tokens are
    hidden; counts differ from text to text (see `Padded`). The length counts special tokens, which are never hidden,
    and not padding. The grid's axes are (token,); the cue is `words`. Source: BERT's whole word masking; RetroMAE's
    encoder (Xiao et al. 2022, sec. 3.1) at 0.3; M3AE's text (Chen et al. 2022) at 0.15.
    """

    ratio: Ratio = 0.3
    rounding: Rounding = "nearest_masked"

    def __post_init__(self) -> None:
        as_law(self.ratio)
        check_rounding(self.rounding)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        words = Words.of(grid, draw, by="WholeWords")
        count = words.hidden_count(as_law(self.ratio), draw, self.rounding)
        return words.spread(words.fitting(draw.rng.permutation(len(words.lengths))[None], count))[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """The W words of a text of N tokens.

    number: int64 (N,), each token's word, counted from 0; W for special tokens and padding. first: int64 (W,), the
    first token of each word. lengths: int64 (W,), the tokens of each. length: the tokens that are not padding.
    """

    number: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    length: int

    @classmethod
    def of(cls, grid: TokenGrid, draw: Draw, by: str) -> Words:
        """The words of a draw, for the pattern `by`; ValueError where the cue does not fit the grid."""
        given = word_cue(grid, draw, by)
        places = np.flatnonzero(given >= 0)
        steps = np.diff(given[places], prepend=-1)
        if len(steps) and steps.min() < 0:
            raise ValueError(f"{by} reads words that ascend along the text, got {given.tolist()}")
        begins = np.flatnonzero(steps)
        lengths = np.diff(begins, append=len(places))
        number = np.full(len(given), len(lengths), dtype=np.int64)
        number[places] = np.repeat(np.arange(len(lengths)), lengths)
        length = len(given) - int((given == PADDING).sum())
        return cls(number=number, first=places[begins], lengths=lengths, length=length)

    def hidden_count(self, law: Law, draw: Draw, rounding: Rounding) -> int:
        """How many tokens `law` hides."""
        return self.length - law.visible(draw, self.length, rounding)

    def fitting(self, order: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
        """Which words are taken when those of each row of `order` (rows, W) are tried in turn: bool (rows, W).

        A word that would make it more than `count` tokens is skipped. This is the loop over a row's words, for all rows
        at once: those before the first that exceeds are taken together; behind it the same goes on with the room left.
        """
        lengths = self.lengths.astype(np.int32)
        taken = np.zeros((len(order), len(lengths)), dtype=np.bool_)
        head = order[:, :count]  # count words have count tokens or more
        total = np.cumsum(lengths[head], axis=1, dtype=np.int32)
        begun = total <= count
        taken[np.arange(len(order))[:, None], head] = begun
        room = count - (total * begun).max(axis=1, initial=0)
        rows = np.flatnonzero((room > 0) & (begun.sum(axis=1) < order.shape[1]))
        order, room = order[rows], room[rows]
        rest = lengths[order]
        rest[:, : begun.shape[1]][begun[rows]] = count + 1
        while len(rows):
            fits = rest <= room[:, None]
            new = fits & (np.cumsum(rest * fits, axis=1, dtype=np.int32) <= room[:, None])
            at, place = np.nonzero(new)
            taken[rows[at], order[at, place]] = True
            room = room - (rest * new).sum(axis=1, dtype=np.int32)
            rest[new | ~fits] = count + 1
            more = (rest <= room[:, None]).any(axis=1)
            rows, order, room, rest = rows[more], order[more], room[more], rest[more]
        return taken

    def spread(self, taken: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """From words (rows, W) to their tokens: bool (rows, N)."""
        none = np.zeros((len(taken), 1), dtype=np.bool_)
        tokens: npt.NDArray[np.bool_] = np.concatenate([taken, none], axis=1)[:, self.number]
        return tokens


def word_cue(grid: TokenGrid, draw: Draw, by: str) -> npt.NDArray[Any]:
    """The cue `words` of a text on a grid of (token,), for the pattern `by`; ValueError where it does not fit."""
    (n,) = grid.need("token", by=by)
    return sized(draw.cues.need("words", by=by), n, "words", by)


def sized(cue: npt.NDArray[Any], n: int, name: str, by: str) -> npt.NDArray[Any]:
    """The cue `name`; ValueError unless it has one value for each of `n` tokens."""
    if cue.shape != (n,):
        raise ValueError(f"{by} needs {name} for {n} tokens, ({n},), got {cue.shape}")
    return cue
