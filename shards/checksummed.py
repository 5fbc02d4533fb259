"""JSON objects that contain their own checksum, which reveals damage and edits."""

import json
from collections.abc import Mapping
from typing import Any

import xxhash

from .config import Json

CHECKSUM = "xxh3_128"
"""The field with the checksum of all other fields."""


def add_checksum(fields: Mapping[str, Any]) -> bytes:
    """Return the fields and their checksum as indented JSON. Raise ValueError or TypeError if JSON cannot represent
    them.
    """
    plain: Json = json.loads(json.dumps(fields))
    return json.dumps({**plain, CHECKSUM: _sum(plain)}, indent=2).encode() + b"\n"


def read_checksummed(data: bytes) -> Json:
    """Return the fields that `add_checksum` wrote, after checking them. Raise ValueError, with the reason, if the data
    differs from what was written.
    """
    if not data.strip(b"\0"):
        raise ValueError("it is empty" if not data else f"it holds {len(data)} zero bytes")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"it contains a {type(fields).__name__} instead of an object")
    if CHECKSUM not in fields:
        raise ValueError(f"it has no {CHECKSUM} checksum; an earlier release may have written it")
    written = fields.pop(CHECKSUM)
    try:
        found = _sum(fields)
    except RecursionError as error:  # parsing may succeed at a nesting depth at which writing fails
        raise ValueError("it is nested too deeply") from error
    if found != written:
        raise ValueError("its contents do not match its checksum")
    return fields


def _sum(fields: Json) -> str:
    """Return the checksum of a canonical form, in which the order of fields and whitespace do not matter."""
    return str(xxhash.xxh3_128_hexdigest(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()))
