"""The tokenizer of a text split: `tokenizer.json` next to dataset.json, which stores its sha256.

If words were erased from it, dataset.json lists the file that replaces it. The sha256 of the original file is kept, so
that splits and runs can check that their ids have the same meaning.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maskstream.shards.config import Config
from maskstream.shards.errors import MissingFileError, ShardError, StoreError
from maskstream.shards.stores.base import Store

from .checked_file import read_checked
from .data_errors import REMEDY

TOKENIZER_JSON = "tokenizer.json"
"""The file, in the format of the `tokenizers` package."""
TOKENIZER = "tokenizer"
"""The field of dataset.json that names the file, if words were erased from it."""
ERASED_TOKENIZER = re.compile(r"tokenizer\.e\d{1,12}\.json")
"""Allowed names of such a file."""
MAX_TOKENIZER_BYTES = 1 << 28
MAX_VOCABULARY = 1 << 31
"""Ids are int32 in a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFacts(Config):
    """Facts about a tokenizer that a loader needs; part of the encoder's settings in dataset.json.

    sha256: Checksum of tokenizer.json, in hex. vocabulary: Number of ids. pad, unknown, begin, end, mask: Ids of the
    special tokens, such as [PAD], [UNK], [CLS], [SEP] and [MASK]; None if the tokenizer lacks one.
    """

    sha256: str
    vocabulary: int
    pad: int | None = None
    unknown: int | None = None
    begin: int | None = None
    end: int | None = None
    mask: int | None = None

    def validate(self) -> None:
        if not 0 < self.vocabulary <= MAX_VOCABULARY:
            raise ValueError(f"a vocabulary must have 1 to {MAX_VOCABULARY} ids, got {self.vocabulary}")
        for token in (self.pad, self.unknown, self.begin, self.end, self.mask):
            if token is not None and not 0 <= token < self.vocabulary:
                raise ValueError(f"the special token id {token} is not one of the {self.vocabulary} ids")


def has_tokenizer(info: Mapping[str, Any]) -> bool:
    """Return True if the dataset.json `info` of a split describes a tokenizer."""
    return "tokenizer" in info["settings"].get("encoder", {})


def read_tokenizer_facts(location: str, info: Mapping[str, Any]) -> TokenizerFacts:
    """Return the facts in the dataset.json `info` of the split at `location`. Raises ShardError if it has no
    tokenizer.
    """
    described = info["settings"].get("encoder", {})
    try:
        return TokenizerFacts.from_data(described["tokenizer"])
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(
            f"the dataset.json of {location} describes no tokenizer, so its texts cannot be read ({error}); {REMEDY}"
        ) from error


def name_erased_tokenizer(version: int) -> str:
    """Return the name of the tokenizer from which version `version` erased words."""
    return f"tokenizer.e{version}.json"


def find_tokenizer_name(info: Mapping[str, Any]) -> str:
    """Return the name of the tokenizer file of the split with the dataset.json `info`."""
    return str(info.get(TOKENIZER, TOKENIZER_JSON))


def read_tokenizer(store: Store, info: Mapping[str, Any]) -> bytes:
    """Return the contents of the split's tokenizer.json, or of the file that replaced it when words were erased.

    Raises ShardError if it is missing, differs from dataset.json, or the split has no tokenizer.
    """
    facts = read_tokenizer_facts(store.location, info)
    if TOKENIZER in info:
        return read_checked(store, info[TOKENIZER], info["files"])
    path = f"{store.location}/{TOKENIZER_JSON}"
    try:
        data = store.whole(TOKENIZER_JSON, MAX_TOKENIZER_BYTES)
    except MissingFileError as error:
        raise ShardError(f"{store.location} has a dataset.json, but no {TOKENIZER_JSON}; {REMEDY}") from error
    except StoreError as error:
        raise ShardError(f"{error}; {REMEDY}") from error
    if (found := hashlib.sha256(data).hexdigest()) != facts.sha256:
        raise ShardError(f"{path} has the sha256 {found}, but dataset.json lists {facts.sha256}; {REMEDY}")
    return data


def find_tokenizer_files(store: Store, info: Mapping[str, Any]) -> dict[str, bytes]:
    """Yield the tokenizer of a split by the name of its file; nothing if its encoder has none."""
    if not has_tokenizer(info):
        return {}
    return {find_tokenizer_name(info): read_tokenizer(store, info)}


def find_tokenizer_problems(store: Store, info: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of the tokenizer of a split; nothing if its encoder has none."""
    try:
        find_tokenizer_files(store, info)
    except ShardError as error:
        yield str(error)
