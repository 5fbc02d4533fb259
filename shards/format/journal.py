"""Which files of a split are published, on disk, so that a run that was killed goes on where it was.

One SQLite row per file (WAL, synchronous=FULL): `record` returns once the row survives a power cut. Rows are JSON.
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
    """A task, of which the journal keeps the record under the last part of its name."""

    @property
    def name(self) -> str: ...


class Record(Protocol):
    """What is known of what a task published."""

    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self: ...

    def stands(self, folder: Path) -> bool:
        """Whether what was published is still there, and what it was made of is the same."""


RecordT = TypeVar("RecordT", bound=Record)


class Journal(Generic[RecordT]):
    """The journal of the split in `folder`, for one process at a time; it makes the folder where there is none.

    `settings` is all that the files depend on, JSON-able; `kind` is the class of its records. Raises ResumeError where
    the folder holds a journal of other settings, or one that SQLite cannot read.
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
                f"{self.path} cannot be used ({error}); if no other run writes to this folder, delete it to begin again"
            ) from error
        if changes := "; ".join(differences(json.loads(found), json.loads(text))):
            self.close()
            raise ResumeError(
                f"{self.path} is of a run with other settings ({changes}); run with the settings it began with, choose "
                "another output folder, or delete this one to begin again"
            )

    def _begin(self, settings: str) -> str:
        """Make the tables where there are none; returns the settings that the journal is of."""
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.executescript(_TABLES)
        self._database.execute("INSERT OR IGNORE INTO settings VALUES (1, ?)", (settings,))
        return str(self._database.execute("SELECT json FROM settings").fetchone()[0])

    def stands(self, task: Named) -> RecordT | None:
        """The record of a task whose files still stand in the folder; None for one that is to be done."""
        row = self._database.execute("SELECT json FROM records WHERE name = ?", (_key(task),)).fetchone()
        record = None if row is None else self._kind.from_json(json.loads(row[0]))
        return record if record is not None and record.stands(self.folder) else None

    def record(self, task: Named, done: RecordT) -> None:
        """Note that the files of a task are published; replaces what was known of it."""
        try:
            self._database.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?)", (_key(task), json.dumps(done.to_json()))
            )
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"{self.path} cannot be written ({error}); mend that and run the same command again"
            ) from error

    def close(self) -> None:
        """Close the database; what was recorded stays."""
        self._database.close()

    def discard(self) -> None:
        """Close and delete the journal, once dataset.json says that the split is finished."""
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
