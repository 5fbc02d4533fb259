"""Splits a member's name as WebDataset does: the key ends at the base name's first dot, the component follows."""

from __future__ import annotations

import re

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


def split_name(name: str) -> tuple[str, str] | None:
    """The key (with its folders) and the component (in lower case) of a member; None if it belongs to no sample.

    As in WebDataset, a name without folders that begins with two underscores is metadata, and a base name that begins
    with a dot, or has no dot, is ignored.
    """
    found = _NAME.fullmatch(name)
    if found is None or ("/" not in name and name.startswith("__")):
        return None
    return found[1], found[2].lower()


def indexed_name(name: str) -> str:
    """The name `name` with its component in lower case, as the manifest spells it."""
    split = split_name(name)
    return name if split is None else ".".join(split)
