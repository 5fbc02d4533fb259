"""Retrieval of glosses by BM25."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from maskstream.shards.arrays import Float64s, Int64s
from maskstream.shards.errors import DatasetError

K1, B = 1.2, 0.75
"""The usual parameters of BM25 (Robertson and Zaragoza, 2009)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Glosses:
    """N entries `word: gloss`.

    Attributes:
        entries: The entries.
        lengths: Their number of words, float64 (N,).
        postings: For each word, the entries that contain it and how often, int64 (2, n).
    """

    entries: Sequence[str]
    lengths: Float64s
    postings: Mapping[str, Int64s]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the index of the nouns of WordNet 3.0 (Fellbaum, 1998).

        Args:
            folder: Folder with WordNet's data.noun.

        Raises:
            DatasetError: The folder has no data.noun.
        """
        entries = []
        try:
            for line in (folder / "data.noun").read_text("utf-8").splitlines():
                if not line.startswith(" "):  # offset, file, type, number of words, the first of them, ... | gloss
                    numbers, _, gloss = line.partition(" | ")
                    meaning = gloss.partition(';  "')[0].partition('; "')[0].strip()
                    entries.append(f"{numbers.split(' ')[4].replace('_', ' ')}: {meaning}")
        except (OSError, ValueError, IndexError) as error:
            raise DatasetError(
                f"{folder} has no data.noun of WordNet 3.0 ({error}); install Debian's wordnet-base, which has it in "
                "/usr/share/wordnet"
            ) from error
        return cls.of(entries)

    @classmethod
    def of(cls, entries: Sequence[str]) -> Self:
        """Build the index of entries; raise ValueError if there are none."""
        if not entries:
            raise ValueError("retrieval needs at least one entry, got none")
        postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths = []
        for number, entry in enumerate(entries):
            words = split_words(entry)
            lengths.append(len(words))
            for word, count in Counter(words).items():
                postings[word].append((number, count))
        arrays = {word: np.array(own, np.int64).T for word, own in postings.items()}
        return cls(entries=entries, lengths=np.array(lengths, np.float64), postings=arrays)

    def found(self, query: str, count: int) -> list[str]:
        """Return up to `count` entries that share words with the query, best first; equal scores keep their order
        (BM25).

        Args:
            query: Text to search for.
            count: Largest number of entries.
        """
        scores, n = np.zeros(len(self.entries)), len(self.entries)
        length = 1 - B + B * self.lengths / self.lengths.mean()
        for word in sorted({*split_words(query)} & self.postings.keys()):
            numbers, times = self.postings[word]
            rarity = np.log(1 + (n - len(numbers) + 0.5) / (len(numbers) + 0.5))
            scores[numbers] += rarity * times * (K1 + 1) / (times + K1 * length[numbers])
        best = np.argsort(-scores, kind="stable")[:count]
        return [self.entries[number] for number in best.tolist() if scores[number] > 0]


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())
