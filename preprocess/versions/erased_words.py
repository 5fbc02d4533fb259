"""Words that only erased samples had: label names, and entries of a vocabulary learned from texts.

They occur in the list of label names and in tokenizer.json of the split, and of other splits of the same job next to
it. Label numbers and token ids are unchanged, with a placeholder for each word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from tokenizers import Tokenizer, pre_tokenizers

from maskstream.shards.errors import DatasetError, ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer
from maskstream.shards.media.npy import read_npy
from maskstream.shards.members.text import JSON, TEXT, TEXTS, TOKENS

Rows = npt.NDArray[np.int64]

_WITHIN = "##"
_AGAIN = "leave out --words, or write the split again without the samples: `maskstream shards ... --overwrite`"


@dataclass(frozen=True, kw_only=True, slots=True)
class ErasedWords:
    """Erased words.

    Attributes:
        labels: Placeholder of each label name.
        tokens: Entries of the vocabulary.
        sha256: Checksum of the tokenizer as it was created.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    tokens: AbstractSet[str] = frozenset()
    sha256: str | None = None

    def label_names(self, names: Sequence[str]) -> list[str]:
        """Return label names with the erased ones replaced."""
        return [self.labels.get(name, name) for name in names]

    def tokenizer(self, manifest: Manifest) -> bytes | None:
        """Return a split's tokenizer.json without the entries; None if it has none of them."""
        if not self.tokens or read_tokenizer_sha256(manifest.info) != self.sha256:
            return None
        vocabulary = _Vocabulary.of(manifest)
        return None if self.tokens.isdisjoint(vocabulary.entries) else vocabulary.without(self.tokens)


def find_erased_words(manifest: Manifest, rows: Rows, beside: Sequence[Manifest]) -> ErasedWords:
    """Find the words that only the samples `rows` of a split have, and no other sample of the split or of the splits
    `beside` it.

    All texts of these splits are read, and all json if a label has no other sample.

    Raises:
        DatasetError: The tokenizer's words cannot be attributed to samples.
        ShardError: A sample cannot be read.
    """
    others = [(manifest, np.setdiff1d(np.arange(len(manifest)), rows)), *((one, np.arange(len(one))) for one in beside)]
    labels, sha256 = _labels(manifest, rows, others), read_tokenizer_sha256(manifest.info)
    if sha256 is None:
        return ErasedWords(labels=labels)
    vocabulary = _Vocabulary.of(manifest)
    alike = [(one, own) for one, own in others if read_tokenizer_sha256(one.info) == sha256]
    tokens = vocabulary.select_only_in(_words(manifest, rows, vocabulary, strict=True), alike)
    return ErasedWords(labels=labels, tokens=tokens, sha256=sha256)


def share_words(info: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two splits have common label names or the same tokenizer."""
    sha256 = read_tokenizer_sha256(info)
    return not {*info["label_names"]}.isdisjoint(other["label_names"]) or (
        sha256 is not None and sha256 == read_tokenizer_sha256(other)
    )


def read_tokenizer_sha256(info: Mapping[str, Any]) -> str | None:
    """Return the sha256 of a split's tokenizer as it was created; None if it has none."""
    found = info["settings"].get("encoder", {}).get("tokenizer")
    return str(found["sha256"]) if isinstance(found, Mapping) and "sha256" in found else None


def _labels(manifest: Manifest, rows: Rows, others: Sequence[tuple[Manifest, Rows]]) -> dict[str, str]:
    """Return placeholders for the labels that no sample of `others` has, as a label or in its json."""
    names: list[str] = manifest.info["label_names"]
    found = _label_names(manifest, rows) | {*names}.intersection(_list_json_texts(manifest, rows))
    for one, own in others:
        found -= _label_names(one, own)
    for one, own in others if found else ():
        found.difference_update(_list_json_texts(one, own))
    kept = [name if name not in found else "" for name in names]
    digest = xxhash.xxh3_64_hexdigest(json.dumps(kept).encode())[:8]
    return {name: f"erased/{digest}-{number}" for number, name in enumerate(names) if name in found}


def _label_names(manifest: Manifest, rows: Rows) -> set[str]:
    """Return the label names of some samples."""
    names: list[str] = manifest.info["label_names"]
    return {names[label] for label in np.unique(manifest.label[rows]).tolist() if 0 <= label < len(names)}


def _list_json_texts(manifest: Manifest, rows: Rows) -> Iterator[str]:
    """Yield all strings in the json of some samples, including field names."""
    for i, data in _read_members(manifest, rows, JSON.name):
        try:
            left = [json.loads(data)]
        except (ValueError, RecursionError) as error:
            raise _make_damage_error(manifest, i, error) from error
        while left:
            one = left.pop()
            if isinstance(one, str):
                yield one
            elif isinstance(one, dict):
                left += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                left += one


def _read_members(manifest: Manifest, rows: Rows, kind: str, name: str | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of all members of a kind sample by sample, including removed samples."""
    own = [one for one in manifest.components.values() if one.kind == kind and name in (None, one.name)]
    for i in rows.tolist():
        for one in own:
            if one.offset[i]:
                yield i, manifest.store.read(manifest.shard_name(i), int(one.offset[i]), int(one.size[i]))


def _make_damage_error(manifest: Manifest, i: int, error: Exception) -> ShardError:
    return ShardError(
        f"{manifest.location}: the sample {manifest.key(i)!r} cannot be read ({error}); nothing is erased"
    )


def _words(manifest: Manifest, rows: Rows, vocabulary: _Vocabulary, *, strict: bool = False) -> Iterator[str]:
    """Yield the words of some samples' texts, or of their tokens if the texts are not stored.

    With `strict`, raise DatasetError for a word that its token does not determine.
    """
    kinds = {one.kind for one in manifest.components.values()}
    if TEXT.name in kinds:
        for i, data in _read_members(manifest, rows, TEXT.name):
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                raise _make_damage_error(manifest, i, error) from error
            yield from vocabulary.words(text)
        return
    kind, name = (TEXTS.name, None) if TEXTS.name in kinds else (TOKENS.name, "tokens.npy")
    for i, data in _read_members(manifest, rows, kind, name):
        try:
            ids = read_npy(data).tolist()
        except ValueError as error:
            raise _make_damage_error(manifest, i, error) from error
        yield from vocabulary.words_of(ids, f"{manifest.location}: the sample {manifest.key(i)!r}" if strict else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Vocabulary:
    """A tokenizer trained by `maskstream shards`.

    Attributes:
        definition: Contents of tokenizer.json.
        tokenizer: The tokenizer.
        entries: Learned entries, without special tokens and the byte alphabet.
        whole_words: Whether entries are parts of words, with ## inside a word, instead of byte sequences.
    """

    definition: dict[str, Any]
    tokenizer: Tokenizer
    entries: frozenset[str]
    whole_words: bool

    @classmethod
    def of(cls, manifest: Manifest) -> _Vocabulary:
        """Load a split's tokenizer. Raises DatasetError if it was not trained by maskstream."""
        definition = json.loads(read_tokenizer(manifest.store, manifest.info))
        model, cut = definition["model"], (definition.get("pre_tokenizer") or {}).get("type")
        whole_words = (model.get("type"), cut) == ("WordPiece", "BertPreTokenizer")
        odd = model.get("continuing_subword_prefix") not in (None, "", _WITHIN) or model.get("end_of_word_suffix")
        if not (whole_words or (model.get("type"), cut) == ("BPE", "ByteLevel")) or odd:
            raise DatasetError(
                f"{manifest.location} has a tokenizer ({model.get('type')}, {cut}) that `maskstream shards` does "
                f"not train, so it is unknown what it learned from the samples; {_AGAIN}"
            )
        special = {one["content"] for one in definition.get("added_tokens", ())}
        entries = frozenset(model["vocab"]) - special
        return cls(
            definition=definition,
            tokenizer=Tokenizer.from_str(json.dumps(definition)),
            entries=entries if whole_words else entries - {*pre_tokenizers.ByteLevel.alphabet()},
            whole_words=whole_words,
        )

    def words(self, text: str) -> Iterator[str]:
        """Yield the words of a text, as in training."""
        normalizer, cut = self.tokenizer.normalizer, self.tokenizer.pre_tokenizer
        normal = text if normalizer is None else normalizer.normalize_str(text)
        yield from (word for word, _ in cut.pre_tokenize_str(normal))

    def words_of(self, ids: Sequence[int], where: str) -> Iterator[str]:
        """Yield the words of a text given by its tokens; with byte entries, the whole text as one word.

        `where` names the sample in the DatasetError for a word that its token does not determine; "" disables the
        check.
        """
        tokens = [self.tokenizer.id_to_token(i) or "" for i in ids]
        if not self.whole_words:
            yield "".join(tokens)
            return
        if where and self.definition["model"].get("unk_token") in tokens:
            raise DatasetError(
                f"{where} has words that cannot be recovered from its tokens, so it is unknown what was learned "
                f"from them; {_AGAIN}"
            )
        word = ""
        for token in tokens:
            if not token.startswith(_WITHIN) and word:
                yield word
                word = ""
            word += token.removeprefix(_WITHIN)
        if word:
            yield word

    def select_only_in(self, words: Iterable[str], others: Sequence[tuple[Manifest, Rows]]) -> frozenset[str]:
        """Return the entries that occur in one of `words`, and in no word of the samples `others`."""
        left = set[str]()
        sizes = sorted({len(entry) for entry in self.entries})
        for word in {*words}:
            left |= self.entries.intersection(self._parts(word, sizes))
        seen = set[str]()
        for one, own in others if left else ():
            for word in _words(one, own, self):
                if word not in seen:
                    seen.add(word)
                    left.difference_update(self._parts(word, sorted({len(entry) for entry in left})))
        return frozenset(left)

    def _parts(self, word: str, sizes: Sequence[int]) -> Iterator[str]:
        """Yield all substrings of a word with these lengths that may be entries; those inside it begin with ##."""
        for begin in range(len(word)):
            mark = _WITHIN if begin and self.whole_words else ""
            for size in sizes:
                end = begin + size - len(mark)
                if end > len(word):
                    break
                if end > begin:
                    yield mark + word[begin:end]

    def without(self, tokens: AbstractSet[str]) -> bytes:
        """Return tokenizer.json without these entries; their ids are unchanged."""
        model = dict(self.definition["model"])
        model["vocab"] = {
            f"[ERASED {number}]" if token in tokens else token: number for token, number in model["vocab"].items()
        }
        if "merges" in model:
            pairs = [one.split(" ", 1) if isinstance(one, str) else one for one in model["merges"]]
            model["merges"] = [pair for pair in pairs if tokens.isdisjoint((*pair, "".join(pair)))]
        changed = Tokenizer.from_str(json.dumps({**self.definition, "model": model}))
        return str(changed.to_str(pretty=False)).encode()
