"""Media stored in a column of a Parquet file, as in Hugging Face `datasets`: the bytes of one file per row.

A row has the path FILE.parquet!/COLUMN/ROW.SUFFIX. Samples are in hash order, so every task reads the rows of a group
one at a time and out of order. Each group is therefore unpacked once, a few rows at a time, into a file in the job's
folder, which all its processes share. If the disk is full, the group is read again for each row.
"""

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from maskstream.shards.errors import OutageError

from .file_state import DamagedFileError, FileState

SUFFIX = ".parquet"
MAX_PACKING = 200
"""Highest compression ratio of a group's column over 1 GiB."""
_FEW_BYTES = 1 << 30
_ROOM_BYTES = 1 << 30
"""Bytes that unpacking leaves free on the disk."""
_ROWS = 16
"""Rows in memory at a time."""


def is_outage(error: BaseException) -> bool:
    """Return whether an error comes from the system. For damaged bytes, Arrow also raises OSError, without an errno."""
    return isinstance(error, OSError) and error.errno is not None


class ParquetRows:
    """A Parquet file that is open for reading; its groups are unpacked into `folder`. Raises OutageError if it cannot
    be read.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self._folder = folder
        try:
            found = path.stat()
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise OutageError(f"{path} cannot be read as Parquet ({error}); download it again") from error
        self.mtime_ns = found.st_mtime_ns
        self._key = xxhash.xxh3_64_hexdigest(f"{path.absolute()} {found.st_size} {found.st_mtime_ns}".encode())
        metadata = self._file.metadata
        self._ends: list[int] = []
        for group in range(metadata.num_row_groups):
            self._ends.append(metadata.row_group(group).num_rows + (self._ends[-1] if self._ends else 0))
        self._last: tuple[Path, pa.RecordBatchFileReader, list[int]] | None = None
        self._too_tight: dict[tuple[int, str | None], DamagedFileError] = {}

    def data(self, name: str) -> bytes:
        """Return the bytes of the row COLUMN/ROW.SUFFIX.

        Raises:
            DamagedFileError: The row has no bytes, or its group is damaged.
            OutageError: The row cannot be read or unpacked.
        """
        place = PurePosixPath(name)
        value = self.row(int(place.stem), place.parts[0])
        found = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(found, bytes):
            raise self._damaged("open", f"contains no bytes in {place.parts[0]!r}, but {str(value)[:80]!r}")
        return found

    def row(self, row: int, column: str | None = None) -> Any:
        """Return the value of a column in a row, or a dictionary of all columns. Raises as `data` does."""
        group = next((number for number, end in enumerate(self._ends) if 0 <= row < end), None)
        if group is None or column not in (None, *self._file.schema_arrow.names):
            raise OutageError(
                f"{self.path} no longer contains row {row}, although it was listed; run the same command again"
            )
        inside = row - (self._ends[group - 1] if group else 0)
        try:
            batch, place = self._batch(group, column, inside)
            return batch.slice(place, 1).to_pylist()[0] if column is None else batch.column(0)[place].as_py()
        except (pa.ArrowException, OSError, ValueError, LookupError) as error:
            if is_outage(error):
                raise OutageError(f"row {row} of {self.path} cannot be read or unpacked ({error})") from error
            raise self._damaged("open", f"is in a damaged group of rows ({error})") from error

    def _damaged(self, stage: str, reason: str) -> DamagedFileError:
        state = FileState(size_bytes=0, mtime_ns=self.mtime_ns, xxh3_64="")
        return DamagedFileError(stage, f"{reason} ({self.path.name})", state)

    def _batch(self, group: int, column: str | None, row: int) -> tuple[pa.RecordBatch, int]:
        """Return the batch that contains a row of a group, and the row's position in it."""
        name = "all" if column is None else self._file.schema_arrow.names.index(column)
        path = self._folder / f"{self._key}-{group}-{name}.arrow"
        if self._last is None or self._last[0] != path:
            if not path.exists() and not self._unpack(group, column, path):
                for batch in self._batches(group, column):
                    if row < batch.num_rows:
                        return batch, row
                    row -= batch.num_rows
                raise LookupError("it has fewer rows than it declares")
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            ends, end = [], 0
            for number in range(reader.num_record_batches):
                ends.append(end := end + reader.get_batch(number).num_rows)
            self._last = (path, reader, ends)
        _, reader, ends = self._last
        number = next((number for number, end in enumerate(ends) if row < end), len(ends))
        return reader.get_batch(number), row - (ends[number - 1] if number else 0)

    def _batches(self, group: int, column: str | None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a group in batches. Raises DamagedFileError if they would fill the memory or disk."""
        if (known := self._too_tight.get((group, column))) is not None:  # or each row would try again to unpack it
            raise known
        row_group = self._file.metadata.row_group(group)
        chunks = [row_group.column(number) for number in range(row_group.num_columns)]
        own = [chunk for chunk in chunks if column in (None, chunk.path_in_schema.split(".")[0])]
        packed = min(sum(chunk.total_compressed_size for chunk in own), self.path.stat().st_size)
        most, seen = max(_FEW_BYTES, MAX_PACKING * packed), sum(chunk.total_uncompressed_size for chunk in own)
        columns = None if column is None else [column]
        if seen <= most:
            seen = 0
            for batch in self._file.iter_batches(_ROWS, row_groups=[group], columns=columns, use_threads=False):
                if (seen := seen + batch.nbytes) > most:
                    break
                yield batch
        if seen > most:
            reason = f"is in a row group of {seen} bytes or more, compressed to {packed}"
            self._too_tight[group, column] = error = self._damaged("check", reason)
            raise error

    def _unpack(self, group: int, column: str | None, path: Path) -> bool:
        """Write the rows of a group to a file, once for all processes. Returns False if the disk lacks the space."""
        row_group = self._file.metadata.row_group(group)
        if shutil.disk_usage(self._folder).free < _ROOM_BYTES + 2 * row_group.total_byte_size:
            return False
        with path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():  # another process has unpacked it
                return True
            temporary = path.with_suffix(".tmp")
            schema = self._file.schema_arrow
            try:
                with (
                    pa.OSFile(str(temporary), "wb") as sink,
                    pa.ipc.new_file(sink, schema if column is None else pa.schema([schema.field(column)])) as writer,
                ):
                    for batch in self._batches(group, column):
                        writer.write_batch(batch)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Close the file."""
        self._last = None
        self._file.close()
