"""The records of a split: which files are published and from what, so that a killed run continues where it was.

`.records/job.json` holds the settings of the job and whether the split was verified. `.records/NAME.record` describes
what one task published; it is written when all of the task's files are there. `.records/report.json` says what the job
cost. Each file appears whole or not at all.
A record has one line of JSON per part, after the part's xxh3_64; a reader that needs only the first part, such as the
states of the sources, reads only the first line.
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

from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.config import differences
from maskstream.shards.errors import ResumeError, StoreError
from maskstream.shards.members.member import ENDING, Int64s, Member
from maskstream.shards.stores.output import Location, Output, Sizes, open_output, within

from .index_cache import cache_folder

Json = dict[str, Any]

LONG_WORD = 64
"""A word of more characters is stored once in a record, however many members have it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The position of a member in its tar: offset and size of its data in bytes, and its xxh3_128 (16 bytes). The other
    fields are those of `Member`.
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
        """The record of a member whose data begin at byte `offset` of the tar."""
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
    """One sample of a shard: its members by component, in the order of the tar. The other fields are as in `Sample`."""

    key: str
    label: int
    source: str
    members: dict[str, Placed]
    sums: dict[str, list[float]] = field(default_factory=dict)

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Offset and size of the members, by their ending in the tar."""
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
    """One finished shard: file name (`NAME-000000.tar`), sha256 in hex, size in bytes, and its rows in tar order.

    A foreign tar is named by its path relative to the split's folder. It has a packets file in that folder
    (media/video_index.py), and `packets_sha256` is its sha256 in hex. In JSON a long word of a member is the number of
    the word in `long_words`.
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
    """The words of all members of some rows in JSON."""
    return (member["words"] for row in rows for member in row["members"].values() if "words" in member)


RECORDS = ".records"
MEASURES = ".measures"
"""The folder of what was measured of a split's samples (preprocess/curate), which goes with an erasure."""


def find_measures_cache() -> Path:
    """The folder of the same for splits that cannot be written, on this machine; file names begin with the sha256 of a
    shard.
    """
    return cache_folder() / "measures"


def forget_measures(sha256s: Iterable[str]) -> None:
    """Delete what was measured of shards from that folder."""
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
"""How many records are read at the same time: in an object store each waits for an answer."""
_HEAD_BYTES = 1 << 16
"""How much of a record is read for its first part, and then twice as much each time."""
_MAX_BYTES = 1 << 32


class Named(Protocol):
    """A task; its record is kept under the last part of its name."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """A task of which only the record is known."""

    name: str


class Record(Protocol):
    """The description of what a task published, in one or more parts."""

    def to_parts(self) -> Sequence[Json]: ...

    @classmethod
    def from_parts(cls, parts: Sequence[Json]) -> Self: ...

    def stands(self, sizes: Sizes) -> bool:
        """Whether the published files still exist and their inputs are unchanged."""


RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What `job.json` holds: the settings, all that decides the files; and whether the split was read back whole.

    writer: the run that writes where no lock keeps others out; "" if none does.
    """

    settings: Mapping[str, Any]
    verified: bool
    writer: str = ""


class Records(Generic[RecordT]):
    """The records in a split's `folder` or output, for one writer at a time. `kind` is the class of the records."""

    def __init__(self, folder: Location | Output, kind: type[RecordT]) -> None:
        self.output = open_output(folder)
        self._kind = kind

    def job(self) -> Job | None:
        """The job that wrote the records; None if there is none. Raises ResumeError if it cannot be read."""
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
        """Raise ResumeError if the job has other settings."""
        job = self.job()
        if job is not None and (changes := "; ".join(differences(job.settings, _reload_settings(settings)))):
            raise ResumeError(
                f"{self.output.location} was begun with other settings ({changes}); use its settings, choose another "
                f"output folder, or delete {self._folder} to start over"
            )

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin or continue the job with `settings`; a missing folder is created. The split is unverified from now on.

        Raises ResumeError if the job has other settings.
        """
        self.check(settings)
        if self.job() is None:
            self.discard()
        self.output.make()
        self.output.remove_leftovers(RECORDS)
        self._write_job(Job(settings=_reload_settings(settings), verified=False))

    def join(self, settings: Mapping[str, Any]) -> None:
        """Begin or continue the job with `settings` beside other writers, whose records and temporary files stay.

        Raises ResumeError if the job has other settings, or if there are records of a job that is lost.
        """
        self.check(settings)
        if self.job() is None:
            self.output.make()
            if self._names() and self.job() is None:
                raise ResumeError(f"{self._folder} has records, but no {JOB}; delete it to write every shard again")
            self.output.create(_JOB, _encode_job(Job(settings=_reload_settings(settings), verified=False)))
            self.check(settings)

    def claim(self, writer: str) -> str:
        """Note the run that writes, and return the one that was noted before; "" if there was none."""
        job = self.job()
        if job is None:
            return ""
        self._write_job(replace(job, writer=writer))
        return job.writer

    def unverified(self) -> None:
        """Note that files of the split may be replaced from now on."""
        job = self.job()
        if job is not None and job.verified:
            self._write_job(replace(job, verified=False))

    def verified(self) -> None:
        """Note that the split was read back whole."""
        job = self.job()
        if job is not None:
            self._write_job(Job(settings=job.settings, verified=True))

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Keep what else the index has to say, so that it can be written again from the records alone."""
        data = add_checksum(facts)
        if self.output.whole(_ABOUT, _MAX_BYTES) != data:
            self.output.publish(_ABOUT, data)

    def description(self) -> Json | None:
        """What `describe` kept; None if there is none, or it is damaged."""
        try:
            found = self.output.whole(_ABOUT, _MAX_BYTES)
            return None if found is None else read_checksummed(found)
        except (ValueError, StoreError):
            return None

    def tasks(self) -> list[RecordedTask]:
        """The tasks that have a record, by name."""
        names = sorted(name.removeprefix(f"{RECORDS}/").removesuffix(_RECORD) for name in self._names())
        return [RecordedTask(name) for name in names]

    def report(self, facts: Mapping[str, Any]) -> None:
        """Write the report of the job, for people; nothing reads it."""
        self.output.publish(_REPORT, json.dumps(facts, indent=2, allow_nan=False).encode() + b"\n")

    def _write_job(self, job: Job) -> None:
        self.output.publish(_JOB, _encode_job(job))

    def first(self, task: Named) -> Json | None:
        """The first part of a task's record; None if there is no record, or it is damaged."""
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
        """The first part of each task's record, in order, of which several are read at the same time."""
        with ThreadPoolExecutor(READERS) as pool:
            yield from pool.map(self.first, tasks)

    def stands(self, task: Named, sizes: Sizes | None = None) -> RecordT | None:
        """The record of a finished task whose files still exist; None for any other task.

        sizes: those of the files, if they have been asked for already.
        """
        record = self.read(task)
        return record if record is not None and record.stands(self.output if sizes is None else sizes) else None

    def read(self, task: Named) -> RecordT | None:
        """The record of a task, whatever became of its files; None if there is none, or it is damaged."""
        data = self.output.whole(_name(task), _MAX_BYTES)
        lines = data.splitlines(keepends=True) if data else []
        if lines[-1:] != [_format_line(b"{}")] or not all(map(_is_whole, lines)) or len(lines) == 1:
            return None
        return self._kind.from_parts([_parse_value(line) for line in lines[:-1]])

    def record(self, task: Named, done: RecordT) -> None:
        """Record that the files of a task are published; replaces an earlier record."""
        lines = [_format_line(json.dumps(part, allow_nan=False).encode()) for part in done.to_parts()]
        self.output.publish(_name(task), b"".join([*lines, _format_line(b"{}")]))

    @property
    def _folder(self) -> Location:
        return within(self.output.location, RECORDS)

    def discard(self) -> None:
        """Delete all records, the job last, so that none outlives its settings."""
        self.output.remove_leftovers(RECORDS)
        self.output.remove(self._names())
        self.output.remove([_REPORT, _ABOUT, _JOB])

    def _names(self) -> list[str]:
        """The names of all records."""
        return [name for name in self.output.names(f"{RECORDS}/") if name.endswith(_RECORD)]


def _name(task: Named) -> str:
    return f"{RECORDS}/{PurePosixPath(task.name).name}{_RECORD}"


def _parse_value(line: bytes) -> Json:
    """The part that a line holds."""
    part: Json = json.loads(line[_HEX + 1 :])
    return part


def _encode_job(job: Job) -> bytes:
    data = {"settings": job.settings, "verified": job.verified} | ({"writer": job.writer} if job.writer else {})
    return json.dumps(data, sort_keys=True, allow_nan=False).encode()


def _reload_settings(settings: Mapping[str, Any]) -> Json:
    """The settings as JSON brings them back."""
    plain: Json = json.loads(json.dumps(settings, allow_nan=False))
    return plain


def _format_line(data: bytes) -> bytes:
    return b"%s %s\n" % (xxhash.xxh3_64_hexdigest(data).encode(), data)


def _is_whole(line: bytes) -> bool:
    return line == _format_line(line[_HEX + 1 : -1])
