"""Retrieval of glosses: the entries of a dictionary whose words are most like those of a question (BM25)."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

K1, B = 1.2, 0.75
"""The usual parameters of BM25 (Robertson and Zaragoza, 2009)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Glosses:
    """Entries `word: gloss`, and by word how often it stands in each entry that has it."""

    entries: Sequence[str]
    lengths: Sequence[int]
    postings: Mapping[str, Sequence[tuple[int, int]]]

    @classmethod
    def of(cls, entries: Sequence[str]) -> Self:
        """The index of entries. ValueError for none."""
        if not entries:
            raise ValueError("retrieval needs at least one entry, got none")
        postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths = []
        for number, entry in enumerate(entries):
            words = words_of(entry)
            lengths.append(len(words))
            for word, count in Counter(words).items():
                postings[word].append((number, count))
        return cls(entries=entries, lengths=lengths, postings=postings)

    def found(self, query: str, count: int) -> list[str]:
        """Up to `count` entries that share words with the query, the best first; of equal ones the first."""
        scores: dict[int, float] = defaultdict(float)
        mean, n = sum(self.lengths) / len(self.lengths), len(self.entries)
        for word in {*words_of(query)}:
            own = self.postings.get(word, ())
            rarity = math.log(1 + (n - len(own) + 0.5) / (len(own) + 0.5))
            for number, times in own:
                length = 1 - B + B * self.lengths[number] / mean
                scores[number] += rarity * times * (K1 + 1) / (times + K1 * length)
        best = sorted(scores, key=lambda number: (-scores[number], number))[:count]
        return [self.entries[number] for number in best]


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())
