"""The kinds `json`, `text` and `bytes`, which have no columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .member import Kind, Member


def json_member(value: Any) -> Member:
    """A JSON value as a member."""
    return Member(kind=JSON.name, data=json.dumps(value).encode())


def json_problems(member: Member) -> Iterator[str]:
    """Parse the JSON."""
    try:
        json.loads(member.data)
    except (ValueError, RecursionError) as error:
        yield f"is no JSON ({error})"


def text_member(text: str) -> Member:
    """A text as a member, in UTF-8."""
    return Member(kind=TEXT.name, data=text.encode())


JSON = Kind(name="json", check=json_problems)
TEXT = Kind(name="text")
BYTES = Kind(name="bytes")
