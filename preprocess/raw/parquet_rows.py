"""The media in a column of a Parquet file, as Hugging Face's `datasets` keeps them: one file's bytes a row.

A row of such a file has the path FILE.parquet!/COLUMN/ROW.ENDING. Samples are in the order of their hash, so the rows
of a group are wanted one at a time, by every task. A group is therefore read once, a few rows at a time, into a file of
the folder of the job, which all its processes read rows from. Where the disk has no room, it is read for each row.
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
"""A column of a group that takes more than 1 GiB and is packed more tightly is not unpacked."""
_FEW_BYTES = 1 << 30
_ROOM_BYTES = 1 << 30
"""What unpacking leaves free on the disk."""
_ROWS = 16
"""So many rows are in memory at a time."""


def is_outage(error: BaseException) -> bool:
    """Whether an error is the system's. Arrow raises an OSError without a number for damaged bytes too."""
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
            raise OutageError(f"{path} cannot be read as Parquet ({error}); get it again") from error
        self.mtime_ns = found.st_mtime_ns
        self._key = xxhash.xxh3_64_hexdigest(f"{path.absolute()} {found.st_size} {found.st_mtime_ns}".encode())
        metadata = self._file.metadata
        self._ends: list[int] = []
        for group in range(metadata.num_row_groups):
            self._ends.append(metadata.row_group(group).num_rows + (self._ends[-1] if self._ends else 0))
        self._last: tuple[Path, pa.RecordBatchFileReader, list[int]] | None = None
        self._too_tight: dict[tuple[int, str | None], DamagedFileError] = {}

    def data(self, name: str) -> bytes:
        """The bytes of the row COLUMN/ROW.ENDING. Raises DamagedFileError if there are none, or its group is damaged;
        OutageError if it cannot be read, or not be unpacked.
        """
        place = PurePosixPath(name)
        value = self.row(int(place.stem), place.parts[0])
        found = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(found, bytes):
            raise self._damaged("open", f"holds no bytes in {place.parts[0]!r}, but {str(value)[:80]!r}")
        return found

    def row(self, row: int, column: str | None = None) -> Any:
        """The value of a column in a row; of all columns, a dictionary. Raises as `data` does."""
        group = next((number for number, end in enumerate(self._ends) if 0 <= row < end), None)
        if group is None or column not in (None, *self._file.schema_arrow.names):
            raise OutageError(
                f"{self.path} has no row {row} any more, though it was listed; run the same command again"
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
        """The batch with a row of a group, and the row's place in it."""
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
        """The rows of a group. Raises DamagedFileError if they would fill memory or disk."""
        if (known := self._too_tight.get((group, column))) is not None:  # it would be unpacked in vain for each row
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
            reason = f"is in a group of rows of {seen} bytes or more, packed as {packed}"
            self._too_tight[group, column] = error = self._damaged("check", reason)
            raise error

    def _unpack(self, group: int, column: str | None, path: Path) -> bool:
        """Write the rows of a group to a file, once, whatever other processes do. Returns whether there is room."""
        row_group = self._file.metadata.row_group(group)
        if shutil.disk_usage(self._folder).free < _ROOM_BYTES + 2 * row_group.total_byte_size:
            return False
        with path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():  # another process did it meanwhile
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
