"""Reads the labels of a WebDataset's samples: "label" in `json`, or `cls`."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

from ..source import RejectError

Label = int | str | None
"""A number, a name, or none."""

LABELS = ("json", "cls")
"""The components that may hold a label, in the order in which they are read."""

MAX_LABEL = 2**63 - 1


def label_of(members: Mapping[str, bytes]) -> Label:
    """The label in the members of a sample. Raises RejectError("label") if it is neither a number nor a name."""
    if "json" in members:
        try:
            described = json.loads(members["json"])
        except (ValueError, RecursionError) as error:
            raise RejectError("label", f"its json is damaged ({error})") from error
        label = described.get("label") if isinstance(described, dict) else None
        if label is not None:
            return _checked(label, 'its json has "label"')
    if "cls" in members:
        try:
            text = members["cls"].decode().strip()
        except UnicodeDecodeError as error:
            raise RejectError("label", f"its cls is no text ({error})") from error
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LABEL))
        return _checked(int(text) if is_number else text, "its cls says")
    return None


def _checked(label: object, where: str) -> Label:
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
