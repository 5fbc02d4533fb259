"""Read a dataset's lists: tables (csv, tsv, JSON Lines, Parquet), lines of text and JSON. Errors name the file and
line.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.errors import DatasetError, OutageError

MAX_LABEL = (1 << 20) - 1
"""Largest class number: dataset.json lists a name for each number up to the largest."""
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Placed:
    """A row of a list.

    Attributes:
        path: File of the list.
        line: Last line of the row, or its row number, from 1.
    """

    path: Path
    line: int

    def error(self, what: str, remedy: str = "Correct or remove the line") -> DatasetError:
        """Return an error about this row that describes the problem and its remedy."""
        return DatasetError(f"{self.path}: line {self.line} has {what}. {remedy}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow(_Placed):
    """A row of a table, with its values by column."""

    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def get(self, column: str) -> str:
        """Return the value of a column; "" if the table does not have it."""
        return self.values.get(column, "")

    def number(self, column: str, largest: int = MAX_LABEL) -> int:
        """Return the integer in a column. Raises DatasetError unless it is in [0, largest]."""
        number = parse_whole_number(self[column])
        if number is None or number > largest:
            raise self.error(f"the {column} {short(self[column])}, not a whole number from 0 to {largest}")
        return number

    def seconds(self, column: str) -> float:
        """Return the time in a column, in seconds. Raises DatasetError unless it is in [0, 10^9]."""
        try:
            seconds = float(self[column])
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= 1e9:
            raise self.error(f"the {column} {short(self[column])}, not a number of seconds")
        return seconds

    def share(self, column: str) -> float:
        """Return the fraction in a column. Raises DatasetError unless it is in [0, 1]."""
        try:
            share = float(self[column])
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            raise self.error(f"the {column} {short(self[column])}, not a number from 0 to 1")
        return share


@dataclass(frozen=True, kw_only=True, slots=True)
class ListRow(_Placed):
    """A row of a list, with its JSON values by column; empty values are omitted."""

    values: Mapping[str, Any]


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    obtain: str = "",
    names: Sequence[str] | None = None,
    comment: str | None = None,
) -> Iterator[TableRow]:
    """Read the rows of a UTF-8 csv or tsv file, with or without a byte order mark. Empty lines are skipped.

    Args:
        path: File.
        columns: Required columns.
        obtain: Advice for the error about a missing column.
        names: Column names, if the file has no header line.
        comment: Prefix of lines to skip.

    Raises:
        DatasetError: The file is not such a table, or a row has too many or too few values.
    """
    lines = _Lines(path, comment)
    reader = csv.reader(lines, skipinitialspace=comment is not None, delimiter=_detect_delimiter(path))
    try:
        header = next(reader, []) if names is None else list(names)
        if missing := [column for column in columns if column not in header]:
            known = f"the columns {', '.join(header)[:200]}" if header else "no columns"
            raise DatasetError(f"{path} has {known}, but no {', '.join(map(repr, missing))}. {obtain}")
        if repeated := [column for column in header if header.count(column) > 1]:
            raise DatasetError(f"{path} has the column {short(repeated[0])} more than once. Rename one")
        for values in reader:
            row = TableRow(path=path, line=lines.number, values=dict(zip(header, values, strict=False)))
            if values and len(values) != len(header):
                raise row.error(
                    f"{len(values)} values ({short(','.join(values))}) for the {len(header)} columns "
                    f"{', '.join(header)}",
                    "Add the missing ones, or quote values that contain commas",
                )
            if values:
                yield row
    except csv.Error as error:
        raise DatasetError(
            f"{path}: line {lines.number} is not a line of a csv file ({error}). Look for an unclosed quote"
        ) from error


def _detect_delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Suffixes of the files that `read_list` reads."""
MAX_LISTED_BYTES = 1 << 30
"""Largest decoded size of a Parquet list, whose rows are kept in memory, and largest size of a list to fetch, in bytes.
"""
_ROWS = 1024


def list_columns(path: Path) -> list[str]:
    """Return the columns of a list; for JSON Lines, the keys of the first line. Raises DatasetError as `read_list`
    does.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        with _parquet(path) as file:
            return [str(name) for name in file.schema_arrow.names]
    if kind == ".jsonl":
        return next((list(_parse_object(path, *line)) for line in read_lines(path)), [])
    return next(csv.reader(_Lines(path), delimiter=_detect_delimiter(path)), [])


def read_list(path: Path) -> list[ListRow]:
    """Read the rows of a list in the format of its suffix.

    Values in csv and tsv are strings. Empty values, null and NaN are omitted.

    Raises:
        DatasetError: The file is not a valid list, or contains media.
        OutageError: The file cannot be read.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        rows: Iterator[tuple[int, Mapping[str, Any]]] = _read_parquet_rows(path)
    elif kind == ".jsonl":
        rows = ((number, _parse_object(path, number, text)) for number, text in read_lines(path))
    else:
        rows = ((row.line, row.values) for row in read_table(path, ()))
    return [ListRow(path=path, line=line, values=_drop_nulls(values)) for line, values in rows]


def _drop_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without null and NaN."""
    return {
        column: value
        for column, value in values.items()
        if not (
            value is None or value != value or (isinstance(value, str) and not value.strip())
        )  # NaN does not equal itself
    }


def _parse_object(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_float=_parse_finite)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: line {number} is not valid JSON ({error}). Correct or remove the line") from error
    if not isinstance(found, dict):
        raise DatasetError(f'{path}: line {number} is a {type(found).__name__}, not an object such as {{"path": ...}}')
    return found


def _parse_finite(text: str) -> float:
    """Parse a JSON number. Raises ValueError if float64 cannot represent it."""
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:40]} is too large: float64 holds numbers up to 1.8e308")
    return number


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with path.open("rb") as opened:
            if opened.read(4) == bytes(4):
                raise DatasetError(
                    f"{path} begins with zeros: it is damaged, or it is at a URL and has more than {MAX_LISTED_BYTES} "
                    "bytes, which are not fetched. Write the list as csv or JSON Lines"
                )
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OutageError(f"{path} cannot be read ({error}); run the same command again") from error
        raise DatasetError(f"{path} is damaged or not a Parquet file ({error}); download it again") from error


def _read_parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with _parquet(path) as file:
        for field in file.schema_arrow:
            if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type) or pa.types.is_struct(field.type):
                raise DatasetError(
                    f"{path}: the column {field.name!r} is {str(field.type)[:80]}; a list may contain text, numbers "
                    "and lists of them. Media in a column are read by the datasets parquet-image, parquet-audio, "
                    "parquet-video and parquet-image-text"
                )
        number = size = 0
        for batch in file.iter_batches(_ROWS, use_threads=False):
            size += batch.nbytes
            if size > MAX_LISTED_BYTES:
                raise DatasetError(f"{path} contains more than {MAX_LISTED_BYTES} bytes; leave out large columns")
            for values in batch.to_pylist():
                number += 1
                yield number, {column: _convert_to_json(value) for column, value in values.items()}


def _convert_to_json(value: object) -> object:
    """Convert a Parquet value to its JSON equivalent."""
    if isinstance(value, date | time | timedelta):
        return str(value)
    return float(value) if isinstance(value, Decimal) else value


def read_hf_features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the features by column that Hugging Face `datasets` stores in a Parquet file's metadata; {} if there are
    none.
    """
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return {column: one for column, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}


def check_class_numbers(files: Iterable[tuple[Path, str]]) -> None:
    """Check that the labels of several Parquet files, each with its column, use the same class numbers.

    Raises:
        DatasetError: Two files give the same number different names in their metadata (ClassLabel).
    """
    known: dict[int, tuple[str, Path]] = {}
    for path, column in files:
        with _parquet(path) as file:
            feature = read_hf_features(file.schema_arrow).get(column, {})
        inner = feature.get("feature")
        names = (inner if isinstance(inner, dict) else feature).get("names")
        for number, name in enumerate(names if isinstance(names, list) else ()):
            other, first = known.setdefault(number, (str(name), path))
            if other != str(name):
                raise DatasetError(
                    f"{path} and {first} number classes differently: by their metadata, {number} in the column "
                    f"{column!r} is {short(str(name))} in one and {short(other)} in the other; write names as labels"
                )


_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_CODE = re.compile(r"[-+]?(0\d|\d{19})")
"""Digits that are a code, not a number: with leading zeros, or too many for int64."""
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|NaN")


def convert_to_type(rows: Sequence[ListRow], column: str) -> Sequence[Any]:
    """Convert the values of a column to their common type; None where a row has no value.

    Strings are converted if all of them are numbers, booleans or JSON lists.

    Raises:
        DatasetError: Values have several types, or a number does not fit its type.
    """
    values = [row.values.get(column) for row in rows]
    there = [value for value in values if value is not None]
    typed = values
    is_text = bool(there) and all(isinstance(value, str) for value in there)
    if is_text:
        convert = _choose_converter([value.strip() for value in there])
        typed = [None if value is None else convert(value.strip()) for value in values]
    for row, value, result in zip(rows, values, typed, strict=True):
        for number in result if isinstance(result, list) else [result]:
            _check_held(row, column, value if is_text else number, number)
    if is_text:
        return [None if value != value else value for value in typed]  # NaN does not equal itself
    kinds = {
        _kind(value): row for value, row in zip(reversed(values), reversed(rows), strict=True) if value is not None
    }
    if len(kinds) > 1:
        (one, first), (other, second) = sorted(kinds.items())[:2]
        raise DatasetError(
            f"{first.path}: the column {column!r} is {one} in line {first.line} and {other} in line {second.line}; use "
            "one"
        )
    return values


def _choose_converter(texts: Sequence[str]) -> Callable[[str], Any]:
    """Return the function that converts strings to their common type."""
    if all(map(_WHOLE.fullmatch, texts)):
        return int
    if all(map(_NUMBER.fullmatch, texts)) and not any(map(_CODE.match, texts)):
        return float
    if all(text.lower() in ("true", "false") for text in texts):
        return lambda text: text.lower() == "true"
    if all(text.startswith("[") and text.endswith("]") for text in texts):
        try:
            [json.loads(text) for text in texts]
        except (ValueError, RecursionError):
            return str
        return json.loads
    return str


def _check_held(row: ListRow, column: str, given: object, number: object) -> None:
    """Raise DatasetError if converting `given` changed its value, or no sample can store the result."""
    if isinstance(number, int) and not -(1 << 63) <= number < 1 << 63:
        raise row.error(f"the {column} {short(given)}, but int64 only holds whole numbers up to 9223372036854775807")
    if isinstance(number, float) and math.isinf(number) and given != number:
        raise row.error(f"the {column} {short(given)}, but float64 only holds numbers up to 1.8e308")
    if (
        isinstance(given, str)
        and isinstance(number, float)
        and _WHOLE.fullmatch(given.strip())
        and int(given) != number
    ):
        raise row.error(
            f"the {column} {short(given)} among fractions, but float64 holds every whole number only up to {1 << 53}",
            "Put identifiers in a column without fractions",
        )


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    return {str: "text", int: "a number", float: "a number", list: "a list"}.get(type(value), "an object")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and stripped text of each line of a UTF-8 text file. Empty lines are skipped."""
    lines = _Lines(path)
    for line in lines:
        if text := line.strip():
            yield lines.number, text


def read_json(path: Path, obtain: str = "") -> Any:
    """Read a JSON file. Raises DatasetError if it is not valid JSON or is nested too deeply."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DatasetError(f"{path} is not valid JSON ({why}). {obtain}") from error
    except OSError as error:
        raise OutageError(f"{path} cannot be read ({error.strerror}); run the same command again") from error


def parse_whole_number(text: str) -> int | None:
    """Parse an integer of up to 18 digits; None for any other text."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded in UTF-8. JSON allows lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_path(text: str) -> bool:
    """Return whether a file can have this path. JSON allows lone surrogates and NUL."""
    return "\0" not in text and is_unicode(text)


class _Lines:
    """Lines of a UTF-8 file; `number` counts the lines read so far."""

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
                f"{where} is not valid UTF-8 (byte {data[error.start]:#04x} at {error.start}); save the file as UTF-8"
            ) from error
        if "\0" in text:
            raise DatasetError(f"{where} has a NUL byte; save the file as plain text in UTF-8")
        return text


def short(value: object) -> str:
    """Return a value as error messages quote it, shortened."""
    text = str(value)
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}..."
