"""Files whose size and checksum are in dataset.json. They are read once and checked before they are parsed.

The bytes are read into memory, not mapped, so that the parsed bytes are the checked ones. A disk error then raises an
exception, whereas reading a mapped page would kill the process.
"""

from collections.abc import Mapping
from typing import Any

import xxhash

from maskstream.shards.errors import MissingFileError, ShardError, StoreError
from maskstream.shards.stores.base import Store
from maskstream.shards.stores.folders import is_elsewhere

from .data_errors import REMEDY

_CHANGED = (
    "a split that this one refers to is missing, or samples were erased from it; rerun the `maskstream merge` or "
    "`maskstream split` command that created this split, with the same folders"
)
SIZE_BYTES, SUM = "size_bytes", "xxh3_128"


def facts_of(data: bytes) -> dict[str, Any]:
    """Return size and checksum of a file with these contents."""
    return {SIZE_BYTES: len(data), SUM: xxhash.xxh3_128_hexdigest(data)}


def read_checked(store: Store, name: str, files: Mapping[str, Any]) -> bytes:
    """Return the contents of the file `name` of a split, whose size and checksum are in `files` (from dataset.json).

    Raises:
        ShardError: The file is missing, is not a regular file, or differs.
    """
    path, facts = f"{store.location}/{name}", files[name]
    remedy = _CHANGED if is_elsewhere(name) else REMEDY
    try:
        data = store.whole(name, facts[SIZE_BYTES])
    except MissingFileError as error:
        raise ShardError(f"{store.location} has a dataset.json, but no {name}; {remedy}") from error
    except StoreError as error:
        raise ShardError(f"{error}; {remedy}") from error
    if len(data) != facts[SIZE_BYTES]:
        raise ShardError(f"{path} has {len(data)} bytes, but dataset.json lists {facts[SIZE_BYTES]}; {remedy}")
    if xxhash.xxh3_128_hexdigest(data) != facts[SUM]:
        raise ShardError(f"{path}: its checksum (xxh3_128) differs from dataset.json; {remedy}")
    return data
