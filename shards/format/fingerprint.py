"""The fingerprint of a split: the identity of its samples and of their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from maskstream.shards.stores.folders import file_of

from .shard_facts import ShardFacts

FINGERPRINT_DIGITS = 32


def fingerprint_of(shards: Iterable[ShardFacts], *, foreign: bool) -> str:
    """The first digits of a sha256, in hex, of the names and checksums of the shards as they were first written.

    The folder of a shard does not count, but for foreign tars: the same shards merged from other places have the same
    samples.
    """
    digest = hashlib.sha256()
    for shard in shards:
        name, sha256 = shard.written or (shard.name if foreign else file_of(shard.name), shard.sha256)
        digest.update(f"{name} {sha256}\n".encode())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]
