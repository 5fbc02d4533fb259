"""The labels of a WebDataset's samples: "label" in `json`, or `cls`, or a table that lies beside the tars."""

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
"""The components that may hold a label, in the order in which they are read."""

MAX_LABEL = 2**63 - 1


def read_label(members: Mapping[str, bytes]) -> Label:
    """The label in the members of a sample. Raises RejectError("label") if it is neither a number nor a name."""
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
            raise RejectError("label", f"its cls is no text ({error})") from error
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LABEL))
        return _check_labels(int(text) if is_number else text, "its cls says")
    return None


def _check_labels(label: object, where: str) -> Label:
    is_number = isinstance(label, int) and not isinstance(label, bool) and 0 <= label <= MAX_LABEL
    if is_number or (isinstance(label, str) and label and label.isprintable()):
        return label  # type: ignore[return-value]
    raise RejectError("label", f"{where} {label!r}; legal are integers from 0 on and names")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of labels. names: the sorted names; () if all labels are numbers."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Collection[Label]) -> Self:
        """The numbers of these labels: if one is a name, all are names."""
        if not any(isinstance(label, str) for label in labels):
            return cls(())
        return cls(tuple(sorted({str(label) for label in labels if label is not None})))

    def of_label(self, label: Label) -> int:
        """The number of a label; -1 for none."""
        if label is None:
            return -1
        return bisect_left(self.names, str(label)) if self.names else int(label)


NAMES = ("key", "id", "video_id", "youtube_id", "path", "file", "filename", "wav")
"""The columns that may name a sample, in the order in which they are looked for."""
_SPAN = ("time_start", "time_end")
_REMEDY = f"Give it the column label, and one of {', '.join(NAMES)} (or name yours with --match)"


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The labels of samples by their names: the last part of the key, without folders and suffix.

    A row of Kinetics (youtube_id, time_start, time_end) names a sample with its times, `ID_000010_000020`, and without
    them where the id stands in one row only.
    """

    path: Path
    labels: Mapping[str, Label]

    @classmethod
    def read(cls, path: Path, match: str | None = None) -> Self:
        """The table in a csv file with the columns `label` and `match`, by default the first of `NAMES` that it has.

        Raises DatasetError if it is no such table, or gives a sample two labels; OutageError if it cannot be read.
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
        """The label of the sample with this key; its own label if the table does not name it."""
        return self.labels.get(strip_name(key), own)

    def names_one(self, key: str) -> bool:
        """Whether the table names the sample with this key."""
        return strip_name(key) in self.labels


def strip_name(path: str) -> str:
    """What a path or key ends in, up to the first dot, as keys of WebDataset end."""
    return PurePosixPath(path.strip()).name.partition(".")[0]


def _label(row: TableRow) -> Label:
    text = row["label"].strip()
    number = parse_whole_number(text)
    return (text or None) if number is None else number


def _add(found: dict[str, Label], name: str, label: Label, row: TableRow) -> None:
    if found.setdefault(name, label) != label:
        raise row.error(f"another label for {name!r} than a line before")
