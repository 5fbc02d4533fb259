"""Tokenizers of the `tokenizers` package: trained on the texts of a dataset, or loaded from a path.

A trained tokenizer depends only on the texts. The package's own WordPiece trainer is not deterministic: the ids of
pieces within words follow the order of a hash table, which differs in every process. So word pieces are trained as byte
pairs on letters that encode whether they begin a word, which yields the same merges and keeps their order.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import xxhash
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import WordPiece as WordPieceDecoder

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import Int64s
from maskstream.shards.config import NOT_SAVED, Config
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, TokenizerFacts

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens of a trained tokenizer, with the ids 0 to 4."""
ALGORITHMS = ("wordpiece", "bpe")
TRAIN = "train:"
LEAST = 300
"""Smallest vocabulary: 256 bytes, special tokens and some pieces."""
_NAMES = {
    "pad": ("[PAD]", "<pad>", "<|padding|>", "<|endoftext|>"),
    "unknown": ("[UNK]", "<unk>"),
    "begin": ("[CLS]", "<s>", "<|startoftext|>", "<bos>"),
    "end": ("[SEP]", "</s>", "<|endoftext|>", "<eos>"),
    "mask": ("[MASK]", "<mask>"),
}
"""Names of special tokens in published tokenizers, the usual one first."""
_ROLES = {
    "pad": ("pad",),
    "unknown": ("unk",),
    "begin": ("cls", "bos"),
    "end": ("sep", "eos"),
    "mask": ("mask",),
}
"""Names of the special tokens in a folder of transformers."""
_LETTERS = 2000
"""Largest number of letters in a WordPiece vocabulary; words with rarer ones are not used for training."""
_WITHIN = 0xF0000
"""Letters within a word become characters of a private plane from here on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How to train a tokenizer: the algorithm, and the size of its vocabulary."""

    algorithm: str
    vocabulary: int

    @classmethod
    def parse(cls, words: str) -> Training:
        """Parse a setting such as `train:wordpiece:8000`. Raise ValueError for anything else."""
        algorithm, _, size = words.removeprefix(TRAIN).partition(":")
        if algorithm not in ALGORITHMS or not size.isdecimal() or int(size) < LEAST:
            raise ValueError(
                f"tokenizer={words!r} does not describe a training run; write {TRAIN}ALGORITHM:SIZE with "
                f"{' or '.join(ALGORITHMS)} and a vocabulary of at least {LEAST}, such as {TRAIN}wordpiece:8000, or "
                "the path of a tokenizer.json or of a transformers folder"
            )
        return cls(algorithm=algorithm, vocabulary=int(size))

    def trained(self, texts: Iterable[str]) -> bytes:
        """Return the tokenizer.json of a tokenizer trained on `texts`; the same texts yield the same bytes."""
        tokenizer = (
            _train_word_pieces(self.vocabulary, texts)
            if self.algorithm == "wordpiece"
            else self._train_byte_pairs(texts)
        )
        return tokenizer.to_str(pretty=False).encode()

    def _train_byte_pairs(self, texts: Iterable[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = ByteLevelDecoder()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=[*SPECIAL],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer


def _train_word_pieces(vocabulary: int, texts: Iterable[str]) -> Tokenizer:
    """Train uncased word pieces as in BERT: lower case without accents, split at spaces and punctuation."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    words, letters = pre_tokenizers.BertPreTokenizer(), Counter[str]()
    counts = Counter[str]()
    for text in texts:
        counts.update(word for word, _ in words.pre_tokenize_str(normalizer.normalize_str(text)))
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
    kept = sorted(sorted(letters, key=lambda letter: (-letters[letter], letter))[:_LETTERS])
    within = {letter: chr(_WITHIN + i) for i, letter in enumerate(kept)}
    shown = {inner: letter for letter, inner in within.items()}
    marked = {word: word[0] + "".join(within[one] for one in word[1:]) for word in counts if {*word} <= within.keys()}
    firsts = sorted({word[0] for word in marked.values()})
    inners = sorted({letter for word in marked.values() for letter in word[1:]})
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL), initial_alphabet=[*firsts, *inners], show_progress=False
    )
    pairs.train_from_iterator((f"{marked[word]} " * counts[word] for word in sorted(marked)), trainer)
    ids = pairs.get_vocab()
    pieces = [_format_piece(token, shown) for token in sorted(ids, key=ids.__getitem__)]
    found = {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(found, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, words
    tokenizer.decoder = WordPieceDecoder()
    tokenizer.add_special_tokens([*SPECIAL])
    return tokenizer


def _format_piece(token: str, shown: dict[str, str]) -> str:
    """Return a trained token as a word piece, with ## if it does not begin a word."""
    piece = "".join(shown.get(letter, letter) for letter in token)
    return f"##{piece}" if token[0] in shown else piece


@lru_cache(maxsize=4)
def load_tokenizer(definition: bytes) -> Tokenizer:
    """Load a tokenizer.json, so that special tokens in a text are plain text. Raise ValueError if it is malformed."""
    try:
        tokenizer = Tokenizer.from_str(definition.decode())
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the package raises nothing more specific, and its panics are not an Exception
        raise ValueError(f"not a tokenizer.json ({error}); the tokenizers package writes one with save()") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_facts(definition: bytes, named: Mapping[str, str] | None = None) -> TokenizerFacts:
    """Read the facts of a tokenizer.json.

    Args:
        definition: Contents of the file.
        named: Special tokens with known names, such as {"mask": "<m>"}.

    Raises:
        ValueError: The file is malformed, or lacks special tokens that rows of texts need.
    """
    tokenizer, own = load_tokenizer(definition), named or {}
    known = {
        what: next((i for i in map(tokenizer.token_to_id, (own.get(what, ""), *names)) if i is not None), None)
        for what, names in _NAMES.items()
    }
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    return TokenizerFacts(sha256=hashlib.sha256(definition).hexdigest(), vocabulary=highest + 1, **known)


def _read_folder(folder: Path) -> tuple[bytes, dict[str, str]]:
    """Return the tokenizer.json of a folder written by transformers, and the names of its special tokens. Raise
    ValueError if there is none, or its tokenizer_config.json is damaged.
    """
    path = folder / TOKENIZER_JSON
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {TOKENIZER_JSON}; transformers' "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OTHER) writes one for tokenizers in older formats"
        )
    config, named = folder / "tokenizer_config.json", {}
    try:
        said = json.loads(config.read_bytes()) if config.is_file() else {}
        for what, roles in _ROLES.items():
            for role in roles:
                token = said.get(f"{role}_token")
                token = token.get("content") if isinstance(token, dict) else token
                if isinstance(token, str) and what not in named:
                    named[what] = token
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{config} is damaged ({error})") from error
    return path.read_bytes(), named


def make_tokenizer(tokenizer: str, texts: Iterable[str]) -> tuple[bytes, TokenizerFacts]:
    """Load or train a tokenizer.

    Args:
        tokenizer: Setting of an encoder: a path, or `train:ALGORITHM:SIZE`.
        texts: Texts to train on.

    Returns:
        Its tokenizer.json and its facts.

    Raises:
        ValueError: The file cannot be read or is not a tokenizer.
    """
    if tokenizer.startswith(TRAIN):
        definition = Training.parse(tokenizer).trained(texts)
        return definition, read_facts(definition)
    path = Path(tokenizer)
    try:
        definition, named = _read_folder(path) if path.is_dir() else (path.read_bytes(), {})
        return definition, read_facts(definition, named)
    except ValueError as error:
        raise ValueError(f"tokenizer={tokenizer!r} cannot be used: {error}") from error
    except OSError as error:
        raise ValueError(
            f"tokenizer={tokenizer!r} cannot be read ({error.strerror}); pass the path of a tokenizer.json or of a "
            f"transformers folder, or {TRAIN}wordpiece:8000"
        ) from error


@lru_cache(maxsize=4)
def unpack_tokenizer(packed: bytes) -> Tokenizer:
    """Load a compressed tokenizer.json, once per process."""
    return load_tokenizer(zlib.decompress(packed))


def number_words(encoding: Encoding) -> Int64s:
    """Return the word number of each token, from 0, ascending; a token outside of words is treated as a word."""
    given = encoding.word_ids
    new = [i == 0 or one is None or one != given[i - 1] for i, one in enumerate(given)]
    return np.cumsum(new, dtype=np.int64) - 1


BYTES = 1 << 25
"""Size of the training texts: the first sources with this many bytes in total."""


def list_training_texts(
    splits: Mapping[str, Sequence[Source]], texts: Callable[[Source], Iterable[str]]
) -> Iterator[str]:
    """Yield the texts of the split train, or else of the first split, in the order of a hash: all, or the first
    `BYTES`.

    Args:
        splits: Sources by split.
        texts: Function that returns the texts of a source; sources that it rejects are skipped.
    """
    left, split = BYTES, "train" if "train" in splits else next(iter(splits), "")
    for source in sorted(splits.get(split, ()), key=lambda one: (xxhash.xxh3_64_intdigest(one.id.encode()), one.id)):
        try:
            held = list(texts(source))
        except RejectError:
            continue
        yield from held
        left -= sum(len(text.encode()) for text in held)
        if left <= 0:
            return


@dataclass(frozen=True, kw_only=True, slots=True)
class UntrainedEncoder(Config):
    """The settings of an encoder of texts before its tokenizer exists.

    Attributes:
        tokenizer: `train:ALGORITHM:SIZE`, which trains one on the texts of the split train (wordpiece or bpe), or the
            path of a tokenizer.json, or of a folder written by transformers.
    """

    modality: ClassVar[str]

    tokenizer: str = f"{TRAIN}wordpiece:8192"

    def validate(self) -> None:
        if self.tokenizer.startswith(TRAIN):
            Training.parse(self.tokenizer)

    @property
    def profile(self) -> str:
        """The only profile."""
        return self.modality

    def encode(self, source: Source) -> Encoded:
        """Raise ValueError, because only the encoder that `prepared` returns can encode."""
        raise ValueError("this encoder has no tokenizer yet; call prepared(), as make_shards does")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedEncoder(Config):
    """Base class of encoders with a tokenizer.

    Attributes:
        tokenizer: Facts of the tokenizer.
        definition: Compressed tokenizer.json, which travels with every task.
    """

    modality: ClassVar[str]

    tokenizer: TokenizerFacts
    definition: bytes = field(default=b"", repr=False, metadata=NOT_SAVED)

    @property
    def profile(self) -> str:
        """The only profile."""
        return self.modality

    @property
    def attached(self) -> Mapping[str, bytes]:
        """Contents of tokenizer.json, which is stored next to dataset.json."""
        return {TOKENIZER_JSON: zlib.decompress(self.definition)}
