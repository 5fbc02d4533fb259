"""Tables of measures, stored next to a split, or in the user's cache if the split is read-only.

Each file has a checksum of its name and all values. A file that is damaged, changed, or from another shard or release
is ignored: its samples are measured again.
"""

import errno
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from maskstream.shards.stores.local_files import publishing, read_regular

log = logging.getLogger(__name__)

_CHECKSUM = b"xxh3_128"
_MOST_BYTES = 1 << 32
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def read_kept(path: Path, schema: pa.Schema) -> pa.Table:
    """Read the table from a file; return an empty one if the file is missing, or its schema or checksum does not match.

    Args:
        path: Parquet file.
        schema: Schema that the table must have, also of the empty one.
    """
    try:
        found = pq.read_table(pa.BufferReader(read_regular(path, _MOST_BYTES)))
        if found.schema.equals(schema) and (found.schema.metadata or {}).get(_CHECKSUM) == _sum(path, found):
            return found.replace_schema_metadata(None)
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        log.debug("measuring %s again: %s", path, error)
    return schema.empty_table()


def write_kept(table: pa.Table, paths: Iterable[Path]) -> None:
    """Write a table to the first of these files that is writable; do nothing if all are read-only.

    Args:
        table: Table to store, with a checksum.
        paths: Candidate files, in order of preference.

    Raises:
        OSError: A file cannot be written for another reason, such as a full disk.
    """
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with publishing(path) as stream:
                pq.write_table(table.replace_schema_metadata({_CHECKSUM: _sum(path, table)}), stream)
            return
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise


def _sum(path: Path, table: pa.Table) -> bytes:
    return xxhash.xxh3_128_hexdigest(f"{path.name} {compute_table_sum(table)}".encode()).encode()


def compute_table_sum(table: pa.Table) -> str:
    """Return the checksum of the names, types and values of a table, independent of its storage format."""
    digest = xxhash.xxh3_128()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(name.encode())
        _add(digest, column)
    return str(digest.hexdigest())


def _add(digest: xxhash.xxh3_128, values: pa.ChunkedArray) -> None:
    kind = values.type
    digest.update(str(kind).encode())
    digest.update(np.asarray(values.is_valid()).tobytes())
    values = values.drop_null()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(np.asarray(pc.list_value_length(values), np.int64).tobytes())
        _add(digest, pc.list_flatten(values))
    elif pa.types.is_primitive(kind):
        digest.update(np.asarray(values).tobytes())
    else:
        for one in values.to_pylist():
            data = one if isinstance(one, bytes) else str(one).encode()
            digest.update(len(data).to_bytes(8, "little") + data)
