"""The records of a split: which files are published and from what, so that a killed run continues where it was.

`.records/job.json` holds the settings of the job and whether the split was verified. `.records/NAME.record` describes
what one task published; it is written when all of the task's files are there. Each file appears whole or not at all.
A record has one line of JSON per part, after the part's xxh3_64; a reader that needs only the first part, such as the
states of the sources, reads only the first line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Protocol, Self, TypeVar

import xxhash

from ..config import differences
from ..errors import ResumeError
from ..stores.publish import create, publish, remove_leftovers, sync_folder

RECORDS = ".records"
JOB = "job.json"
_RECORD = ".record"
_HEX = 16

Json = dict[str, Any]


class Named(Protocol):
    """A task; its record is kept under the last part of its name."""

    @property
    def name(self) -> str: ...


class Record(Protocol):
    """The description of what a task published, in one or more parts."""

    def to_parts(self) -> Sequence[Json]: ...

    @classmethod
    def from_parts(cls, parts: Sequence[Json]) -> Self: ...

    def stands(self, folder: Path) -> bool:
        """Whether the published files still exist and their inputs are unchanged."""


RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What `job.json` holds: the settings, all that decides the files; and whether the split was read back whole."""

    settings: Mapping[str, Any]
    verified: bool


class Records(Generic[RecordT]):
    """The records in the split `folder`, for one writer at a time. `kind` is the class of the records."""

    def __init__(self, folder: str | Path, kind: type[RecordT]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / RECORDS
        self._kind = kind

    def job(self) -> Job | None:
        """The job that wrote the records; None if there is none. Raises ResumeError if it cannot be read."""
        try:
            data = json.loads((self.path / JOB).read_bytes())
            return Job(settings=dict(data["settings"]), verified=data["verified"] is True)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ResumeError(
                f"{self.path / JOB} is damaged ({error}); delete {self.path} to write every shard again"
            ) from error

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ResumeError if the job has other settings."""
        job = self.job()
        if job is not None and (changes := "; ".join(differences(job.settings, _plain(settings)))):
            raise ResumeError(
                f"{self.folder} was begun with other settings ({changes}); use its settings, choose another output "
                f"folder, or delete {self.path} to start over"
            )

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin or continue the job with `settings`; a missing folder is created. The split is unverified from now on.

        Raises ResumeError if the job has other settings.
        """
        self.check(settings)
        if self.job() is None:
            self.discard()
        self.path.mkdir(parents=True, exist_ok=True)
        sync_folder(self.folder)
        remove_leftovers(self.path)
        self._write_job(Job(settings=_plain(settings), verified=False))

    def join(self, settings: Mapping[str, Any]) -> None:
        """Begin or continue the job with `settings` beside other writers, whose records and temporary files stay.

        Raises ResumeError if the job has other settings, or if there are records of a job that is lost.
        """
        self.check(settings)
        if self.job() is None:
            self.path.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder)
            if any(self.path.glob(f"*{_RECORD}")) and self.job() is None:
                raise ResumeError(f"{self.path} has records, but no {JOB}; delete it to write every shard again")
            create(self.path / JOB, _job_bytes(Job(settings=_plain(settings), verified=False)))
            self.check(settings)

    def unverified(self) -> None:
        """Note that files of the split may be replaced from now on."""
        job = self.job()
        if job is not None and job.verified:
            self._write_job(Job(settings=job.settings, verified=False))

    def verified(self) -> None:
        """Note that the split was read back whole."""
        job = self.job()
        if job is not None:
            self._write_job(Job(settings=job.settings, verified=True))

    def _write_job(self, job: Job) -> None:
        publish(self.path / JOB, _job_bytes(job))

    def first(self, task: Named) -> Json | None:
        """The first part of a task's record; None if there is no record, or it is damaged."""
        return next(self._parts(task, 1), None)

    def stands(self, task: Named) -> RecordT | None:
        """The record of a finished task whose files still exist; None for any other task."""
        parts = list(self._parts(task))
        record = self._kind.from_parts(parts) if parts else None
        return record if record is not None and record.stands(self.folder) else None

    def _parts(self, task: Named, limit: int | None = None) -> Iterator[Json]:
        """The parts of a task's record, or the first `limit`; nothing if the record is damaged or missing."""
        try:
            with self._path(task).open("rb") as file:
                lines = file.readlines() if limit is None else [file.readline() for _ in range(limit)]
        except FileNotFoundError:
            return
        if all(map(_is_whole, lines)) and (limit is not None or lines[-1:] == [_line(b"{}")]):
            yield from (json.loads(line[_HEX + 1 :]) for line in (lines if limit is not None else lines[:-1]))

    def record(self, task: Named, done: RecordT) -> None:
        """Record that the files of a task are published; replaces an earlier record."""
        lines = [_line(json.dumps(part, allow_nan=False).encode()) for part in done.to_parts()]
        publish(self._path(task), b"".join([*lines, _line(b"{}")]))

    def _path(self, task: Named) -> Path:
        return self.path / f"{PurePosixPath(task.name).name}{_RECORD}"

    def discard(self) -> None:
        """Delete all records, the job last, so that none outlives its settings."""
        remove_leftovers(self.path)
        for path in (*self.path.glob(f"*{_RECORD}"), self.path / JOB):
            path.unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()


def _job_bytes(job: Job) -> bytes:
    data = {"settings": job.settings, "verified": job.verified}
    return json.dumps(data, sort_keys=True, allow_nan=False).encode()


def _plain(settings: Mapping[str, Any]) -> Json:
    """The settings as JSON brings them back."""
    plain: Json = json.loads(json.dumps(settings, allow_nan=False))
    return plain


def _line(data: bytes) -> bytes:
    return b"%s %s\n" % (xxhash.xxh3_64_hexdigest(data).encode(), data)


def _is_whole(line: bytes) -> bool:
    return line == _line(line[_HEX + 1 : -1])
