"""Which shards of a split are finished, on disk, so that a run that was killed goes on where it was.

One SQLite row per shard (WAL, synchronous=FULL): `record` returns once the row survives a power cut. Rows are JSON.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import ResumeError, StoreError
from ..stores.block_sums import SUMS
from .record import ShardRecord
from .sample import Reject

JOURNAL = ".journal.sqlite"

_TABLES = """
CREATE TABLE IF NOT EXISTS settings (one INTEGER PRIMARY KEY CHECK (one = 1), json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS shards (name TEXT PRIMARY KEY, record TEXT NOT NULL, rejects TEXT NOT NULL);
"""


class Journal:
    """The journal of the split in `folder`, for one process at a time; it makes the folder where there is none.

    `settings` is all that the shards depend on, JSON-able. Raises ResumeError where the folder holds a journal of other
    settings, or one that SQLite cannot read.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / JOURNAL
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
        if found != text:
            self.close()
            raise ResumeError(_differences(self.path, json.loads(found), json.loads(text)))

    def _begin(self, settings: str) -> str:
        """Make the tables where there are none; returns the settings that the journal is of."""
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.executescript(_TABLES)
        self._database.execute("INSERT OR IGNORE INTO settings VALUES (1, ?)", (settings,))
        return str(self._database.execute("SELECT json FROM settings").fetchone()[0])

    def finished(self) -> dict[str, tuple[ShardRecord, list[Reject]]]:
        """The shards recorded so far, by name, whose tar (with its size), idx and sums still stand in the folder."""
        rows = self._database.execute("SELECT name, record, rejects FROM shards ORDER BY name")
        shards = {
            name: (ShardRecord.from_json(json.loads(record)), [Reject(**reject) for reject in json.loads(rejects)])
            for name, record, rejects in rows
        }
        return {name: entry for name, entry in shards.items() if self._stands(entry[0])}

    def record(self, record: ShardRecord, rejects: Sequence[Reject]) -> None:
        """Note that a shard is published, and which sources of its share were rejected; replaces what its name had."""
        row = (record.name, json.dumps(record.to_json()), json.dumps([asdict(reject) for reject in rejects]))
        try:
            self._database.execute("INSERT OR REPLACE INTO shards VALUES (?, ?, ?)", row)
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

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _stands(self, record: ShardRecord) -> bool:
        tar = self.folder / record.name
        beside = all(tar.with_suffix(suffix).is_file() for suffix in (".idx", SUMS))
        return beside and tar.is_file() and tar.stat().st_size == record.size_bytes


def _differences(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> str:
    names = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
    changes = "; ".join(f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now" for name in names)
    return (
        f"{path} is of a run with other settings ({changes}); run with the settings it began with, choose another "
        "output folder, or delete this one to begin again"
    )
