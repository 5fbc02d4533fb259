"""Write samples into a tar with deterministic headers, compute its checksums, and publish it atomically.

`repair_files` and `mended` rewrite the index and block sums of an existing tar.
"""

import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import BinaryIO

from maskstream.shards.errors import OutageError, ShardError, StoreError
from maskstream.shards.stores.base import CHUNK_BYTES, stream
from maskstream.shards.stores.block_sums import SUMS, BlockSums
from maskstream.shards.stores.output import Location, Output, open_output, split_folder_and_name

from .records import Placed, Row, ShardRecord
from .sample import Sample
from .ustar import BLOCK_BYTES, HashedReader, format_idx

__all__ = ["HashedStream", "Row", "ShardRecord", "member_header", "write_shard"]

MAX_MEMBER_BYTES = 8 * 2**30 - 1
"""Largest size in a USTAR header. Larger members need extensions that DALI's reader does not support."""


class HashedStream:
    """Writes bytes to a stream, and computes their sha256, block sums and size."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.sums = BlockSums()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.sums.update(data)
        self.size_bytes += len(data)
        return self._stream.write(data)


def write_shard(path: Location, samples: Iterable[Sample], sha256: str | None = None) -> ShardRecord:
    """Write samples in order into a USTAR tar, with its `.idx` and `.sums` files.

    The bytes depend only on the samples: members `{key}.{component}` in the order of `Sample.members`, mode 0644, mtime
    0, uid and gid 0, no user and group names. After an exception, including one raised by `samples`, nothing is
    published.

    Args:
        path: Path or URL of the tar, ending in `.tar`.
        samples: Samples in the order of writing.
        sha256: Expected checksum in hex, if the tar is to replace one with the same bytes.

    Returns:
        The record of the shard, with the positions of all members.

    Raises:
        ValueError: The path does not end in .tar.
        ShardError: There are no samples, a key is repeated or has an empty part between slashes, a member is larger
            than 8 GiB, or the checksum differs from `sha256`.
    """
    folder, name = split_folder_and_name(path)
    if PurePosixPath(name).suffix != ".tar":
        raise ValueError(f"the shard path {str(path)!r} must end in .tar")
    output = open_output(folder)
    rows: dict[str, Row] = {}
    with output.writing(name) as stream:
        hashed = HashedStream(stream)
        for sample in samples:
            _check(name, sample, rows)
            members = {}
            for component, member in sample.members.items():
                hashed.write(member_header(f"{sample.key}.{component}", len(member.data)))
                members[component] = Placed.of(member, hashed.size_bytes)
                hashed.write(member.data)
                hashed.write(bytes(-len(member.data) % BLOCK_BYTES))
            rows[sample.key] = Row(
                key=sample.key, label=sample.label, source=sample.source, members=members, sums=sample.sums
            )
        hashed.write(bytes(2 * BLOCK_BYTES))
        hashed.write(bytes(-hashed.size_bytes % tarfile.RECORDSIZE))
        if not rows:
            raise ShardError(f"{name}: there are no samples to write; a shard needs at least one")
        if sha256 not in (None, hashed.sha256.hexdigest()):
            raise ShardError(
                f"{name}: encoding it again produced different bytes (sha256 {hashed.sha256.hexdigest()}) "
                f"from the original ({sha256}), so it cannot be replaced; rewrite the split with --overwrite"
            )
        index = format_idx((row.key, row.spans) for row in rows.values())
        output.publish(f"{PurePosixPath(name).stem}.idx", index.encode("ascii"))
        output.publish(f"{PurePosixPath(name).stem}{SUMS}", hashed.sums.digest())
    return ShardRecord(name, hashed.sha256.hexdigest(), hashed.size_bytes, tuple(rows.values()))


def member_header(name: str, size_bytes: int) -> bytes:
    """Return the USTAR header of a member, 512 bytes.

    TarInfo's defaults are mtime 0, uid and gid 0, and no user and group names. The name always fits, since a key has at
    most 80 characters and a component at most 19.
    """
    header = tarfile.TarInfo(name)
    header.size, header.mode = size_bytes, 0o644
    return header.tobuf(tarfile.USTAR_FORMAT, "utf-8")


def _check(shard: str, sample: Sample, rows: dict[str, Row]) -> None:
    if sample.key in rows:
        raise ShardError(
            f"{shard}: key {sample.key!r} occurs twice, from {rows[sample.key].source!r} and from {sample.source!r}; "
            "keys must be unique within a split"
        )
    if "" in sample.key.split("/"):
        raise ShardError(f"{shard}: key {sample.key!r} has an empty part between slashes; remove the extra slash")
    for name, member in sample.members.items():
        if len(member.data) > MAX_MEMBER_BYTES:
            raise ShardError(
                f"{shard}: component {name!r} of {sample.key!r} has {len(member.data)} bytes, but the limit "
                f"of a USTAR member is {MAX_MEMBER_BYTES}: split the source into windows"
            )


def mended(output: Output, shard: ShardRecord) -> list[str] | None:
    """Call `repair_files` for a shard, based on its record."""
    index = format_idx((row.key, row.spans) for row in shard.rows)
    return repair_files(output, shard.name, shard.size_bytes, shard.sha256, index)


def repair_files(output: Output, name: str, size_bytes: int, sha256: str, index: str) -> list[str] | None:
    """Read a tar, and rewrite its `.idx` and `.sums` files if they are missing or differ.

    Args:
        output: Output that holds the tar.
        name: Name of the tar.
        size_bytes: Expected size of the tar.
        sha256: Expected checksum of the tar in hex.
        index: Text of the `.idx` file.

    Returns:
        Names of the files that were written; None if the tar is missing or differs, so that they cannot be derived.
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
    wrong = [name for name, data in wanted.items() if _read_contents(output, name, len(data)) != data]
    for name in wrong:
        output.publish(name, wanted[name])
    return wrong


def _read_contents(output: Output, name: str, most: int) -> bytes | None:
    """Return a file's contents; None if it has more than `most` bytes or cannot be read."""
    try:
        return output.whole(name, most)
    except OutageError:
        raise
    except StoreError:
        return None
