"""The plan assigns sources to shards. It is a pure function of the sources and the settings.

Sources are ordered by the xxh3_64 of their ids, so a dataset sorted by class does not produce shards with a single
class.

A part of a job is every n-th task of each split. Parts run at the same time on any machines, without a driver:
`part=(i, n)` writes shards and their records, and a last run with `finish` writes the rest. Each shard is published by
a rename, and all machines write the same bytes. Parts hold a shared lock; a whole run and `finish` hold an exclusive
one. On a file system without locks, at worst some work is done twice. Only `finish` deletes temporary files, since a
part could delete another's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import xxhash

from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.limits import DEFAULT, Limits
from maskstream.preprocess.raw.files import LOCAL, RawFiles
from maskstream.preprocess.raw.lists import is_unicode
from maskstream.preprocess.source import PAUSES_S, Source
from maskstream.shards.arrays import UInt8s
from maskstream.shards.errors import DatasetError
from maskstream.shards.members.member import Member
from maskstream.shards.stores.output import Location, get_last_parts, within

from .ledger import CrashableTask

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobPart:
    """Part `number` (from 1) of `count`. Records refer to shards, not to parts, so `count` may change between runs."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"the part {self} does not exist; expected 1/N to N/N, such as 3/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> JobPart:
        """Parse a part such as "3/8". Raises ValueError for any other text."""
        number, slash, count = text.partition("/")
        if not (slash and number.isascii() and number.isdigit() and count.isascii() and count.isdigit()):
            raise ValueError(f"the part {text!r} is not valid; expected 1/N to N/N, such as 3/8")
        return cls(int(number), int(count))

    def of(self, tasks: Sequence[T]) -> list[T]:
        """Return the tasks of this part. Each task belongs to exactly one part."""
        return list(tasks[self.number - 1 :: self.count])


MAX_SAMPLES_PER_SHARD = 256
_MIN_SAMPLES_PER_SHARD = 8
_SHARDS_WANTED = 16


class Keep(Protocol):
    """Chooses which samples are written. It is small and can be pickled."""

    @property
    def text(self) -> str:
        """The rule as written to dataset.json."""
        ...

    def explain_unmet(self, members: Mapping[str, Member]) -> str:
        """Return why a sample with these members is left out; "" if it is kept."""
        ...


class Measure(Protocol):
    """Measures samples as they are written. It is small and can be pickled."""

    @property
    def version(self) -> object:
        """JSON value for dataset.json that identifies the measurements."""
        ...

    def of(self, members: Mapping[str, Member], pixels: UInt8s | None) -> dict[str, float]:
        """Compute the signals of a sample, by the names of `SIGNALS`.

        Args:
            members: Members of the sample.
            pixels: Decoded pixels of its image, if known.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask(CrashableTask):
    """One shard to write.

    Attributes:
        path: Path or URL of its tar.
        sources: Its sources.
        encoder: Their encoder.
        limits: Limits on the cost of each source.
        pauses_s: Seconds to wait between attempts to read a source.
        files: Location of the sources' files.
        sha256: Checksum in hex of the damaged tar that this one replaces, if any.
        keep: Chooses the samples to write.
        measure: Computes the signals of each sample.
    """

    path: Location
    sources: tuple[Source, ...]
    encoder: Encoder
    limits: Limits = DEFAULT
    pauses_s: tuple[float, ...] = PAUSES_S
    files: RawFiles = LOCAL
    sha256: str | None = None
    keep: Keep | None = None
    measure: Measure | None = None

    @property
    def name(self) -> str:
        """The tar as SPLIT/FILE."""
        return get_last_parts(self.path, 2)

    @property
    def file(self) -> str:
        """Name of the tar in the split's folder."""
        return get_last_parts(self.path, 1)

    @property
    def units(self) -> int:
        """Number of sources."""
        return len(self.sources)


def default_samples_per_shard(n_sources: int) -> int:
    """Return 256, or less for a small dataset, so that about 16 shards remain to shuffle and to encode in parallel."""
    return min(MAX_SAMPLES_PER_SHARD, max(_MIN_SAMPLES_PER_SHARD, -(-n_sources // _SHARDS_WANTED)))


def plan(
    dataset: str,
    folder: Location,
    sources: Sequence[Source],
    encoder: Encoder,
    samples_per_shard: int,
    limits: Limits = DEFAULT,
    pauses_s: Sequence[float] = PAUSES_S,
    files: RawFiles = LOCAL,
    keep: Keep | None = None,
    measure: Measure | None = None,
) -> list[ShardTask]:
    """Return the tasks of a split. Shard i contains the sources [i n, (i + 1) n), ordered by a hash of their ids.

    The order mixes classes and depends only on the ids. Clips of a long file are in neighbouring shards, because every
    task reads the files of its sources in full.

    Raises:
        DatasetError: Two sources have the same id.
    """
    repeated = [name for name, count in Counter(source.id for source in sources).items() if count > 1]
    if repeated:
        names = ", ".join(dict.fromkeys(source.path.name for source in sources if source.id == repeated[0]))[:200]
        raise DatasetError(
            f"{dataset}: {len(repeated)} source ids occur more than once, such as {repeated[0]!r}, of {names}"
        )
    ordered = sorted(sources, key=lambda source: (_hash(source.cut_from or source.id), *_order(source)))
    return [
        ShardTask(
            path=within(folder, f"{dataset}-{number:06d}.tar"),
            sources=tuple(sorted(ordered[number * samples_per_shard : (number + 1) * samples_per_shard], key=_order)),
            encoder=encoder,
            limits=limits,
            pauses_s=tuple(pauses_s),
            files=files,
            keep=keep,
            measure=measure,
        )
        for number in range(-(-len(ordered) // samples_per_shard))
    ]


def _hash(source_id: str) -> int:
    return xxhash.xxh3_64_intdigest(source_id.encode())


def _order(source: Source) -> tuple[int, str]:
    """Return the sort key within a shard, which also orders the file states in its record."""
    return _hash(source.id), source.id


def sample_key(source_id: str) -> str:
    """Return a sample's key: the allowed characters of the source's id, and a hash that keeps different ids apart."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", source_id)[-60:].strip("_-")
    return f"{readable}-{xxhash.xxh3_64_hexdigest(source_id.encode())}"


def describe_job(sources: Sequence[Source], encoder: Encoder, samples_per_shard: int, limits: Limits) -> dict[str, Any]:
    """Return the settings that determine the bytes of a split.

    These are the encoder's settings, the shard size, the limits on a source and a hash of the sources.

    Raises:
        DatasetError: An id is not valid Unicode.
    """
    for source in sources:
        if not source.id.isascii() and not is_unicode(source.id):
            raise DatasetError(f"{source.path}: the id {source.id!a} contains half a character; write it as UTF-8")
    digest = xxhash.xxh3_128()
    for line in sorted(f"{source.id}\t{source.label}\t{source.window}{_format_more(source)}\n" for source in sources):
        digest.update(line.encode())
    return {
        "encoder": encoder.to_dict(defaults=True),
        "samples_per_shard": samples_per_shard,
        "limits": limits.to_dict(defaults=True),
        "sources": len(sources),
        "sources_xxh3_128": digest.hexdigest(),
    }


def _format_more(source: Source) -> str:
    span = f"\t{source.span.start_s}-{source.span.stop_s}" if source.span else ""
    return span + (f"\t{json.dumps(source.meta, sort_keys=True)}" if source.meta else "")
