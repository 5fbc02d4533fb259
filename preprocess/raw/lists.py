"""Reads the lists of datasets: tables (csv), lines of text and JSON. An error names the file and the line."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskstream.shards.errors import DatasetError, OutageError

MAX_LABEL = (1 << 20) - 1
"""The largest number of a class: dataset.json lists a name for each number up to the largest."""
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """A row of a table: its values by column, the table's file and the row's last line, counted from 1."""

    path: Path
    line: int
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def get(self, column: str) -> str:
        """The value of a column, "" if the table has no such column."""
        return self.values.get(column, "")

    def number(self, column: str, largest: int = MAX_LABEL) -> int:
        """The whole number in a column. Raises DatasetError unless it is from 0 to `largest`."""
        number = whole_number(self[column])
        if number is None or number > largest:
            raise self.error(f"the {column} {_short(self[column])}, not a whole number from 0 to {largest}")
        return number

    def seconds(self, column: str) -> float:
        """The time in a column. Raises DatasetError unless it is a number from 0 to 10^9."""
        try:
            seconds = float(self[column])
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= 1e9:
            raise self.error(f"the {column} {_short(self[column])}, not a number of seconds")
        return seconds

    def error(self, what: str, remedy: str = "Correct the line or take it out") -> DatasetError:
        """The error of a row that has `what`."""
        return DatasetError(f"{self.path}: line {self.line} has {what}. {remedy}")


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    obtain: str = "",
    names: Sequence[str] | None = None,
    comment: str | None = None,
) -> Iterator[TableRow]:
    """The rows of a csv file in UTF-8, with or without a byte order mark; empty lines are left out.

    columns: those that it needs. names: the columns' names if the file has no line with them. comment: how lines begin
    that are left out. Raises DatasetError if the file is no such table, or a row has more or fewer values than columns.
    """
    lines = _Lines(path, comment)
    reader = csv.reader(lines, skipinitialspace=comment is not None)
    try:
        header = next(reader, []) if names is None else list(names)
        if missing := [column for column in columns if column not in header]:
            known = f"the columns {', '.join(header)[:200]}" if header else "no columns"
            raise DatasetError(f"{path} has {known}, but no {', '.join(map(repr, missing))}. {obtain}")
        if repeated := [column for column in header if header.count(column) > 1]:
            raise DatasetError(f"{path} has the column {_short(repeated[0])} more than once. Rename one")
        for values in reader:
            row = TableRow(path=path, line=lines.number, values=dict(zip(header, values, strict=False)))
            if values and len(values) != len(header):
                raise row.error(
                    f"{len(values)} values ({_short(','.join(values))}) for the {len(header)} columns "
                    f"{', '.join(header)}",
                    "Add the missing ones, or put values with commas into quotes",
                )
            if values:
                yield row
    except csv.Error as error:
        raise DatasetError(
            f"{path}: line {lines.number} is no line of a csv file ({error}). Look for a quote that is not closed"
        ) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line of a text file in UTF-8, without spaces around it; empty lines are left out."""
    lines = _Lines(path)
    for line in lines:
        if text := line.strip():
            yield lines.number, text


def read_json(path: Path, obtain: str = "") -> Any:
    """The contents of a JSON file. Raises DatasetError if it is no JSON or nested too deeply."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DatasetError(f"{path} is no JSON ({why}). {obtain}") from error
    except OSError as error:
        raise OutageError(f"{path} cannot be read ({error.strerror}); run the same command again") from error


def whole_number(text: str) -> int | None:
    """The number that a text of up to 18 digits writes; None for any other text."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8. JSON can name half of a character ("\\ud800"), which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Lines:
    """The lines of a file in UTF-8; `number` counts those read so far."""

    def __init__(self, path: Path, comment: str | None = None) -> None:
        self.path = path
        self.number = 0
        self._comment = comment

    def __iter__(self) -> Iterator[str]:
        try:
            with self.path.open("rb") as file:
                while data := file.readline(_MAX_LINE_BYTES + 1):
                    for line in io.StringIO(self._decoded(data), newline=""):  # lines may end with \r
                        self.number += 1
                        if self._comment is None or not line.startswith(self._comment):
                            yield line
        except OSError as error:
            raise OutageError(f"{self.path} cannot be read ({error.strerror}); run the same command again") from error

    def _decoded(self, data: bytes) -> str:
        where = f"{self.path}: line {self.number + 1}"
        if len(data) > _MAX_LINE_BYTES:
            raise DatasetError(f"{where} has more than {_MAX_LINE_BYTES} bytes; is this a text file?")
        try:
            text = data.decode("utf-8" if self.number else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{where} is no UTF-8 (byte {data[error.start]:#04x} at {error.start}); save the file as UTF-8"
            ) from error
        if "\0" in text:
            raise DatasetError(f"{where} has a NUL byte; save the file as plain text in UTF-8")
        return text


def _short(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}..."
