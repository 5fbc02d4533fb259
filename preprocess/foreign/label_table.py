"""Labels that lie beside tars, in a table: each row names a sample and its label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from ...shards.errors import DatasetError
from ..raw.lists import Row, read_table, whole_number
from .labels import Label

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
            name = name_of(row[column])
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
        return self.labels.get(name_of(key), own)

    def names_one(self, key: str) -> bool:
        """Whether the table names the sample with this key."""
        return name_of(key) in self.labels


def name_of(path: str) -> str:
    """What a path or key ends in, up to the first dot, as keys of WebDataset end."""
    return PurePosixPath(path.strip()).name.partition(".")[0]


def _label(row: Row) -> Label:
    text = row["label"].strip()
    number = whole_number(text)
    return (text or None) if number is None else number


def _add(found: dict[str, Label], name: str, label: Label, row: Row) -> None:
    if found.setdefault(name, label) != label:
        raise row.error(f"another label for {name!r} than a line before")
