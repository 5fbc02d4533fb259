"""A member of a sample with its facts, and the kind of a member."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from maskstream.shards.arrays import Int64s


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """The bytes of a member, and everything that a loader must know before reading them.

    kind: Name of a `Kind`. facts: Numbers. words: Strings with few distinct values, such as a codec. lists: int64 (n,)
    each. All three become columns of the manifest. table: Packet table of an indexed member of a foreign tar.
    """

    kind: str
    data: bytes = field(repr=False)
    facts: dict[str, int | float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    lists: dict[str, Int64s] = field(default_factory=dict)
    table: bytes = field(default=b"", repr=False)


Check = Callable[[Member], Iterator[str]]
"""Yields the problems of a member."""


def skip_check(member: Member) -> Iterator[str]:
    """Check of a kind that is verified only by its checksum."""
    yield from ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of member: its possible facts (int or float), words and lists, and its checks.

    family: Prefix of additional facts, which are floats. check: Compares tables and headers. decode: Decodes the member
    and compares its contents.
    """

    name: str
    facts: Mapping[str, type[int] | type[float]] = field(default_factory=dict)
    family: str = ""
    words: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    check: Check = skip_check
    decode: Check = skip_check


ENDING = "ending"
"""The word with a member's ending in the tar, for foreign tars, where it may differ between samples."""
TABLE_FACTS: dict[str, type[int] | type[float]] = {"table_offset": int, "table_size": int}
"""Offset and size, in bytes, of a member's packet table in the packets file of its shard."""
