"""Parts of speech out of a lexicon: the 17 universal tags, one for each word, without looking at its sentence.

Words of grammar are listed here; numbers, punctuation and symbols follow from their letters; all others have the part
of speech that WordNet counts most often, after its rules for endings. A capitalised word that no list has is a name.
This is cruder than a tagger: a word that is a noun or a verb by its place has one class everywhere. It needs no model.

Tags: universaldependencies.org/u/pos. WordNet: Fellbaum 1998, morphy's rules of detachment.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

TAGS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ",
    "SYM", "VERB", "X",
)  # fmt: skip
"""The universal tags; a class is an index into them."""

GRAMMAR: Mapping[str, str] = {
    "ADP": "about above across after against along among around at before behind below beneath beside besides between "
    "beyond by down during except for from in inside into near of off on onto out outside over past per through "
    "throughout till to toward towards under until up upon via with within without",
    "AUX": "am are be been being can could did do does had has have is may might must ought shall should was were will "
    "would 'll 'm 're 've shalt wilt hath doth",
    "CCONJ": "and but nor or yet plus &",
    "DET": "a all an another any both each either every neither no some such that the these this those what which "
    "whichever whatever",
    "INTJ": "ah alas aye ha hello hey ho hush lo nay o oh ok okay ouch please well yea yes",
    "PART": "not n't 's '",
    "PRON": "anybody anyone anything everybody everyone everything he her hers herself him himself his i it its itself "
    "me mine my myself nobody nothing one oneself our ours ourselves she somebody someone something thee their theirs "
    "them themselves there they thine thou thy us we who whom whose ye you your yours yourself yourselves none",
    "SCONJ": "although as because if lest since than though unless whereas whether while",
    "ADV": "again also always away ever here how however just more most n't never now often only perhaps quite rather "
    "so soon still then thence therefore thus too very when where why",
    "NUM": "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand "
    "million billion",
}
_FILES = {"noun": "NOUN", "verb": "VERB", "adj": "ADJ", "adv": "ADV"}
_ENDINGS = {
    "NOUN": (("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
             ("s", "")),
    "VERB": (("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("s", "")),
    "ADJ": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
}  # fmt: skip
_NUMBER = re.compile(r"[0-9][0-9.,:/]*(st|nd|rd|th|s)?")
_CLOSED = {word: TAGS.index(tag) for tag, words in GRAMMAR.items() for word in words.split()}


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The class of each word that WordNet has, lower case, as an index into `TAGS`."""

    known: Mapping[str, int]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of the index files of WordNet in a folder. ValueError if one is not there."""
        best: dict[str, tuple[int, int, int]] = {}
        for name, tag in _FILES.items():
            try:
                lines = (folder / f"index.{name}").read_text("utf-8").splitlines()
            except OSError as error:
                raise ValueError(
                    f"{folder} holds no index.{name} ({error.strerror}); give the folder of WordNet's index files, "
                    "such as usr/share/wordnet of Debian's wordnet-base"
                ) from error
            for line in lines:
                if line.startswith(" "):
                    continue
                word, *numbers = line.split()
                senses, tagged = _counts(numbers)
                if "_" not in word:
                    best[word] = max(best.get(word, (-1, -1, 0)), (tagged, senses, -TAGS.index(tag)))
        return cls({word: -found[2] for word, found in best.items()})

    def packed(self) -> bytes:
        """The lexicon in a few hundred kilobytes; the same lexicon gives the same bytes."""
        return zlib.compress("\n".join(f"{word} {tag}" for word, tag in sorted(self.known.items())).encode(), 9)

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """The lexicon of `packed`."""
        pairs = (line.rsplit(" ", 1) for line in zlib.decompress(data).decode().split("\n") if line)
        return cls({word: int(tag) for word, tag in pairs})

    def classes(self, words: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The class of each word, int64 (W,)."""
        known = {word: self.of(word) for word in dict.fromkeys(words)}
        return np.array([known[word] for word in words], np.int64)

    def of(self, word: str) -> int:
        """The class of a word."""
        lower = word.lower()
        for table in (_CLOSED, self.known):
            if lower in table:
                return table[lower]
        if _NUMBER.fullmatch(word):
            return TAGS.index("NUM")
        kinds = {unicodedata.category(letter)[0] for letter in word}
        if kinds <= {"P"}:
            return TAGS.index("PUNCT" if word else "X")
        if kinds <= {"P", "S"}:
            return TAGS.index("SYM")
        if (stem := self._of_stem(lower)) is not None:
            return stem
        if word[0].isupper():
            return TAGS.index("PROPN")
        if lower.endswith("ly"):
            return TAGS.index("ADV")
        return TAGS.index("NOUN" if kinds <= {"L", "M"} else "X")

    def _of_stem(self, word: str) -> int | None:
        """The class of an inflected word whose stem has that class; None if there is none."""
        for tag, endings in _ENDINGS.items():
            for ending, instead in endings:
                stem = word.removesuffix(ending) + instead
                if word.endswith(ending) and len(stem) > 1 and self.known.get(stem) == TAGS.index(tag):
                    return TAGS.index(tag)
        return None


@lru_cache(maxsize=2)
def lexicon_of(packed: bytes) -> Lexicon:
    """The lexicon of `Lexicon.packed`."""
    return Lexicon.unpacked(packed)


def _counts(fields: Sequence[str]) -> tuple[int, int]:
    """The senses of a line of an index file, and how many of them were met in tagged texts; both follow pointers."""
    pointers = int(fields[2])
    return int(fields[3 + pointers]), int(fields[4 + pointers])
