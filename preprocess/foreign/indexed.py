"""What indexing makes of one member: numbers for the manifest, and its entry in the file of packets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...shards.format.record import Row
from ...shards.format.sample import VideoIndex
from ...shards.members.sound_member import SOUND_TABLE


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexed:
    """`table` is the entry; `video` counts table_offset from its first byte. facts and sums as in `Sample`."""

    table: bytes
    video: VideoIndex | None = None
    facts: dict[str, int | float] = field(default_factory=dict)
    sums: dict[str, list[float]] = field(default_factory=dict)

    def row(self, key: str, source: str, components: dict[str, tuple[int, int, bytes]], offset: int) -> Row:
        """The row of the sample, still without a label, where the entry stands at `offset` of the file."""
        video = None if self.video is None else replace(self.video, table_offset=offset)
        facts = self.facts if video is not None or not self.table else {**self.facts, SOUND_TABLE: offset}
        return Row(key, -1, source, components, video, facts, self.sums)
