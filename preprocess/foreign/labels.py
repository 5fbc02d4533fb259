"""Reads the labels of a WebDataset's samples: "label" in `json`, or `cls`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..encode.reject import RejectError

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


def numbered(labels: Sequence[Label]) -> tuple[list[int], tuple[str, ...]]:
    """Each label as a number (-1 for none), and the sorted label names; () if all labels are numbers."""
    if not any(isinstance(label, str) for label in labels):
        return [label if isinstance(label, int) else -1 for label in labels], ()
    names = sorted({str(label) for label in labels if label is not None})
    number = {name: n for n, name in enumerate(names)}
    return [-1 if label is None else number[str(label)] for label in labels], tuple(names)
