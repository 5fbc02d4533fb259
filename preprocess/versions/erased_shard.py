"""Writes a shard again without some of its samples: their members are zero, and all others where they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from maskstream.shards.errors import ShardError
from maskstream.shards.format.data_errors import REMEDY
from maskstream.shards.format.removed import ERASED, erased_tar
from maskstream.shards.format.shard_check import ShardCheck
from maskstream.shards.format.shard_facts import ShardFacts
from maskstream.shards.format.ustar import BLOCK_BYTES, CHUNK_BYTES, HashedReader
from maskstream.shards.format.verify import SplitCheck
from maskstream.shards.format.writer import HashedStream, member_header
from maskstream.shards.stores.base import stream
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.output import Output


@dataclass(frozen=True, slots=True)
class _Edit:
    """Bytes that replace those of a tar from `begin` on: a header, and `zeros` zeros after it."""

    begin: int
    header: bytes
    zeros: int

    @property
    def end(self) -> int:
        return self.begin + len(self.header) + self.zeros


def erased_shard(output: Output, check: SplitCheck, number: int, rows: Sequence[int], version: int) -> ShardFacts:
    """Write shard `number` without the samples `rows` (in the manifest), under the name of `version`, with its idx and
    sums; returns what the manifest says of it.

    Raises ShardError if the shard is damaged.
    """
    facts = check.shards[number]
    name = erased_tar(facts.name, version)
    edits = sorted(_edits(check, rows), key=lambda edit: edit.begin)
    whole = check.shard(number)
    with stream(output.store, facts.name) as file, output.writing(name) as written:
        reader, hashed = HashedReader(file, lambda size_bytes: None), HashedStream(written)
        for edit in edits:
            _copy(reader, hashed, edit.begin)
            hashed.write(edit.header)
            _write_zeros(hashed, edit.zeros)
            for _ in reader.chunks(edit.end - reader.position):
                pass
        _copy(reader, hashed, facts.size_bytes)
        if (reader.position, reader.sha256.hexdigest()) != (facts.size_bytes, facts.sha256):
            raise ShardError(f"{output.location}/{facts.name} is not what was written; {REMEDY}, then erase")
    kept = replace(whole, rows=whole.rows[[row not in rows for row in whole.rows.tolist()]])
    stem = name.removesuffix(".tar")
    output.publish(f"{stem}.idx", _index(kept))
    output.publish(f"{stem}{SUMS}", hashed.sums.digest())
    first = facts.written or (facts.name, facts.sha256)
    return replace(facts, name=name, sha256=hashed.sha256.hexdigest(), written=first)


def _index(check: ShardCheck) -> bytes:
    return check.index.encode("ascii")


def _edits(check: SplitCheck, rows: Sequence[int]) -> Iterator[_Edit]:
    for row in rows:
        for component in check.manifest.components.values():
            if offset := int(component.offset[row]):
                size = int(component.size[row])
                yield _Edit(offset - BLOCK_BYTES, member_header(ERASED, size), size)


def _copy(reader: HashedReader, to: HashedStream, end: int) -> None:
    for chunk in reader.chunks(end - reader.position):
        to.write(chunk)


def _write_zeros(to: HashedStream, size: int) -> None:
    zeros = bytes(min(size, CHUNK_BYTES))
    while size > 0:
        to.write(zeros[:size])
        size -= len(zeros[:size])
