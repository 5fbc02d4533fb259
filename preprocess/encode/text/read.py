"""Reads the text of a source: a file of text, a line of a JSON Lines file, or a row of a Parquet file.

The window of a source in a .jsonl file is that of its line, in bytes; in a .parquet file it is [row, row + 1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.source_file import check_source_file
from maskstream.preprocess.raw.parquet_rows import ParquetRows
from maskstream.preprocess.raw.scratch import Scratch
from maskstream.preprocess.source import RejectError, Source

MAX_BYTES = 1 << 28
"""The longest text, in bytes of UTF-8."""
LINES, ROWS = ".jsonl", ".parquet"
TEXT, OF_SOURCE = "text", ("label", "split", "source")
"""The column of the text, and those that the dataset's list has read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text, and what else its line or row says."""

    text: str
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_document(source: Source) -> Document:
    """The document of a source; a computed source has its text in `meta`. RejectError if it has no legal text."""
    if source.computed:
        return _checked(source.meta)
    check_source_file(source.path)
    if source.path.suffix == LINES:
        return _checked(_line(source))
    if source.path.suffix == ROWS:
        return _checked(_row(source))
    size = source.path.stat().st_size
    if size > MAX_BYTES:
        raise RejectError("check", f"has {size} bytes; legal are at most {MAX_BYTES}")
    return Document(text=_decoded(source.path.read_bytes().removeprefix(b"\xef\xbb\xbf")))


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RejectError("decode", f"is no UTF-8 (byte {error.start}: {error.reason})") from error


def _line(source: Source) -> Mapping[str, Any]:
    begin, end = source.window or (0, 0)
    if not 0 <= begin < end <= begin + MAX_BYTES:
        raise RejectError("check", f"its line has {end - begin} bytes; legal are 1 to {MAX_BYTES}")
    with source.path.open("rb") as file:
        file.seek(begin)
        line = file.read(end - begin)
    try:
        fields = json.loads(_decoded(line))
    except (ValueError, RecursionError) as error:
        raise RejectError("decode", f"is no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise RejectError("decode", f"is {type(fields).__name__}, no JSON object")
    return fields


def _row(source: Source) -> Mapping[str, Any]:
    row = 0 if source.window is None else source.window[0]
    fields: Mapping[str, Any] = _rows(source.path, source.path.stat().st_mtime_ns).row(row)
    return fields


@lru_cache(maxsize=8)
def _rows(path: Path, mtime_ns: int) -> ParquetRows:
    """The rows of a file that was changed at `mtime_ns`."""
    return ParquetRows(path, _scratch().folder)


@lru_cache(maxsize=1)
def _scratch() -> Scratch:
    """The folder where this process unpacks groups of rows; a task's sources come in a random order."""
    return Scratch()


def _checked(fields: Mapping[str, Any]) -> Document:
    """The document of a line or row. RejectError if it has no text, or text that is no Unicode."""
    text = fields.get(TEXT)
    if not isinstance(text, str):
        raise RejectError("decode", f"has no text: its {TEXT!r} is {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RejectError("decode", f"is no Unicode (character {error.start}: {error.reason})") from error
    if size > MAX_BYTES:
        raise RejectError("check", f"has {size} bytes; legal are at most {MAX_BYTES}")
    others = {name: value for name, value in fields.items() if name != TEXT and name not in OF_SOURCE}
    return Document(text=text, meta={name: value for name, value in others.items() if _is_json(value)})


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
