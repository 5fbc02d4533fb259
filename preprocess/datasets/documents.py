"""Sources of texts: the lines of JSON Lines files and the rows of Parquet files.

A line is an object with `text`. Optional `label` (a name or a number), `split` and `id` are used, and all other entries
go into the sample's `json`, for a loader's `fields`. A row of a Parquet file has the same columns.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow.lib import ArrowException

from maskstream.preprocess.encode.text.encoder import LINES, MAX_BYTES, ROWS, TEXT, TextEncoder
from maskstream.preprocess.raw.lists import MAX_LABEL, check_class_numbers
from maskstream.preprocess.raw.parquet_rows import is_outage
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError

from .dataset import Dataset, reads_media, require_folder
from .folders import SPLIT_FOLDERS, list_media, readable

_ROWS = 1024
"""Rows of a Parquet file that are read at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedDocument:
    """A document of a file: its line or row number, its byte or row window, and its label, split and id; without an id,
    the number is used.
    """

    number: int
    window: tuple[int, int]
    label: str | int | None = None
    split: str | None = None
    id: str | None = None


def documents(root: Path, *, name: str, suffix: str, obtain: str) -> Dataset:
    """List the documents of all files with a suffix below a folder.

    The split of a document is the one in its line; else the folder or file is named after a split (train.jsonl,
    val/000.jsonl); else it is train. Labels that are names are numbered in sorted order.

    Args:
        root: Folder of the files.
        name: Name of the dataset.
        suffix: `.jsonl` or `.parquet`.
        obtain: Sentence that explains how to arrange the data, appended to messages.

    Raises:
        DatasetError: There are no documents, or a line cannot be used.
        OutageError: A file cannot be read for now.
    """
    require_folder(root, name=name, obtain=obtain)
    paths = list_media(root, {suffix})
    found = [(path, one) for path in paths for one in (_lines(path) if suffix == LINES else _rows(path))]
    if not found:
        raise DatasetError(f"{name}: {root} contains no documents in {suffix} files. {obtain}")
    if suffix == ROWS:
        check_class_numbers((path, "label") for path in paths)
    label_names, numbers = _labels(found)
    splits: dict[str, list[Source]] = {}
    for path, one in found:
        split = _split(one.split, path, root, one.number)
        label = one.label if isinstance(one.label, int) else numbers.get(one.label, -1)
        where = readable(path.relative_to(root))
        source = Source(
            id=one.id if one.id is not None else f"{where}:{one.number}", path=path, label=label, window=one.window
        )
        splits.setdefault(split, []).append(source)
    return Dataset(name=name, label_names=label_names, splits=splits, encoder=TextEncoder())


def _lines(path: Path) -> Iterator[ListedDocument]:
    """Yield the documents of a JSON Lines file; the window is in bytes, without the line end. Empty lines are
    skipped.
    """
    begin = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            data = line.rstrip(b"\r\n")
            if data.strip():
                yield _make_document(path, number, (begin, begin + len(data)), _parse_object(path, number, data))
            begin += len(line)


def _parse_object(path: Path, number: int, data: bytes) -> dict[str, Any]:
    """Parse a line. A line that is not a valid JSON object yields no entries; the encoder rejects it later with the
    reason.
    """
    if len(data) > MAX_BYTES:
        return {}
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _rows(path: Path) -> Iterator[ListedDocument]:
    """Yield the documents of a Parquet file; the window is [row, row + 1)."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if TEXT not in names:
                raise DatasetError(
                    f"{path} needs a column {TEXT!r}, got {', '.join(names) or 'none'}; rename the column with the "
                    "texts"
                )
            columns = [name for name in ("label", "split", "id") if name in names]
            found = file.iter_batches(_ROWS, columns=columns) if columns else ()
            rows = (fields for batch in found for fields in batch.to_pylist())
            for number in range(file.metadata.num_rows):
                yield _make_document(path, number, (number, number + 1), next(rows) if columns else {})
    except (OSError, ValueError, StopIteration, ArrowException) as error:
        if is_outage(error):
            raise OutageError(f"{path} cannot be read ({error}); run the same command again") from error
        raise DatasetError(f"{path} is damaged or not a Parquet file ({error})") from error


def _make_document(path: Path, number: int, window: tuple[int, int], fields: dict[str, Any]) -> ListedDocument:
    label, split, key = fields.get("label"), fields.get("split"), fields.get("id")
    where = f"{path}, line or row {number}"
    is_number = isinstance(label, int) and not isinstance(label, bool)
    if not (label is None or isinstance(label, str) or (is_number and -1 <= label <= MAX_LABEL)):
        raise DatasetError(
            f"{where}: the label is {_shorten_value(label)}; use a name or a number from 0 to {MAX_LABEL}"
        )
    if not isinstance(split, str | None) or not isinstance(key, str | int | None):
        raise DatasetError(f"{where}: split {_shorten_value(split)} and id {_shorten_value(key)} must be text")
    return ListedDocument(number=number, window=window, label=label, split=split, id=None if key is None else str(key))


def _shorten_value(value: object) -> str:
    """Format a value for a message."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"  # Python refuses to format numbers with many digits
    return ascii(value)[:80]


def _labels(found: list[tuple[Path, ListedDocument]]) -> tuple[tuple[str, ...], dict[str | None, int]]:
    """Return the label names, and the number of each name. Numeric labels keep their value; names and numbers must not
    mix.
    """
    given = {one.label: (path, one.number) for path, one in reversed(found)}  # the first place of each
    names = sorted(label for label in given if isinstance(label, str))
    numbers = [label for label in given if isinstance(label, int)]
    if names and numbers:
        shown = " and ".join(
            f"{label!r} in {given[label][0]}, line or row {given[label][1]}" for label in (names[0], numbers[0])
        )
        raise DatasetError(f"labels mix names and numbers: {shown}. Use one kind")
    if numbers:
        return tuple(map(str, range(max(numbers) + 1))), {}
    return tuple(names), {name: number for number, name in enumerate(names)}


def _split(named: str | None, path: Path, root: Path, number: int) -> str:
    """Return the split of a document."""
    if named:
        split = next((name for name, others in SPLIT_FOLDERS.items() if named in others), None)
        if split is None:
            raise DatasetError(
                f"{path}, line or row {number}: the split is {named!r}; use one of {', '.join(SPLIT_FOLDERS)}"
            )
        return split
    inside = path.relative_to(root)
    words = (inside.parts[0] if len(inside.parts) > 1 else "", inside.stem)
    return next((name for name, others in SPLIT_FOLDERS.items() if {*words} & {*others}), "train")


@reads_media
def jsonl(root: Path) -> Dataset:
    """Read texts from JSON Lines files below `root`: {"text": ..., "label": ..., "split": ..., ...}."""
    obtain = (
        'Arrange the texts as ROOT/train.jsonl and ROOT/val.jsonl with lines such as {"text": "...", "label": "..."}'
    )
    return documents(root, name="jsonl", suffix=LINES, obtain=obtain)


@reads_media
def parquet_text(root: Path) -> Dataset:
    """Read texts from the column `text` of Parquet files below `root`."""
    obtain = "Arrange the texts as ROOT/train.parquet and ROOT/val.parquet with a column text"
    return documents(root, name="parquet-text", suffix=ROWS, obtain=obtain)
