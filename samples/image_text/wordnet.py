"""The nouns of WordNet 3.0 (Fellbaum, 1998): glosses, hypernyms and parts, from data.noun and index.noun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskstream.shards.errors import DatasetError

HYPERNYMS = ("@", "@i")
PARTS = ("%p",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Synset:
    """Words with one meaning. above: the offsets of its hypernyms; parts: those of what it has as parts."""

    words: tuple[str, ...]
    gloss: str
    above: tuple[int, ...]
    parts: tuple[int, ...]

    @property
    def word(self) -> str:
        """The usual word."""
        return self.words[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class WordNet:
    """synsets: by offset. senses: the offsets of each word's meanings, the usual one first."""

    synsets: Mapping[int, Synset]
    senses: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, folder: Path) -> WordNet:
        """Of a folder with data.noun and index.noun. DatasetError if they are missing or something else."""
        try:
            data, index = ((folder / f"{name}.noun").read_text("utf-8") for name in ("data", "index"))
            synsets = dict(map(_synset, (line for line in data.splitlines() if not line.startswith(" "))))
            senses = dict(map(_sense, (line for line in index.splitlines() if not line.startswith(" "))))
        except (OSError, ValueError, IndexError) as error:
            raise DatasetError(
                f"{folder} holds no data.noun and index.noun of WordNet 3.0 ({error}); Debian's wordnet-base has them"
            ) from error
        return cls(synsets=synsets, senses=senses)

    def first(self, word: str) -> Synset | None:
        """The usual meaning of a word; None if WordNet has no such noun."""
        senses = self.senses.get(word.lower().replace(" ", "_"))
        return None if senses is None else self.synsets[senses[0]]

    def all_above(self, synset: Synset) -> list[Synset]:
        """The hypernyms of a meaning, their hypernyms and so on, the nearest first."""
        found: dict[int, Synset] = {}
        todo = list(synset.above)
        while todo:
            offset = todo.pop(0)
            if offset not in found:
                found[offset] = self.synsets[offset]
                todo += found[offset].above
        return list(found.values())


def _synset(line: str) -> tuple[int, Synset]:
    """A line of data.noun: offset, file, type, the number of words in hex, words with a digit each, the number of
    pointers, four fields for each, a bar and the gloss.
    """
    numbers, _, gloss = line.partition(" | ")
    fields = numbers.split(" ")
    end = 4 + 2 * int(fields[3], 16)
    pointers = [fields[at : at + 2] for at in range(end + 1, end + 1 + 4 * int(fields[end]), 4)]
    return int(fields[0]), Synset(
        words=tuple(word.replace("_", " ") for word in fields[4:end:2]),
        gloss=gloss.partition(';  "')[0].partition('; "')[0].strip(),
        above=tuple(int(offset) for symbol, offset in pointers if symbol in HYPERNYMS),
        parts=tuple(int(offset) for symbol, offset in pointers if symbol in PARTS),
    )


def _sense(line: str) -> tuple[str, tuple[int, ...]]:
    """A line of index.noun: the word, its type, how many meanings, ..., and their offsets."""
    fields = line.split()
    return fields[0], tuple(map(int, fields[-int(fields[2]) :]))
