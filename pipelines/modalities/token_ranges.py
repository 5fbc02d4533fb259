"""Where some values of a member of tokens lie, from the manifest alone."""

from __future__ import annotations

import numpy as np

from maskstream.shards.errors import DataError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.text import TOKEN_TYPES
from maskstream.shards.stores.base import Range


def token_range(manifest: Manifest, sample: int, name: str, first: int, count: int) -> Range:
    """The byte range of the values [first, first + count) of component `name` of a sample.

    SampleError if the sample lacks it, or its numbers in the manifest contradict each other.
    """
    where, offset, size = manifest.member(sample, name)
    with manifest.reading(sample, name):
        itemsize, facts = _dtype(manifest, sample, name).itemsize, manifest.components[name].facts
        n, begin = int(facts["n_tokens"][sample]), int(facts["data_offset"][sample])
        if begin < 0 or begin + n * itemsize != size or not 0 <= first < first + count <= n:
            raise DataError(
                f"has {size} bytes; the manifest says {n} tokens from byte {begin} on, and {first} to "
                f"{first + count - 1} are read"
            )
    return Range(where, offset + begin + first * itemsize, count * itemsize)


def token_dtype(manifest: Manifest, sample: int, name: str) -> np.dtype[np.unsignedinteger]:
    """The dtype of component `name` of a sample. SampleError if it is none of tokens."""
    with manifest.reading(sample, name):
        return _dtype(manifest, sample, name)


def _dtype(manifest: Manifest, sample: int, name: str) -> np.dtype[np.unsignedinteger]:
    words = manifest.components[name].words["dtype"]
    code = int(words.code[sample])
    dtype = words.names[code] if code >= 0 else ""
    if dtype not in TOKEN_TYPES:
        raise DataError(f"has the dtype {dtype!r} in the manifest; legal are {', '.join(TOKEN_TYPES)}")
    return np.dtype(dtype)
