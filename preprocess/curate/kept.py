"""What was measured, as tables that are kept beside a split with a checksum of what they hold."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash


def table_sum(table: pa.Table) -> str:
    """The checksum of the names, types and values of a table, however its file stores them."""
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
