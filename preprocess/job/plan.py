"""The plan: which shard holds which source. It is a pure function of the sources and the settings.

Sources come in the order of the xxh3_64 of their ids, so a dataset that is sorted by class does not give shards of one
class.

A part of a job is every n-th task of each split. The parts run at the same time, on any machines, and need no driver:
`part=(i, n)` writes shards and their records, and a last run with `finish` the rest. Each shard is published by a
rename, and is the same bytes from whoever writes it. Parts hold a shared lock, a whole run and `finish` a sole one;
where a file system has no locks, nothing but wasted work comes of it. A part deletes no temporary files, for they may
be another's; `finish` does.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.limits import DEFAULT, Limits
from maskstream.preprocess.raw.files import LOCAL, RawFiles
from maskstream.preprocess.raw.lists import is_unicode
from maskstream.preprocess.source import PAUSES_S, Source
from maskstream.shards.errors import DatasetError
from maskstream.shards.members.member import Member
from maskstream.shards.stores.output import Location, get_last_parts, within

from .ledger import CrashableTask

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobPart:
    """The part `number` (from 1) of `count`. Records name shards and not parts, so `count` may change between runs."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"the part {self} is none; legal are 1/N to N/N, such as 3/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> JobPart:
        """The part of a text such as "3/8". Raises ValueError for any other text."""
        number, slash, count = text.partition("/")
        if not (slash and number.isascii() and number.isdigit() and count.isascii() and count.isdigit()):
            raise ValueError(f"the part {text!r} is none; legal are 1/N to N/N, such as 3/8")
        return cls(int(number), int(count))

    def of(self, tasks: Sequence[T]) -> list[T]:
        """The tasks of this part, by their numbers: those of all parts are all tasks, each once."""
        return list(tasks[self.number - 1 :: self.count])


MAX_SAMPLES_PER_SHARD = 256
_MIN_SAMPLES_PER_SHARD = 8
_SHARDS_WANTED = 16


class Keep(Protocol):
    """Says which samples are written. It is small and can be pickled."""

    @property
    def text(self) -> str:
        """The rule, as dataset.json has it."""
        ...

    def explain_unmet(self, members: Mapping[str, Member]) -> str:
        """Why a sample of these members is not written; "" if it is."""
        ...


class Measure(Protocol):
    """Measures samples as they are written. It is small and can be pickled."""

    @property
    def version(self) -> object:
        """Which numbers it gives, as dataset.json has it: of JSON."""
        ...

    def of(self, members: Mapping[str, Member], pixels: npt.NDArray[np.uint8] | None) -> dict[str, float]:
        """Signals of a sample by the names of `SIGNALS`, of its members and the pixels of its picture, if known."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask(CrashableTask):
    """One shard to write: the path or URL of its tar, its sources, their encoder, what each may cost, the pauses in
    seconds between attempts to read one, where their files are, and the sha256
    in hex of the tar that this one replaces, if it is damaged. keep: says which samples are written. measure: gives
    the signals of each.
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
        """The tar's name in the split's folder."""
        return get_last_parts(self.path, 1)

    @property
    def units(self) -> int:
        """The number of sources."""
        return len(self.sources)


def default_samples_per_shard(n_sources: int) -> int:
    """256, or fewer for a small dataset, so that about 16 shards remain to shuffle and to encode in parallel."""
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
    """The tasks of a split. Shard i holds the sources [i n, (i + 1) n), ordered by a hash of their ids.

    The order mixes the classes and depends on nothing but the ids. Clips of a long file lie in neighbouring shards, for
    every task reads the files of its sources whole. Raises DatasetError if two sources share an id.
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
    """The order within a shard, by which records tell whose files they have the states of."""
    return _hash(source.id), source.id


def sample_key(source_id: str) -> str:
    """The sample's key: the legal characters of the source's id, and a hash that keeps different ids apart."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", source_id)[-60:].strip("_-")
    return f"{readable}-{xxhash.xxh3_64_hexdigest(source_id.encode())}"


def describe_job(sources: Sequence[Source], encoder: Encoder, samples_per_shard: int, limits: Limits) -> dict[str, Any]:
    """All that decides the bytes of a split: the encoder's settings, the shard size, what a source may cost, and a hash
    of the sources. Raises DatasetError for an id that is not valid Unicode.
    """
    for source in sources:
        if not source.id.isascii() and not is_unicode(source.id):
            raise DatasetError(f"{source.path}: the id {source.id!a} has half of a character; write it as UTF-8")
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
