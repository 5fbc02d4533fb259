"""Which source lies in which shard: a pure function of the sources and the settings."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from ..shards.errors import DatasetError
from .encode.encoder import Encoder
from .source import Source

MAX_SAMPLES_PER_SHARD = 256
_MIN_SAMPLES_PER_SHARD = 8
_SHARDS_WANTED = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """One shard to write: its tar, the sources in their order, and how they are encoded."""

    path: Path
    sources: tuple[Source, ...]
    encoder: Encoder

    @property
    def name(self) -> str:
        """The tar, as SPLIT/FILE."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def units(self) -> int:
        """A task's progress is counted in sources."""
        return len(self.sources)


def default_samples_per_shard(n_sources: int) -> int:
    """256, fewer for a small set, so that it still makes about 16 shards to shuffle and to work on side by side."""
    return min(MAX_SAMPLES_PER_SHARD, max(_MIN_SAMPLES_PER_SHARD, -(-n_sources // _SHARDS_WANTED)))


def plan(
    dataset: str, folder: Path, sources: Sequence[Source], encoder: Encoder, samples_per_shard: int
) -> list[ShardTask]:
    """The shards of a split: shard i holds the sources [i n, (i + 1) n) in the order of a hash of their ids.

    The hash mixes the classes and depends on nothing else. DatasetError where two sources have one id.
    """
    repeated = [name for name, count in Counter(source.id for source in sources).items() if count > 1]
    if repeated:
        raise DatasetError(f"{dataset}: {len(repeated)} source ids come more than once, such as {repeated[0]!r}")
    ordered = sorted(sources, key=lambda source: (xxhash.xxh3_64_intdigest(source.id.encode()), source.id))
    return [
        ShardTask(
            path=folder / f"{dataset}-{number:06d}.tar",
            sources=tuple(ordered[number * samples_per_shard : (number + 1) * samples_per_shard]),
            encoder=encoder,
        )
        for number in range(-(-len(ordered) // samples_per_shard))
    ]


def sample_key(source_id: str) -> str:
    """The key of a source: what of its id is legal in a key, and a hash, so that different ids give different keys."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", source_id)[-60:].strip("_-")
    return f"{readable}-{xxhash.xxh3_64_hexdigest(source_id.encode())}"


def settings_of(sources: Sequence[Source], encoder: Encoder, samples_per_shard: int) -> dict[str, Any]:
    """What the bytes of a split depend on: the encoder's settings, the shards' size, and the list of sources."""
    digest = xxhash.xxh3_128()
    for line in sorted(f"{source.id}\t{source.label}\t{source.window}{_meta(source)}\n" for source in sources):
        digest.update(line.encode())
    return {
        "encoder": encoder.to_dict(defaults=True),
        "samples_per_shard": samples_per_shard,
        "sources": len(sources),
        "sources_xxh3_128": digest.hexdigest(),
    }


def _meta(source: Source) -> str:
    return f"\t{json.dumps(source.meta, sort_keys=True)}" if source.meta else ""
