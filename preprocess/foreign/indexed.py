"""The result of indexing one member: its kind, its columns of the manifest, and its table in the packets file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from maskstream.shards.format.record import Placed, Row
from maskstream.shards.members.member import ENDING, Member
from maskstream.shards.members.text import BYTES, JSON, TEXT

_KINDS = {"json": JSON.name, "txt": TEXT.name, "cls": TEXT.name}
"""The kinds of members that are not indexed, by their component; all others are bytes."""

Span = tuple[int, int, bytes]
"""Offset and size of a member in the tar, and its xxh3_128."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexed:
    """The member with its packet table; `sums` as in `Sample`."""

    member: Member
    sums: dict[str, list[float]] = field(default_factory=dict)

    def row(self, key: str, source: str, spans: dict[str, Span], ending: str, offset: int) -> Row:
        """The row of the sample, without a label; its table is at `offset` of the packets file.

        The member `ending` becomes the component named after its kind (`video`), whatever its container.
        """
        own = self.member
        members: dict[str, Placed] = {}
        for name, (begin, size, digest) in spans.items():
            place = Placed(kind=_KINDS.get(name, BYTES.name), offset=begin, size=size, digest=digest)
            if name != ending:
                members[name] = place
                continue
            facts = {**own.facts, "table_offset": offset, "table_size": len(own.table)}
            words = {**own.words, ENDING: ending}
            members[own.kind] = replace(place, kind=own.kind, facts=facts, words=words, lists=own.lists)
        return Row(key=key, label=-1, source=source, members=members, sums=self.sums)
