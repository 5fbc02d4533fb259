"""Dictionaries in the format of dictd: an index of headwords, and the entries in one compressed file.

gcide: the Collaborative International Dictionary of English (Webster 1913 and WordNet), Debian's dict-gcide, GPL-2+.
foldoc: the Free On-line Dictionary of Computing, with {links}, Debian's dict-foldoc, GFDL.

A document is an entry. Its `json` has `headword`, all `headwords` in one line, and `definition`: the entry without them
(~ in their place) and without their pronunciation. So a headword is a query for which its entry is relevant. Entries
that share a headword are in the same split.
"""

import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.samples.debian import debian_folder
from maskstream.shards.errors import DatasetError

from .kept_lines import choose_split, kept_lines

HELD_OUT = 0.05
LARGEST = 20
"""The most entries of a group that is held out: chains of headwords that share entries join thousands."""
_DIGITS = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
_ABOUT = "00-database"
_PRONOUNCED = re.compile(r" *\\[^\\\n]*(?:\n[^\\\n]*)?\\")


@dataclass(frozen=True, kw_only=True, slots=True)
class DictionaryEntry:
    """One entry: its place in the file, in bytes, its headwords as the index has them, and its text."""

    begin: int
    headwords: tuple[str, ...]
    text: str


def gcide(root: Path) -> Dataset:
    """The entries of GCIDE, fetched into `root`; DatasetError where that is not possible."""
    return kept_lines("gcide", root, lambda root: lines(_folder("dict-gcide", root), "gcide"))


def foldoc(root: Path) -> Dataset:
    """The entries of FOLDOC, fetched into `root`; DatasetError where that is not possible."""
    return kept_lines("foldoc", root, lambda root: lines(_folder("dict-foldoc", root), "foldoc"))


def _folder(package: str, root: Path) -> Path:
    return debian_folder(package, "usr/share/dictd", root)


def lines(folder: Path, name: str) -> Iterator[Mapping[str, Any]]:
    """The documents of the dictionary `name` in a folder."""
    found = list(entries((folder / f"{name}.index").read_bytes(), gzip.decompress(_dict(folder, name))))
    groups = _groups([entry.headwords for entry in found])
    sizes = Counter(groups)
    for entry, group in zip(found, groups, strict=True):
        yield {
            "id": f"{entry.headwords[0]}:{entry.begin}",
            "text": entry.text,
            "split": choose_split(group, HELD_OUT) if sizes[group] <= LARGEST else "train",
            "headword": entry.headwords[0],
            "headwords": "; ".join(entry.headwords),
            "definition": definition(entry.text, entry.headwords),
        }


def _dict(folder: Path, name: str) -> bytes:
    try:
        return (folder / f"{name}.dict.dz").read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{folder} holds no {name}.dict.dz; delete the folder and run the same command again"
        ) from error


def entries(index: bytes, text: bytes) -> Iterator[DictionaryEntry]:
    """The entries in the order of the file. A line of the index is a headword, an offset and a size, by tabs."""
    places: dict[tuple[int, int], list[str]] = {}
    for line in index.decode("utf-8", "replace").splitlines():
        fields = line.split("\t")
        if len(fields) >= 3 and not fields[0].startswith(_ABOUT):
            places.setdefault((number(fields[1]), number(fields[2])), []).append(
                fields[-1] if fields[3:] else fields[0]
            )
    for begin, size in sorted(places):
        words = tuple(dict.fromkeys(word.strip() for word in places[begin, size] if word.strip()))
        found = text[begin : begin + size].decode("utf-8", "replace").strip()
        if found and words:
            yield DictionaryEntry(begin=begin, headwords=words, text=found)


def number(digits: str) -> int:
    """A number in the base 64 of dictd's indexes."""
    value = 0
    for digit in digits:
        value = 64 * value + _DIGITS[digit]
    return value


def definition(text: str, headwords: Sequence[str]) -> str:
    """An entry with ~ for its headwords, and without their pronunciation between backslashes."""
    text = _PRONOUNCED.sub("", text)
    for word in sorted(headwords, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "~", text, flags=re.IGNORECASE)
    return text


def _groups(headwords: Sequence[tuple[str, ...]]) -> list[str]:
    """A name for each entry that it has in common with all entries that share a headword with it, directly or not."""
    parent: dict[str, str] = {}

    def found(word: str) -> str:
        while parent.setdefault(word, word) != word:
            parent[word] = parent[parent[word]]
            word = parent[word]
        return word

    for words in headwords:
        first = found(words[0].lower())
        for word in words[1:]:
            low, high = sorted((first, found(word.lower())))
            parent[high] = first = low
    return [found(words[0].lower()) for words in headwords]
