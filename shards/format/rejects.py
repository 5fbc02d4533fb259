"""Reads the rejects of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.errors import ShardError
from maskstream.shards.stores.base import Store
from maskstream.shards.stores.open import open_store

from .checked_file import read_checked
from .columns import FORMAT, FORMAT_KEY
from .data_errors import REMEDY, parsing
from .sample import Reject

_COLUMNS = [field.name for field in fields(Reject)]


def read_rejects(location: str | Path | Store, info: Mapping[str, Any]) -> list[Reject]:
    """The rejects of the split in a location or store; `info` is its dataset.json.

    Raises ShardError if its file is missing, differs from its checksum, or does not have the format's columns.
    """
    store = open_store(location)
    path = f"{store.location}/{info['rejects']}"
    data = read_checked(store, info["rejects"], info["files"])
    with parsing(path):
        # pq.read_table would import pandas and start threads, which abort a process that exits just then
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = file.read(use_threads=False)
        table.validate(full=True)
        found = (table.schema.metadata or {}).get(FORMAT_KEY, b"none").decode(errors="replace")
        columns = {name: str(table.schema.field(name).type) for name in table.schema.names}
        nulls = sum(column.null_count for column in table.columns)
        if found != FORMAT or columns != dict.fromkeys(_COLUMNS, "string") or nulls:
            raise ShardError(
                f"{path} has the format {found!r}, the columns {columns} and {nulls} nulls; legal are {FORMAT!r}, the "
                f"columns {', '.join(_COLUMNS)} of strings, and no nulls; {REMEDY}"
            )
        return [Reject(**row) for row in table.to_pylist()]
