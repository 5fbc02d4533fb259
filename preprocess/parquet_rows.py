"""The media in a column of a Parquet file, as Hugging Face's `datasets` keeps them: one file's bytes a row.

A row of such a file has the path FILE.parquet!/COLUMN/ROW.ENDING. A row group is read for each row, unless it is the
one that was read last.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..shards.errors import OutageError

SUFFIX = ".parquet"


class ParquetRows:
    """A Parquet file that is open for reading. Raises OutageError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise OutageError(f"{path} cannot be read as Parquet ({error}); get it again") from error
        metadata = self._file.metadata
        self._ends: list[int] = []
        for group in range(metadata.num_row_groups):
            self._ends.append(metadata.row_group(group).num_rows + (self._ends[-1] if self._ends else 0))
        self._last: tuple[int, str, Any] = (-1, "", None)

    def data(self, name: str) -> bytes:
        """The bytes of the row COLUMN/ROW.ENDING. Raises OutageError if there are none."""
        place = PurePosixPath(name)
        column, row = place.parts[0], int(place.stem)
        group = next((number for number, end in enumerate(self._ends) if row < end), None)
        if group is None:
            raise OutageError(
                f"{self.path} has no row {row} any more, though it was listed; run the same command again"
            )
        if self._last[:2] != (group, column):
            try:
                self._last = (group, column, self._file.read_row_group(group, columns=[column]).column(0))
            except (pa.ArrowException, OSError, KeyError, IndexError) as error:
                raise OutageError(f"row {row} of {self.path} cannot be read ({error}); get it again") from error
        value = self._last[2][row - (self._ends[group - 1] if group else 0)].as_py()
        found = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(found, bytes):
            raise OutageError(f"row {row} of {self.path} holds no bytes in {column!r}, but {str(value)[:80]!r}")
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()
