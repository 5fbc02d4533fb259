"""What is known about a finished shard: its checksum and, for each sample, where its bytes lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .sample import VideoIndex

Json = dict[str, Any]

_VIDEO_SCALARS = ("codec", "fps", "n_frames", "width", "height", "header_size")
_VIDEO_ARRAYS = ("first_frame", "offset", "size", "lead")


@dataclass(frozen=True, slots=True)
class Row:
    """One sample of a shard.

    `components` maps a name to (offset, size, digest): offset of the member's data in the tar and size, in bytes, and
    the 16 bytes of its xxh3_128; in the order of the tar. `video`, `facts` and `sums` as in `Sample`.
    """

    key: str
    label: int
    source: str
    components: dict[str, tuple[int, int, bytes]]
    video: VideoIndex | None = None
    facts: dict[str, int | float] = field(default_factory=dict)
    sums: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> Json:
        return {
            "key": self.key,
            "label": self.label,
            "source": self.source,
            "components": {
                name: [offset, size, digest.hex()] for name, (offset, size, digest) in self.components.items()
            },
            "video": None if self.video is None else _video_to_json(self.video),
            "facts": self.facts,
        } | ({"sums": self.sums} if self.sums else {})

    @classmethod
    def from_json(cls, data: Json) -> Row:
        components = {
            name: (offset, size, bytes.fromhex(digest)) for name, (offset, size, digest) in data["components"].items()
        }
        video = None if data["video"] is None else _video_from_json(data["video"])
        return cls(
            data["key"], data["label"], data["source"], components, video, data.get("facts", {}), data.get("sums", {})
        )


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One finished shard: file name (`NAME-000000.tar`), sha256 in hex, size in bytes, and its rows in tar order.

    A tar that others wrote is named by its path from the split's folder, and has a file of packets beside the manifest
    (packet_table.py), whose sha256 in hex is `packets_sha256`.
    """

    name: str
    sha256: str
    size_bytes: int
    rows: tuple[Row, ...]
    packets_sha256: str | None = None

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "rows": [row.to_json() for row in self.rows],
        } | ({} if self.packets_sha256 is None else {"packets_sha256": self.packets_sha256})

    @classmethod
    def from_json(cls, data: Json) -> ShardRecord:
        rows = tuple(Row.from_json(row) for row in data["rows"])
        return cls(data["name"], data["sha256"], data["size_bytes"], rows, data.get("packets_sha256"))


def _video_to_json(video: VideoIndex) -> Json:
    scalars = {name: getattr(video, name) for name in _VIDEO_SCALARS}
    table = {} if video.packets is None else {"table_offset": video.table_offset, "packets": video.packets.tolist()}
    return scalars | {name: getattr(video, name).tolist() for name in _VIDEO_ARRAYS} | table


def _video_from_json(data: Json) -> VideoIndex:
    fields: Json = {name: data[name] for name in _VIDEO_SCALARS}
    fields |= {name: np.asarray(data[name], dtype=np.int64) for name in _VIDEO_ARRAYS}
    if "packets" in data:
        fields |= {"table_offset": data["table_offset"], "packets": np.asarray(data["packets"], dtype=np.int64)}
    return VideoIndex(**fields)
