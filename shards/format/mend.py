"""Writes the idx and the sums of a tar again, if the tar itself is what was written."""

from __future__ import annotations

from pathlib import PurePosixPath

from maskstream.shards.errors import OutageError, StoreError
from maskstream.shards.stores.base import CHUNK_BYTES, stream
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.output import Output

from .record import ShardRecord
from .ustar import HashedReader, idx_text


def mended(output: Output, shard: ShardRecord) -> list[str] | None:
    """`mended_files` of a shard, from its record."""
    index = idx_text((row.key, row.spans) for row in shard.rows)
    return mended_files(output, shard.name, shard.size_bytes, shard.sha256, index)


def mended_files(output: Output, name: str, size_bytes: int, sha256: str, index: str) -> list[str] | None:
    """Read a tar, and write its idx and sums where they are missing or differ; returns the names of what was written.

    index: the text of the idx. Returns None if the tar is missing or has other bytes, so nothing can be made of it.
    """
    try:
        with stream(output.store, name) as file:
            reader = HashedReader(file, lambda size_bytes: None)
            while reader.read(CHUNK_BYTES):
                pass
    except OutageError:
        raise
    except (StoreError, OSError):
        return None
    if (reader.position, reader.sha256.hexdigest()) != (size_bytes, sha256):
        return None
    stem = PurePosixPath(name).stem
    wanted = {f"{stem}.idx": index.encode("ascii"), f"{stem}{SUMS}": reader.sums.digest()}
    wrong = [name for name, data in wanted.items() if _contents(output, name, len(data)) != data]
    for name in wrong:
        output.publish(name, wanted[name])
    return wrong


def _contents(output: Output, name: str, most: int) -> bytes | None:
    """What a file holds; None if that is more than `most` bytes, or it cannot be read."""
    try:
        return output.whole(name, most)
    except OutageError:
        raise
    except StoreError:
        return None
