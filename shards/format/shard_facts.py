"""What a manifest says of a shard as a whole: its name, the number of its samples, its size and its checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from maskstream.shards.stores.folders import file_of

from .record import ShardRecord

_TYPES: dict[str, type] = {"name": str, "samples": int, "size_bytes": int, "sha256": str}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFacts:
    """A shard as a whole.

    name: of the tar in the folder of its part, or its path from there if the tar is foreign. sha256: in hex, as is
    packets_sha256, that of the packets file of a foreign tar. written: the name and the sha256 that the tar had when it
    was written first, if samples were erased from it since.
    """

    name: str
    samples: int
    size_bytes: int
    sha256: str
    packets_sha256: str | None = None
    written: tuple[str, str] | None = None

    @classmethod
    def of(cls, shard: ShardRecord) -> Self:
        return cls(
            name=shard.name,
            samples=len(shard.rows),
            size_bytes=shard.size_bytes,
            sha256=shard.sha256,
            packets_sha256=shard.packets_sha256,
        )

    def to_json(self) -> dict[str, Any]:
        facts = {"name": self.name, "samples": self.samples, "size_bytes": self.size_bytes, "sha256": self.sha256}
        packets = {} if self.packets_sha256 is None else {"packets_sha256": self.packets_sha256}
        return facts | packets | ({} if self.written is None else {"written": [*self.written]})

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Raises ValueError for what `to_json` does not write."""
        if not isinstance(data, dict) or not all(isinstance(data.get(name), kind) for name, kind in _TYPES.items()):
            raise ValueError(f"a shard is described by {data!r}; it must have {', '.join(_TYPES)}")
        packets = data.get("packets_sha256")
        if not (packets is None or isinstance(packets, str)) or min(data["samples"], data["size_bytes"]) < 0:
            raise ValueError(f"the shard {data['name']!r} has impossible facts: {data}")
        written = data.get("written")
        if written is not None:
            name, sha256 = written
            written = str(name), str(sha256)
        return cls(**{name: data[name] for name in _TYPES}, packets_sha256=packets, written=written)

    def problem_of_name(self, *, foreign: bool) -> str | None:
        """What is wrong with the name: it must be that of a tar, in the folder itself unless it is `foreign`."""
        in_folder = foreign or "/" not in self.name
        if self.name.endswith(".tar") and in_folder and b"\0" not in self.name.encode():
            return None
        legal = "paths of tars" if foreign else "names of tars in the folder itself, such as 'NAME-000000.tar'"
        return f"a shard is named {self.name!r}; legal are {legal}"


FINGERPRINT_DIGITS = 32


def fingerprint_of(shards: Iterable[ShardFacts], *, foreign: bool) -> str:
    """The first digits of a sha256, in hex, of the names and checksums of the shards as they were first written.

    The folder of a shard does not count, but for foreign tars: the same shards merged from other places have the same
    samples.
    """
    digest = hashlib.sha256()
    for shard in shards:
        name, sha256 = shard.written or (shard.name if foreign else file_of(shard.name), shard.sha256)
        digest.update(f"{name} {sha256}\n".encode())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]
