"""The journal: records on disk which files of a split are published, so that a killed run can continue.

It is an SQLite database (WAL, synchronous=FULL) with one JSON row per file. A row survives a power failure as soon as
`record` returns.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from ..config import differences
from ..errors import ResumeError, StoreError

JOURNAL = ".journal.sqlite"

_TABLES = """
CREATE TABLE IF NOT EXISTS settings (one INTEGER PRIMARY KEY CHECK (one = 1), json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (name TEXT PRIMARY KEY, json TEXT NOT NULL);
"""


class Named(Protocol):
    """A task; the journal keeps its record under the last part of its name."""

    @property
    def name(self) -> str: ...


class Record(Protocol):
    """The description of what a task published."""

    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self: ...

    def stands(self, folder: Path) -> bool:
        """Whether the published files still exist and their inputs are unchanged."""


RecordT = TypeVar("RecordT", bound=Record)


class Journal(Generic[RecordT]):
    """The journal of the split in `folder`, for one process at a time; a missing folder is created.

    `settings` holds all that decides the files, as JSON values; `kind` is the class of the records. Raises ResumeError
    if the folder holds a journal with other settings, or one that SQLite cannot read.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], kind: type[RecordT]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / JOURNAL
        self._kind = kind
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(settings, sort_keys=True, allow_nan=False)
        self._database = sqlite3.connect(self.path, isolation_level=None)
        try:
            found = self._begin(text)
        except sqlite3.DatabaseError as error:
            self.close()
            raise ResumeError(
                f"{self.path} cannot be used ({error}); if no other run writes to this folder, delete it to start over"
            ) from error
        if changes := "; ".join(differences(json.loads(found), json.loads(text))):
            self.close()
            raise ResumeError(
                f"{self.path} belongs to a run with other settings ({changes}); use its settings, choose another "
                "output folder, or delete this one to start over"
            )

    def _begin(self, settings: str) -> str:
        """Create missing tables, and return the settings of the journal."""
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.executescript(_TABLES)
        self._database.execute("INSERT OR IGNORE INTO settings VALUES (1, ?)", (settings,))
        return str(self._database.execute("SELECT json FROM settings").fetchone()[0])

    def stands(self, task: Named) -> RecordT | None:
        """The record of a finished task whose files still exist; None for any other task."""
        row = self._database.execute("SELECT json FROM records WHERE name = ?", (_key(task),)).fetchone()
        record = None if row is None else self._kind.from_json(json.loads(row[0]))
        return record if record is not None and record.stands(self.folder) else None

    def record(self, task: Named, done: RecordT) -> None:
        """Record that the files of a task are published; replaces an earlier record."""
        try:
            self._database.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?)", (_key(task), json.dumps(done.to_json()))
            )
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"{self.path} cannot be written ({error}); fix this and run the same command again"
            ) from error

    def close(self) -> None:
        """Close the database and keep the records."""
        self._database.close()

    def discard(self) -> None:
        """Close and delete the journal of a finished split."""
        self.close()
        for ending in ("-wal", "-shm", ""):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _key(task: Named) -> str:
    return PurePosixPath(task.name).name
