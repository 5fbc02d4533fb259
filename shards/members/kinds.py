"""The kinds of members: a line for each."""

from __future__ import annotations

import re

import numpy as np

from .array import ARRAY
from .member import Kind, Member
from .mesh import MESH
from .points import POINTS
from .sound import SOUND
from .text import BYTES, JSON, TEXT
from .video import VIDEO

KINDS: dict[str, Kind] = {kind.name: kind for kind in (ARRAY, BYTES, JSON, MESH, POINTS, SOUND, TEXT, VIDEO)}
"""Kinds by name. Members of another kind are stored too; of those only the checksum is compared."""

PLACE = ("offset", "size", "xxh3_128")
"""The columns that every component has: where its data lies in the tar, in bytes, and its checksum."""

_WORD = re.compile(r"[a-z][a-z0-9_]*")


def check_form(which: str, member: Member) -> None:
    """ValueError where a fact, word or list cannot be a column, or the member's kind has none of that name."""
    for name in (*member.facts, *member.words, *member.lists):
        if not _WORD.fullmatch(name) or name in PLACE:
            raise ValueError(f"{which} has {name!r}; names are words of a-z, 0-9 and _, none of {', '.join(PLACE)}")
    for name, array in member.lists.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.ndim != 1:
            raise ValueError(f"list {name!r} of {which} is no int64 array of one axis")
    for name, value in member.facts.items():
        if type(value) not in (int, float):
            raise ValueError(f"fact {name!r} of {which} is {value!r}, no int and no float")
    if (kind := KINDS.get(member.kind)) is None:
        return
    of_kind = {"fact": [*kind.facts], "word": [*kind.words], "list": [*kind.lists]}
    found = {"fact": [*member.facts], "word": [*member.words], "list": [*member.lists]}
    for what, legal in of_kind.items():
        for name in found[what]:
            if name not in legal:
                raise ValueError(
                    f"{what} {name!r} of {which}; the kind {kind.name!r} has {', '.join(legal) or 'none'}; add it to "
                    "the kind in shards/members"
                )
    for name, value in member.facts.items():
        if type(value) is not kind.facts[name]:
            raise ValueError(f"fact {name!r} of {which} is {value!r}, not of the type {kind.facts[name].__name__}")
