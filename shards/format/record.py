"""The record of a finished shard: its checksum and, for each sample, the positions of its members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import xxhash

from maskstream.shards.members.member import ENDING, Int64s, Member

Json = dict[str, Any]

LONG_WORD = 64
"""A word of more characters is stored once in a record, however many members have it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The position of a member in its tar: offset and size of its data in bytes, and its xxh3_128 (16 bytes). The other
    fields are those of `Member`.
    """

    kind: str
    offset: int
    size: int
    digest: bytes
    facts: dict[str, int | float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    lists: dict[str, Int64s] = field(default_factory=dict)

    @classmethod
    def of(cls, member: Member, offset: int) -> Self:
        """The record of a member whose data begin at byte `offset` of the tar."""
        return cls(
            kind=member.kind,
            offset=offset,
            size=len(member.data),
            digest=xxhash.xxh3_128_digest(member.data),
            facts=member.facts,
            words=member.words,
            lists=member.lists,
        )

    def to_json(self) -> Json:
        described = {
            "facts": self.facts,
            "words": {**self.words},
            "lists": {name: values.tolist() for name, values in self.lists.items()},
        }
        place = {"kind": self.kind, "offset": self.offset, "size": self.size, "digest": self.digest.hex()}
        return place | {name: value for name, value in described.items() if value}

    @classmethod
    def from_json(cls, data: Json) -> Self:
        lists = {name: np.asarray(values, dtype=np.int64) for name, values in data.get("lists", {}).items()}
        return cls(**{**data, "digest": bytes.fromhex(data["digest"]), "lists": lists})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One sample of a shard: its members by component, in the order of the tar. The other fields are as in `Sample`."""

    key: str
    label: int
    source: str
    members: dict[str, Placed]
    sums: dict[str, list[float]] = field(default_factory=dict)

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Offset and size of the members, by their ending in the tar."""
        return {m.words.get(ENDING, name): (m.offset, m.size) for name, m in self.members.items()}

    def to_json(self) -> Json:
        return {
            "key": self.key,
            "label": self.label,
            "source": self.source,
            "members": {name: member.to_json() for name, member in self.members.items()},
        } | ({"sums": self.sums} if self.sums else {})

    @classmethod
    def from_json(cls, data: Json) -> Self:
        members = {name: Placed.from_json(member) for name, member in data["members"].items()}
        return cls(**{**data, "members": members})


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One finished shard: file name (`NAME-000000.tar`), sha256 in hex, size in bytes, and its rows in tar order.

    A foreign tar is named by its path relative to the split's folder. It has a packets file in that folder
    (packet_table.py), and `packets_sha256` is its sha256 in hex. In JSON a long word of a member is the number of the
    word in `long_words`.
    """

    name: str
    sha256: str
    size_bytes: int
    rows: tuple[Row, ...]
    packets_sha256: str | None = None

    def to_json(self) -> Json:
        rows = [row.to_json() for row in self.rows]
        long_words: dict[str, int] = {}
        for words in _words(rows):
            for name, word in words.items():
                if len(word) > LONG_WORD:
                    words[name] = long_words.setdefault(word, len(long_words))
        data = {"name": self.name, "sha256": self.sha256, "size_bytes": self.size_bytes, "rows": rows}
        own = {"packets_sha256": self.packets_sha256, "long_words": [*long_words]}
        return data | {name: value for name, value in own.items() if value}

    @classmethod
    def from_json(cls, data: Json) -> ShardRecord:
        for words in _words(data["rows"]):
            words |= {name: data["long_words"][n] for name, n in words.items() if isinstance(n, int)}
        rows = tuple(Row.from_json(row) for row in data["rows"])
        return cls(data["name"], data["sha256"], data["size_bytes"], rows, data.get("packets_sha256"))


def _words(rows: list[Json]) -> Iterator[Json]:
    """The words of all members of some rows in JSON."""
    return (member["words"] for row in rows for member in row["members"].values() if "words" in member)
