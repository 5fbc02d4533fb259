"""Texts for shards: the members `txt` and `tokens.npy`, and `words.npy` and `classes.npy` where they are asked for.

Token ids are those of the text alone. A loader adds the special tokens at the ends of a document.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import xxhash

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import NOT_SAVED, Config
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, TokenizerFacts
from maskstream.shards.members.text import text_member, tokens_member

from .parts_of_speech import Lexicon, lexicon_of
from .read import Document, read_document
from .tokenizer import TRAIN, Training, definition_of, packed_tokenizer, word_numbers
from .training_texts import training_texts

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEncoder(Config):
    """The settings of an encoder of texts, before its tokenizer is there.

    tokenizer: `train:ALGORITHM:SIZE`, which trains one on the split train (wordpiece or bpe), or the path of a
    tokenizer.json. words: whether `words.npy` is written, the number of each token's word. classes: the path of a
    folder with WordNet's index.noun, index.verb, index.adj and index.adv, such as that of Debian's wordnet-base; then
    `classes.npy` is written, the part of speech of each token's word (see parts_of_speech.py).
    """

    modality: ClassVar[str] = "text"

    tokenizer: str = f"{TRAIN}wordpiece:8192"
    words: bool = True
    classes: str | None = None

    def __post_init__(self) -> None:
        if self.tokenizer.startswith(TRAIN):
            Training.parse(self.tokenizer)
        if self.classes and not self.words:
            raise ValueError("classes are of words; leave words=false out")

    @property
    def profile(self) -> str:
        """There is one."""
        return "text"

    def prepared(self, sources: Mapping[str, Sequence[Source]]) -> TokenEncoder:
        """The encoder with its tokenizer and its lexicon; `sources` are those of each split.

        Raises ValueError for a tokenizer or a lexicon that cannot be used.
        """
        split = "train" if "train" in sources else next(iter(sources), "")
        texts = training_texts(sources.get(split, ()), lambda source: [read_document(source).text])
        definition, facts = definition_of(self.tokenizer, texts)
        lexicon = None if self.classes is None else Lexicon.read(Path(self.classes))
        packed = b"" if lexicon is None else lexicon.packed()
        return TokenEncoder(
            tokenizer=facts,
            words=self.words,
            lexicon=None if lexicon is None else xxhash.xxh3_128_hexdigest(packed),
            definition=zlib.compress(definition),
            packed_lexicon=packed,
        )

    def encode(self, source: Source) -> Encoded:
        """Refuse to encode. Raises ValueError: `prepared` makes the encoder that does."""
        raise ValueError("this encoder has no tokenizer yet; call prepared(), as make_shards does")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEncoder(Config):
    """Encodes texts with a tokenizer.

    tokenizer: its facts. words: as in `TextEncoder`. lexicon: the xxh3_128 of the lexicon of parts of speech, or None.
    definition: tokenizer.json, compressed. packed_lexicon: the lexicon, packed. Both travel with every task.
    """

    modality: ClassVar[str] = "text"

    tokenizer: TokenizerFacts
    words: bool = True
    lexicon: str | None = None
    definition: bytes = field(default=b"", repr=False, metadata=NOT_SAVED)
    packed_lexicon: bytes = field(default=b"", repr=False, metadata=NOT_SAVED)

    @property
    def profile(self) -> str:
        """There is one."""
        return "text"

    @property
    def attached(self) -> Mapping[str, bytes]:
        """The file that lies beside dataset.json."""
        return {TOKENIZER_JSON: zlib.decompress(self.definition)}

    def encode(self, source: Source) -> Encoded:
        """The members of a text. RejectError if it cannot be read, or has no tokens."""
        document = read_document(source)
        encoding = packed_tokenizer(self.definition).encode(document.text, add_special_tokens=False)
        if not encoding.ids:
            raise RejectError("check", "has no tokens")
        tokens = tokens_member(np.array(encoding.ids, np.int64), below=self.tokenizer.vocabulary)
        members = {"txt": text_member(document.text), "tokens.npy": tokens}
        if self.words:
            words = word_numbers(encoding)
            members["words.npy"] = tokens_member(words)
            if self.lexicon is not None:
                classes = lexicon_of(self.packed_lexicon).classes(_surfaces(document, encoding, words))
                members["classes.npy"] = tokens_member(classes[words])
        return Encoded(members=members, meta=dict(document.meta))


def _surfaces(document: Document, encoding: Encoding, words: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    """The words as they stand in the text."""
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    first = np.flatnonzero(np.diff(words, prepend=-1))
    last = np.append(first[1:], len(words)) - 1
    spans = zip(offsets[first, 0].tolist(), offsets[last, 1].tolist(), strict=True)
    return [document.text[begin:end].strip() for begin, end in spans]
