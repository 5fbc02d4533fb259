"""Records of the published files of a split and their inputs, from which a killed run resumes.

`.records/job.json` holds the job's settings and whether the split was verified. `.records/NAME.record` describes the
files of one task; it is written once all of them exist. `.records/report.json` reports the cost of the job. Every file
appears completely or not at all. A record has one line of JSON per part, preceded by the part's xxh3_64. A reader that
needs only the first part, such as the states of the sources, reads only the first line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import xxhash

from maskstream.shards.arrays import Int64s
from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.config import differences
from maskstream.shards.errors import ResumeError, StoreError
from maskstream.shards.members.member import ENDING, Member
from maskstream.shards.stores.output import Location, Output, Sizes, open_output, within

from .index_cache import cache_folder

Json = dict[str, Any]

LONG_WORD = 64
"""A longer word is stored once in a record, however many members share it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The position of a member in its tar.

    Attributes:
        kind: Name of the member's `Kind`.
        offset: First byte of its data in the tar.
        size: Size of its data in bytes.
        digest: xxh3_128 of its data, 16 bytes.
        facts: As in `Member`.
        words: As in `Member`.
        lists: As in `Member`.
    """

    kind: str
    offset: int
    size: int
    digest: bytes
    facts: dict[str, int | float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    lists: dict[str, Int64s] = field(default_factory=dict)

    @classmethod
    def of(cls, member: Member, offset: int) -> Self:
        """Return the record of a member whose data begins at byte `offset` of the tar."""
        return cls(
            kind=member.kind,
            offset=offset,
            size=len(member.data),
            digest=xxhash.xxh3_128_digest(member.data),
            facts=member.facts,
            words=member.words,
            lists=member.lists,
        )

    def to_json(self) -> Json:
        described = {
            "facts": self.facts,
            "words": {**self.words},
            "lists": {name: values.tolist() for name, values in self.lists.items()},
        }
        place = {"kind": self.kind, "offset": self.offset, "size": self.size, "digest": self.digest.hex()}
        return place | {name: value for name, value in described.items() if value}

    @classmethod
    def from_json(cls, data: Json) -> Self:
        lists = {name: np.asarray(values, dtype=np.int64) for name, values in data.get("lists", {}).items()}
        return cls(**{**data, "digest": bytes.fromhex(data["digest"]), "lists": lists})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One sample of a shard.

    Attributes:
        key: As in `Sample`.
        label: As in `Sample`.
        source: As in `Sample`.
        members: Positions of its members by component, in the order of the tar.
        sums: As in `Sample`.
    """

    key: str
    label: int
    source: str
    members: dict[str, Placed]
    sums: dict[str, list[float]] = field(default_factory=dict)

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Offset and size of each member's data in bytes, by the member's ending in the tar."""
        return {m.words.get(ENDING, name): (m.offset, m.size) for name, m in self.members.items()}

    def to_json(self) -> Json:
        return {
            "key": self.key,
            "label": self.label,
            "source": self.source,
            "members": {name: member.to_json() for name, member in self.members.items()},
        } | ({"sums": self.sums} if self.sums else {})

    @classmethod
    def from_json(cls, data: Json) -> Self:
        members = {name: Placed.from_json(member) for name, member in data["members"].items()}
        return cls(**{**data, "members": members})


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One finished shard.

    In JSON, a long word of a member is replaced with its number in `long_words`.

    Attributes:
        name: File name (`NAME-000000.tar`). For a foreign tar, its path relative to the split's folder.
        sha256: Checksum of the tar in hex.
        size_bytes: Size of the tar.
        rows: Samples in tar order.
        packets_sha256: Checksum in hex of the packets file of a foreign tar, in the split's folder
            (media/video_index.py).
    """

    name: str
    sha256: str
    size_bytes: int
    rows: tuple[Row, ...]
    packets_sha256: str | None = None

    def to_json(self) -> Json:
        rows = [row.to_json() for row in self.rows]
        long_words: dict[str, int] = {}
        for words in _words(rows):
            for name, word in words.items():
                if len(word) > LONG_WORD:
                    words[name] = long_words.setdefault(word, len(long_words))
        data = {"name": self.name, "sha256": self.sha256, "size_bytes": self.size_bytes, "rows": rows}
        own = {"packets_sha256": self.packets_sha256, "long_words": [*long_words]}
        return data | {name: value for name, value in own.items() if value}

    @classmethod
    def from_json(cls, data: Json) -> ShardRecord:
        for words in _words(data["rows"]):
            words |= {name: data["long_words"][n] for name, n in words.items() if isinstance(n, int)}
        rows = tuple(Row.from_json(row) for row in data["rows"])
        return cls(data["name"], data["sha256"], data["size_bytes"], rows, data.get("packets_sha256"))


def _words(rows: list[Json]) -> Iterator[Json]:
    """Yield the words of all members of some rows in JSON."""
    return (member["words"] for row in rows for member in row["members"].values() if "words" in member)


RECORDS = ".records"
MEASURES = ".measures"
"""Folder of the cached signals of a split's samples (preprocess/curate). An erasure deletes it."""


def find_measures_cache() -> Path:
    """Return this machine's folder of signals of read-only splits. File names begin with the sha256 of a shard."""
    return cache_folder() / "measures"


def forget_measures(sha256s: Iterable[str]) -> None:
    """Delete the cached signals of some shards, by their sha256, from this machine's folder."""
    for sha256 in sha256s:
        for path in find_measures_cache().rglob(f"{sha256[:32]}-*"):
            with suppress(OSError):
                path.unlink(missing_ok=True)


JOB = "job.json"
REPORT = "report.json"
ABOUT = "about.json"
_JOB = f"{RECORDS}/{JOB}"
_REPORT = f"{RECORDS}/{REPORT}"
_ABOUT = f"{RECORDS}/{ABOUT}"
_RECORD = ".record"
_HEX = 16
READERS = 16
"""Number of records read at the same time, to hide the latency of an object store."""
_HEAD_BYTES = 1 << 16
"""Number of bytes read first to find the first part of a record; it doubles until the part is complete."""
_MAX_BYTES = 1 << 32


class Named(Protocol):
    """A task, whose record is stored under the last part of its name."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """A task known only from its record."""

    name: str


class Record(Protocol):
    """Description of the files that a task published, in one or more parts."""

    def to_parts(self) -> Sequence[Json]: ...

    @classmethod
    def from_parts(cls, parts: Sequence[Json]) -> Self: ...

    def stands(self, sizes: Sizes) -> bool:
        """Return True if the published files still exist and their inputs are unchanged."""


RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Contents of `job.json`.

    Attributes:
        settings: All settings that determine the files.
        verified: True if the whole split was read back and checked.
        writer: Run that is writing, if no lock excludes other runs; "" if there is none.
    """

    settings: Mapping[str, Any]
    verified: bool
    writer: str = ""


class Records(Generic[RecordT]):
    """The records of a split, for one writer at a time.

    Args:
        folder: Folder of the split, or its output.
        kind: Class of the records.
    """

    def __init__(self, folder: Location | Output, kind: type[RecordT]) -> None:
        self.output = open_output(folder)
        self._kind = kind

    def job(self) -> Job | None:
        """Return the job that wrote the records; None if there is none. Raises ResumeError if job.json is damaged."""
        found = self.output.whole(_JOB, _MAX_BYTES)
        if found is None:
            return None
        try:
            data = json.loads(found)
            settings, verified = dict(data["settings"]), data["verified"] is True
            return Job(settings=settings, verified=verified, writer=str(data.get("writer", "")))
        except (ValueError, KeyError, TypeError) as error:
            raise ResumeError(
                f"{within(self.output.location, _JOB)} is damaged ({error}); delete {self._folder} to write every "
                "shard again"
            ) from error

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ResumeError if the job was begun with other settings."""
        job = self.job()
        if job is not None and (changes := "; ".join(differences(job.settings, _reload_settings(settings)))):
            raise ResumeError(
                f"{self.output.location} was started with different settings ({changes}); use its settings, "
                f"choose a different output folder, or delete {self._folder} to start over"
            )

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin or resume the job with `settings`, and mark the split as unverified. A missing folder is created.

        Raises:
            ResumeError: The job was begun with other settings.
        """
        self.check(settings)
        if self.job() is None:
            self.discard()
        self.output.make()
        self.output.remove_leftovers(RECORDS)
        self._write_job(Job(settings=_reload_settings(settings), verified=False))

    def join(self, settings: Mapping[str, Any]) -> None:
        """Begin or resume the job with `settings` while other writers run. Their records and temporary files are kept.

        Raises:
            ResumeError: The job was begun with other settings, or there are records without a job.
        """
        self.check(settings)
        if self.job() is None:
            self.output.make()
            if self._names() and self.job() is None:
                raise ResumeError(f"{self._folder} has records, but no {JOB}; delete it to write every shard again")
            self.output.create(_JOB, _encode_job(Job(settings=_reload_settings(settings), verified=False)))
            self.check(settings)

    def claim(self, writer: str) -> str:
        """Store `writer` as the run that is writing, and return the previous one; "" if there was none."""
        job = self.job()
        if job is None:
            return ""
        self._write_job(replace(job, writer=writer))
        return job.writer

    def unverified(self) -> None:
        """Mark the split as unverified, because its files may be replaced from now on."""
        job = self.job()
        if job is not None and job.verified:
            self._write_job(replace(job, verified=False))

    def verified(self) -> None:
        """Mark the split as verified: the whole split was read back and checked."""
        job = self.job()
        if job is not None:
            self._write_job(Job(settings=job.settings, verified=True))

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Store the other contents of the index, so that it can be rebuilt from the records alone."""
        data = add_checksum(facts)
        if self.output.whole(_ABOUT, _MAX_BYTES) != data:
            self.output.publish(_ABOUT, data)

    def description(self) -> Json | None:
        """Return the facts that `describe` stored; None if there are none or they are damaged."""
        try:
            found = self.output.whole(_ABOUT, _MAX_BYTES)
            return None if found is None else read_checksummed(found)
        except (ValueError, StoreError):
            return None

    def tasks(self) -> list[RecordedTask]:
        """Return the tasks that have a record, sorted by name."""
        names = sorted(name.removeprefix(f"{RECORDS}/").removesuffix(_RECORD) for name in self._names())
        return [RecordedTask(name) for name in names]

    def report(self, facts: Mapping[str, Any]) -> None:
        """Write the report of the job. It is for people; no code reads it."""
        self.output.publish(_REPORT, json.dumps(facts, indent=2, allow_nan=False).encode() + b"\n")

    def _write_job(self, job: Job) -> None:
        self.output.publish(_JOB, _encode_job(job))

    def first(self, task: Named) -> Json | None:
        """Return the first part of a task's record; None if the record is missing or damaged."""
        most = _HEAD_BYTES
        while True:
            head = self.output.head(_name(task), most)
            if head is None:
                return None
            line, newline, _ = head.partition(b"\n")
            if newline or len(head) < most:
                return _parse_value(line + newline) if _is_whole(line + newline) else None
            most *= 2

    def firsts(self, tasks: Sequence[Named]) -> Iterator[Json | None]:
        """Yield the first part of each task's record, in order. Several are read at the same time."""
        with ThreadPoolExecutor(READERS) as pool:
            yield from pool.map(self.first, tasks)

    def stands(self, task: Named, sizes: Sizes | None = None) -> RecordT | None:
        """Return the record of a finished task whose files still exist; None for any other task.

        Args:
            task: The task.
            sizes: Sizes of the published files, if they have been listed already.
        """
        record = self.read(task)
        return record if record is not None and record.stands(self.output if sizes is None else sizes) else None

    def read(self, task: Named) -> RecordT | None:
        """Return the record of a task even if its files are gone; None if the record is missing or damaged."""
        data = self.output.whole(_name(task), _MAX_BYTES)
        lines = data.splitlines(keepends=True) if data else []
        if lines[-1:] != [_format_line(b"{}")] or not all(map(_is_whole, lines)) or len(lines) == 1:
            return None
        return self._kind.from_parts([_parse_value(line) for line in lines[:-1]])

    def record(self, task: Named, done: RecordT) -> None:
        """Record that all files of a task are published. Replaces an earlier record."""
        lines = [_format_line(json.dumps(part, allow_nan=False).encode()) for part in done.to_parts()]
        self.output.publish(_name(task), b"".join([*lines, _format_line(b"{}")]))

    @property
    def _folder(self) -> Location:
        return within(self.output.location, RECORDS)

    def discard(self) -> None:
        """Delete all records. The job goes last, so that no record outlives its settings."""
        self.output.remove_leftovers(RECORDS)
        self.output.remove(self._names())
        self.output.remove([_REPORT, _ABOUT, _JOB])

    def _names(self) -> list[str]:
        """Return the names of all records."""
        return [name for name in self.output.names(f"{RECORDS}/") if name.endswith(_RECORD)]


def _name(task: Named) -> str:
    return f"{RECORDS}/{PurePosixPath(task.name).name}{_RECORD}"


def _parse_value(line: bytes) -> Json:
    part: Json = json.loads(line[_HEX + 1 :])
    return part


def _encode_job(job: Job) -> bytes:
    data = {"settings": job.settings, "verified": job.verified} | ({"writer": job.writer} if job.writer else {})
    return json.dumps(data, sort_keys=True, allow_nan=False).encode()


def _reload_settings(settings: Mapping[str, Any]) -> Json:
    """Return the settings as they would be after a round trip through JSON."""
    plain: Json = json.loads(json.dumps(settings, allow_nan=False))
    return plain


def _format_line(data: bytes) -> bytes:
    return b"%s %s\n" % (xxhash.xxh3_64_hexdigest(data).encode(), data)


def _is_whole(line: bytes) -> bool:
    return line == _format_line(line[_HEX + 1 : -1])
