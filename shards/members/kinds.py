"""The table of member kinds, and the check that a member fits its kind.

A kind has two checks: `check` reads tables and headers; `decode`, for `verify --decode`, decodes the whole member.
"""

import re

import numpy as np

from .arrays import ARRAY, CAMERA_PATH, MESH, POINTS, POSES
from .image import IMAGE
from .member import Kind, Member
from .sound import SOUND
from .text import BYTES, JSON, TEXT, TEXTS, TOKENS
from .video import VIDEO

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (ARRAY, BYTES, CAMERA_PATH, IMAGE, JSON, MESH, POINTS, POSES, SOUND, TEXT, TEXTS, TOKENS, VIDEO)
}
"""Kinds by name. Members of other kinds are stored too; only their checksum is verified."""

PLACE = ("offset", "size", "xxh3_128")
"""The columns of every component: offset and size of its data in the tar, in bytes, and its checksum."""

_WORD = re.compile(r"[a-z][a-z0-9_]*")


def check_form(which: str, member: Member) -> None:
    """Raise ValueError if a fact, word or list cannot be a column, or the member's kind does not have it."""
    for name in (*member.facts, *member.words, *member.lists):
        if not _WORD.fullmatch(name) or name in PLACE:
            raise ValueError(
                f"{which} has the column {name!r}; names may contain only a-z, 0-9 and _, and "
                f"{', '.join(PLACE)} are reserved"
            )
    for name, array in member.lists.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.ndim != 1:
            raise ValueError(f"list {name!r} of {which} must be a one-dimensional int64 array")
    for name, value in member.facts.items():
        if type(value) not in (int, float):
            raise ValueError(f"fact {name!r} of {which} is {value!r}; a fact must be an int or a float")
    if (kind := KINDS.get(member.kind)) is None:
        return
    of_kind = {"fact": [*kind.facts], "word": [*kind.words], "list": [*kind.lists]}
    found = {"fact": [*member.facts], "word": [*member.words], "list": [*member.lists]}
    for what, legal in of_kind.items():
        for name in found[what]:
            if name not in legal and not (what == "fact" and kind.family and name.startswith(kind.family)):
                raise ValueError(
                    f"{which} has the {what} {name!r}, but the kind {kind.name!r} has {', '.join(legal) or 'none'}; "
                    "add it to the kind in shards/members"
                )
    for name, value in member.facts.items():
        if type(value) is not (wanted := kind.facts.get(name, float)):
            raise ValueError(f"fact {name!r} of {which} is {value!r}; its type must be {wanted.__name__}")
