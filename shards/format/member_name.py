"""How WebDataset reads a member's name: the key up to the first dot of the base name, the component behind it."""

from __future__ import annotations

import re

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


def split_name(name: str) -> tuple[str, str] | None:
    """Key (with its folders) and component (in lower case) of a member; None where it belongs to no sample.

    As in WebDataset, a name outside of folders that begins with two underscores is metadata, and a base name that
    begins with a dot, or has none, is left out.
    """
    found = _NAME.fullmatch(name)
    if found is None or ("/" not in name and name.startswith("__")):
        return None
    return found[1], found[2].lower()


def indexed_name(name: str) -> str:
    """The name that a member of a manifest's row has in a tar that spells it `name`: the component in lower case."""
    split = split_name(name)
    return name if split is None else ".".join(split)
