"""What is left of an erased sample: zeros in its tar, and a row of the manifest that keeps its slot in the order.

Its members are zero, at unchanged offsets, under the name `__erased__`, which readers of WebDataset pass over. Its row
has another key, no source, no label and no components, and its number is among the removed samples. The tar has another
name, so that nobody reads it with an earlier index.
"""

from __future__ import annotations

import re

ERASED = "__erased__"
"""The name of a member of an erased sample."""
_TAR = re.compile(r"(.*?)(?:\.e\d+)?\.tar", re.DOTALL)


def erased_key(sha256: str, row: int) -> str:
    """The key of an erased sample: that of its shard, by the checksum of its first writing, and its number in it."""
    return f"erased/{sha256[:16]}/{row:06d}"


def erased_tar(name: str, version: int) -> str:
    """The name of a tar from which samples were erased for a version."""
    return f"{stem_of(name)}.e{version}.tar"


def stem_of(name: str) -> str:
    """The name of a tar without its suffix, and without the version of an erasure."""
    found = _TAR.fullmatch(name)
    return found[1] if found else name
