"""The labels of WebDataset samples: "label" in `json`, or `cls`, or a table next to the tars."""

import json
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from maskstream.preprocess.raw.lists import TableRow, parse_whole_number, read_table
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError

Label = int | str | None
"""A number, a name, or none."""

LABELS = ("json", "cls")
"""Components that may contain a label, in the order in which they are read."""

MAX_LABEL = 2**63 - 1


def read_label(members: Mapping[str, bytes]) -> Label:
    """Return the label in the members of a sample; None if there is none.

    Args:
        members: Bytes by component.

    Raises:
        RejectError: The label is neither a number nor a name.
    """
    if "json" in members:
        try:
            described = json.loads(members["json"])
        except (ValueError, RecursionError) as error:
            raise RejectError("label", f"its json is damaged ({error})") from error
        label = described.get("label") if isinstance(described, dict) else None
        if label is not None:
            return _check_labels(label, 'its json has "label"')
    if "cls" in members:
        try:
            text = members["cls"].decode().strip()
        except UnicodeDecodeError as error:
            raise RejectError("label", f"its cls is not valid text ({error})") from error
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LABEL))
        return _check_labels(int(text) if is_number else text, "its cls contains")
    return None


def _check_labels(label: object, where: str) -> Label:
    is_number = isinstance(label, int) and not isinstance(label, bool) and 0 <= label <= MAX_LABEL
    if is_number or (isinstance(label, str) and label and label.isprintable()):
        return label  # type: ignore[return-value]
    raise RejectError("label", f"{where} {label!r}; use an integer from 0 or a name")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of labels.

    Attributes:
        names: Sorted names; () if all labels are numbers.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Collection[Label]) -> Self:
        """Number these labels: if one is a name, all become names."""
        if not any(isinstance(label, str) for label in labels):
            return cls(())
        return cls(tuple(sorted({str(label) for label in labels if label is not None})))

    def of_label(self, label: Label) -> int:
        """Return the number of a label; -1 for None."""
        if label is None:
            return -1
        return bisect_left(self.names, str(label)) if self.names else int(label)


NAMES = ("key", "id", "video_id", "youtube_id", "path", "file", "filename", "wav")
"""Columns that may name a sample, in the order in which they are tried."""
_SPAN = ("time_start", "time_end")
_REMEDY = f"It needs the column label, and one of {', '.join(NAMES)} (or choose yours with --match)"


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The labels of samples by their names: the last part of the key, without folders and suffix.

    A row of Kinetics (youtube_id, time_start, time_end) names a sample by its id and times, `ID_000010_000020`, and by
    the id alone if all its rows have the same label.
    """

    path: Path
    labels: Mapping[str, Label]

    @classmethod
    def read(cls, path: Path, match: str | None = None) -> Self:
        """Read a csv table of labels.

        Args:
            path: File with a column `label`.
            match: Column that names the samples; by default the first of `NAMES` that exists.

        Raises:
            DatasetError: This is not such a table, or a sample has two labels.
            OutageError: The file cannot be read for now.
        """
        found: dict[str, Label] = {}
        ambiguous: set[str] = set()
        column = match
        for row in read_table(path, ("label",), obtain=_REMEDY):
            if column is None:
                column = next((name for name in NAMES if name in row.values), None)
            if column is None or column not in row.values:
                raise DatasetError(f"{path} has the columns {', '.join(row.values)[:200]}. {_REMEDY}")
            label = _label(row)
            name = strip_name(row[column])
            if not name:
                raise row.error(f"an empty {column}")
            if all(row.get(time) for time in _SPAN):
                whole = f"{name}_{int(row.seconds(_SPAN[0])):06d}_{int(row.seconds(_SPAN[1])):06d}"
                _add(found, whole, label, row)
                if found.setdefault(name, label) != label:
                    ambiguous.add(name)
            else:
                _add(found, name, label, row)
        return cls(path, {name: label for name, label in found.items() if name not in ambiguous})

    def label(self, key: str, own: Label) -> Label:
        """Return the label of the sample with this key; its own label if the table does not name it."""
        return self.labels.get(strip_name(key), own)

    def names_one(self, key: str) -> bool:
        """Return whether the table names the sample with this key."""
        return strip_name(key) in self.labels


def strip_name(path: str) -> str:
    """Return the last part of a path or key up to its first dot, where WebDataset keys end."""
    return PurePosixPath(path.strip()).name.partition(".")[0]


def _label(row: TableRow) -> Label:
    text = row["label"].strip()
    number = parse_whole_number(text)
    return (text or None) if number is None else number


def _add(found: dict[str, Label], name: str, label: Label, row: TableRow) -> None:
    if found.setdefault(name, label) != label:
        raise row.error(f"a different label for {name!r} than an earlier line")
