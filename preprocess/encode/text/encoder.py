"""Texts for shards: the members `txt` and `tokens.npy`, and `words.npy` and `classes.npy` if requested.

Token ids contain only the text. A loader adds the special tokens at the ends of a document.

A text is a text file, a line of a JSON Lines file, or a row of a Parquet file. The window of a source in a .jsonl file
is its line in bytes; in a .parquet file it is [row, row + 1).

Parts of speech come from a lexicon: the 17 universal tags, one for each word, without its context. Function words are
listed here; numbers, punctuation and symbols are recognised by their letters; all others have the most frequent part of
speech in WordNet, after its rules for endings. A capitalised word that no list has is a name. This is cruder than a
tagger: a word that is a noun or a verb by context always has the same class. It needs no model.

Tags: universaldependencies.org/u/pos. WordNet: Fellbaum 1998, morphy's rules of detachment.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xxhash

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.raw.parquet_rows import ParquetRows
from maskstream.preprocess.raw.scratch import Scratch
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import NOT_SAVED
from maskstream.shards.members.text import make_text_member, make_tokens_member

from .tokenizer import (
    TokenizedEncoder,
    UntrainedEncoder,
    list_training_texts,
    make_tokenizer,
    number_words,
    unpack_tokenizer,
)

if TYPE_CHECKING:
    from tokenizers import Encoding

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
    """The class of each word in WordNet, lower case, as an index into `TAGS`."""

    known: Mapping[str, int]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the index files of WordNet in a folder. Raise ValueError if one is missing."""
        best: dict[str, tuple[int, int, int]] = {}
        for name, tag in _FILES.items():
            try:
                lines = (folder / f"index.{name}").read_text("utf-8").splitlines()
            except OSError as error:
                raise ValueError(
                    f"{folder} contains no index.{name} ({error.strerror}); pass the folder with WordNet's index "
                    "files, such as usr/share/wordnet from Debian's wordnet-base"
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
        """Return the lexicon in a few hundred kilobytes; the same lexicon yields the same bytes."""
        return zlib.compress("\n".join(f"{word} {tag}" for word, tag in sorted(self.known.items())).encode(), 9)

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """Unpack the result of `packed`."""
        pairs = (line.rsplit(" ", 1) for line in zlib.decompress(data).decode().split("\n") if line)
        return cls({word: int(tag) for word, tag in pairs})

    def classes(self, words: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the class of each word, int64 (W,)."""
        known = {word: self.of(word) for word in dict.fromkeys(words)}
        return np.array([known[word] for word in words], np.int64)

    def of(self, word: str) -> int:
        """Return the class of a word."""
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
        if (stem := self._classify_stem(lower)) is not None:
            return stem
        if word[0].isupper():
            return TAGS.index("PROPN")
        if lower.endswith("ly"):
            return TAGS.index("ADV")
        return TAGS.index("NOUN" if kinds <= {"L", "M"} else "X")

    def _classify_stem(self, word: str) -> int | None:
        """Return the class of an inflected word whose stem has that class; None if there is none."""
        for tag, endings in _ENDINGS.items():
            for ending, instead in endings:
                stem = word.removesuffix(ending) + instead
                if word.endswith(ending) and len(stem) > 1 and self.known.get(stem) == TAGS.index(tag):
                    return TAGS.index(tag)
        return None


@lru_cache(maxsize=2)
def unpack_lexicon(packed: bytes) -> Lexicon:
    """Return the lexicon of `Lexicon.packed`, unpacked once per process."""
    return Lexicon.unpacked(packed)


def _counts(fields: Sequence[str]) -> tuple[int, int]:
    """Return the number of senses in a line of an index file, and how many of them occur in tagged texts; both follow
    the pointers.
    """
    pointers = int(fields[2])
    return int(fields[3 + pointers]), int(fields[4 + pointers])


MAX_BYTES = 1 << 28
"""The longest text, in bytes of UTF-8."""
LINES, ROWS = ".jsonl", ".parquet"
TEXT, OF_SOURCE = "text", ("label", "split", "source")
"""The column of the text, and those that the dataset's list has read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text, and the other entries of its line or row."""

    text: str
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_document(source: Source) -> Document:
    """Return the document of a source; a computed source has its text in `meta`. Raise RejectError if it has no valid
    text.
    """
    if source.computed:
        return _check_document(source.meta)
    check_source_file(source.path)
    if source.path.suffix == LINES:
        return _check_document(_read_line(source))
    if source.path.suffix == ROWS:
        return _check_document(_parse_row(source))
    size = source.path.stat().st_size
    if size > MAX_BYTES:
        raise RejectError("check", f"has {size} bytes; expected at most {MAX_BYTES}")
    return Document(text=_decoded(source.path.read_bytes().removeprefix(b"\xef\xbb\xbf")))


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RejectError("decode", f"is not valid UTF-8 (byte {error.start}: {error.reason})") from error


def _read_line(source: Source) -> Mapping[str, Any]:
    begin, end = source.window or (0, 0)
    if not 0 <= begin < end <= begin + MAX_BYTES:
        raise RejectError("check", f"its line has {end - begin} bytes; expected 1 to {MAX_BYTES}")
    with source.path.open("rb") as file:
        file.seek(begin)
        line = file.read(end - begin)
    try:
        fields = json.loads(_decoded(line))
    except (ValueError, RecursionError) as error:
        raise RejectError("decode", f"is not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise RejectError("decode", f"is {type(fields).__name__}, not a JSON object")
    return fields


def _parse_row(source: Source) -> Mapping[str, Any]:
    row = 0 if source.window is None else source.window[0]
    fields: Mapping[str, Any] = _rows(source.path, source.path.stat().st_mtime_ns).row(row)
    return fields


@lru_cache(maxsize=8)
def _rows(path: Path, mtime_ns: int) -> ParquetRows:
    """Return the rows of a file that was modified at `mtime_ns`."""
    return ParquetRows(path, _scratch().folder)


@lru_cache(maxsize=1)
def _scratch() -> Scratch:
    """Return the folder in which this process unpacks row groups; a task's sources come in random order."""
    return Scratch()


def _check_document(fields: Mapping[str, Any]) -> Document:
    """Return the document of a line or row. Raise RejectError if it has no text, or text that is not valid Unicode."""
    text = fields.get(TEXT)
    if not isinstance(text, str):
        what = f"its {TEXT!r} is {type(text).__name__}" if TEXT in fields else f"no {TEXT!r}; it has {[*fields][:5]}"
        raise RejectError("decode", f"has no text: {what}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RejectError("decode", f"is not valid Unicode (character {error.start}: {error.reason})") from error
    if size > MAX_BYTES:
        raise RejectError("check", f"has {size} bytes; expected at most {MAX_BYTES}")
    others = {name: value for name, value in fields.items() if name != TEXT and name not in OF_SOURCE}
    return Document(text=text, meta={name: value for name, value in others.items() if _is_json(value)})


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEncoder(UntrainedEncoder):
    """The settings of an encoder of texts.

    Attributes:
        words: Whether to store `words.npy`, the word number of each token.
        classes: Folder of WordNet's index.noun, index.verb, index.adj and index.adv, such as the one of Debian's
            wordnet-base; then `classes.npy` is stored, the part of speech of each token's word.
    """

    modality: ClassVar[str] = "text"

    words: bool = True
    classes: str | None = None

    def validate(self) -> None:
        UntrainedEncoder.validate(self)
        if self.classes and not self.words:
            raise ValueError("classes need words; leave out words=false")

    def prepared(self, sources: Mapping[str, Sequence[Source]]) -> TokenEncoder:
        """Return the encoder with its tokenizer and its lexicon.

        Args:
            sources: Sources by split, on whose texts a tokenizer may be trained.

        Raises:
            ValueError: The tokenizer or the lexicon cannot be used.
        """
        texts = list_training_texts(sources, lambda source: [read_document(source).text])
        definition, facts = make_tokenizer(self.tokenizer, texts)
        lexicon = None if self.classes is None else Lexicon.read(Path(self.classes))
        packed = b"" if lexicon is None else lexicon.packed()
        return TokenEncoder(
            tokenizer=facts,
            words=self.words,
            lexicon=None if lexicon is None else xxhash.xxh3_128_hexdigest(packed),
            definition=zlib.compress(definition),
            packed_lexicon=packed,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEncoder(TokenizedEncoder):
    """Encodes texts with a tokenizer.

    Attributes:
        words: See `TextEncoder`.
        lexicon: xxh3_128 of the lexicon of parts of speech, or None.
        packed_lexicon: Packed lexicon, which travels with every task.
    """

    modality: ClassVar[str] = "text"

    words: bool = True
    lexicon: str | None = None
    packed_lexicon: bytes = field(default=b"", repr=False, metadata=NOT_SAVED)

    def encode(self, source: Source) -> Encoded:
        """Encode a text. Raise RejectError if it cannot be read, or has no tokens."""
        document = read_document(source)
        encoding = unpack_tokenizer(self.definition).encode(document.text, add_special_tokens=False)
        if not encoding.ids:
            raise RejectError("check", "has no tokens")
        tokens = make_tokens_member(np.array(encoding.ids, np.int64), below=self.tokenizer.vocabulary)
        members = {"txt": make_text_member(document.text), "tokens.npy": tokens}
        if self.words:
            words = number_words(encoding)
            members["words.npy"] = make_tokens_member(words)
            if self.lexicon is not None:
                classes = unpack_lexicon(self.packed_lexicon).classes(_list_surfaces(document, encoding, words))
                members["classes.npy"] = make_tokens_member(classes[words])
        return Encoded(members=members, meta=dict(document.meta))


def _list_surfaces(
    document: Document, encoding: Encoding, words: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> list[str]:
    """Return the words as they are written in the text."""
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    first = np.flatnonzero(np.diff(words, prepend=-1))
    last = np.append(first[1:], len(words)) - 1
    spans = zip(offsets[first, 0].tolist(), offsets[last, 1].tolist(), strict=True)
    return [document.text[begin:end].strip() for begin, end in spans]
