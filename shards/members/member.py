"""A member of a sample with what is known of it, and the kinds that members have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """The bytes of a member and what a loader must know of it before it reads a byte.

    kind: the name of a `Kind`. facts: numbers. words: short texts of which there are few, such as a codec. lists: int64
    (n,) each. All three become columns of manifest.parquet. table: of a member that others wrote, its entry in the file
    of packets of its shard.
    """

    kind: str
    data: bytes = field(repr=False)
    facts: dict[str, int | float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    lists: dict[str, Int64s] = field(default_factory=dict)
    table: bytes = field(default=b"", repr=False)


Check = Callable[[Member], Iterator[str]]
"""Yields what is wrong with a member."""


def no_problems(member: Member) -> Iterator[str]:
    """The check of a kind of which only the checksum is compared."""
    yield from ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of member: the facts (int or float), words and lists that it may have, and its checks.

    check: of the member's tables and headers. decode: of all that is in it, which takes as long as decoding does.
    """

    name: str
    facts: Mapping[str, type[int] | type[float]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    check: Check = no_problems
    decode: Check = no_problems


ENDING = "ending"
"""The word that says which member of a sample is meant, where tars that others wrote have another in each sample."""
TABLE_FACTS: dict[str, type[int] | type[float]] = {"table_offset": int, "table_size": int}
"""Where the entry of a member lies in the file of packets of its shard, in bytes."""
