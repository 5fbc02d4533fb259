"""A page of text in pieces, with the cues of text masks."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks import SPECIAL, Cues, TokenGrid

LONGEST = 5
"""Letters of a piece: longer words are cut into equal parts. A stand-in for a vocabulary of word pieces."""

FUNCTION_WORDS = frozenset(
    (
        "a", "all", "always", "an", "and", "any", "as", "but", "by", "for", "from", "have", "he", "her", "him", "his",
        "i", "in", "into", "is", "it", "not", "of", "one", "she", "such", "that", "the", "their", "they", "this", "to",
        "under", "was", "were", "whole", "with", "would",
    )
)  # fmt: skip
"""Words of grammar; all other words are the other class. A stand-in for parts of speech."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """The pieces of a text, special ones at both ends: their text, int64 (N,) ids, word, class and float32 score.

    spaced: whether a space stands before a piece. vocabulary: the text of each id; there are fewer than BERT's id of
    [MASK], which is none of them.
    """

    text: tuple[str, ...]
    spaced: tuple[bool, ...]
    vocabulary: tuple[str, ...]
    cues: Cues

    @property
    def grid(self) -> TokenGrid:
        """As many tokens as pieces."""
        return TokenGrid(axes=("token",), shape=(len(self.text),), patch=(1,))


def pieces_of(text: str, length: int) -> Pieces:
    """The first `length` - 2 pieces of `text` between [CLS] and [SEP]; scores are high for words that are rare
    on the page, and long."""
    found = [(m.group(), m.start() > 0 and text[m.start() - 1].isspace()) for m in re.finditer(r"\w+|[^\w\s]", text)]
    often = Counter(word.lower() for word, _ in found)
    rows: list[tuple[str, bool, int, int, float]] = [("[CLS]", False, SPECIAL, -1, -math.inf)]
    for number, (word, spaced) in enumerate(found):
        kind = -1 if not word[0].isalnum() else int(word.lower() not in FUNCTION_WORDS)
        rarity = math.log(len(found) / often[word.lower()]) + len(word) / 10 if word[0].isalnum() else 0.0
        rows += [(part, spaced and i == 0, number, kind, rarity) for i, part in enumerate(cut(word))]
    rows = [*rows[: length - 1], ("[SEP]", True, SPECIAL, -1, -math.inf)]
    vocabulary = (*sorted({row[0] for row in rows if row[2] != SPECIAL}), "[CLS]", "[SEP]")
    texts, spaced_before, words, kinds, scores = zip(*rows, strict=True)
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    return Pieces(
        text=texts,
        spaced=spaced_before,
        vocabulary=vocabulary,
        cues=Cues(
            words=_integers(words),
            classes=_integers(kinds),
            scores=np.array(scores, dtype=np.float32),
            tokens=_integers([ids[piece] for piece in texts]),
        ),
    )


def cut(word: str) -> list[str]:
    """A word in equal parts of at most five letters: `Sherlock` in `Sher` and `lock`."""
    parts = -(-len(word) // LONGEST)
    edges = [round(len(word) * i / parts) for i in range(parts + 1)]
    return [word[a:b] for a, b in pairwise(edges)]


def _integers(values: object) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
