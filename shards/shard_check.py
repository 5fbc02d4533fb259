"""One shard against the manifest: a single pass over its bytes finds what differs."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np
import xxhash

from .idx import idx_text
from .manifest import Manifest
from .video_check import box_problems, decode_problems, table_problems

_CHUNK_BYTES = 1 << 20


class _HashedReader:
    """Passes a file's bytes on in their order, keeping their sha256 and number, and says each time how many."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._file = file
        self._advance = advance
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        self.size_bytes += len(data)
        self._advance(len(data))
        return data


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardCheck:
    """The check of shard `number` of a manifest whose video component is `video` (None in splits without video)."""

    manifest: Manifest
    number: int
    video: str | None
    decode: bool
    advance: Callable[[int], None]

    def problems(self) -> Iterator[str]:
        """What is wrong, without the shard's name; everything is checked that can still be read."""
        path = self.manifest.folder / self.manifest.shard_names[self.number]
        rows = np.flatnonzero(self.manifest.shard == self.number)
        keys = self.manifest.keys(rows)
        spans = [self._spans(row) for row in rows.tolist()]
        yield from _idx_problems(path.with_suffix(".idx"), idx_text(zip(keys, spans, strict=True)))

        expected = {
            f"{key}.{name}": (row, key, name)
            for row, key, names in zip(rows.tolist(), keys, spans, strict=True)
            for name in names
        }
        try:
            with path.open("rb") as file:
                reader = _HashedReader(file, self.advance)
                yield from self._tar_problems(reader, expected)
                while reader.read(_CHUNK_BYTES):
                    pass
        except OSError as error:
            yield f"cannot be read ({error.strerror or error})"
            return
        for _, key, name in expected.values():
            yield f"sample {key!r}, component {name!r}: is not in the tar"
        yield from self._checksum_problems(path.name, reader)

    def _spans(self, row: int) -> dict[str, tuple[int, int]]:
        """The components of a sample in the order of the tar."""
        spans = {}
        for name in self.manifest.component_names:
            component = self.manifest.component(name)
            if offset := int(component.offset[row]):
                spans[name] = (offset, int(component.size[row]))
        return dict(sorted(spans.items(), key=lambda item: item[1]))

    def _tar_problems(self, reader: _HashedReader, expected: dict[str, tuple[int, str, str]]) -> Iterator[str]:
        """Walk the tar as its headers say, taking each member that is found out of `expected`."""
        try:
            # bufsize: the stream reads whole blocks of this many bytes, so that hashing is not done in crumbs.
            with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r|", bufsize=_CHUNK_BYTES) as tar:
                for member in tar:
                    if member.isdir():
                        continue
                    row, key, name = expected.pop(member.name, (-1, "", ""))
                    if row < 0:
                        yield f"member {member.name!r} is not in the manifest, or comes a second time"
                    elif not member.isreg() or (data := tar.extractfile(member)) is None:
                        yield f"sample {key!r}, component {name!r}: is not a regular file in the tar"
                    else:
                        for problem in self._member_problems(row, name, member, data):
                            yield f"sample {key!r}, component {name!r}: {problem}"
        except (tarfile.TarError, EOFError, ValueError) as error:
            yield f"is not a tar from about byte {reader.size_bytes} on ({error})"

    def _member_problems(self, row: int, name: str, member: tarfile.TarInfo, data: IO[bytes]) -> Iterator[str]:
        component = self.manifest.component(name)
        if member.offset_data != component.offset[row]:
            yield f"is at byte {member.offset_data} of the tar, not {component.offset[row]}"
        if member.size != component.size[row]:
            yield f"has {member.size} bytes, not {component.size[row]}"
            return
        columns = self.manifest.video_columns
        is_video = columns is not None and name == self.video and columns.codec[row] >= 0
        body = data.read() if is_video else b""
        digest = xxhash.xxh3_128(body)
        while chunk := data.read(_CHUNK_BYTES):
            digest.update(chunk)
        if digest.digest() != component.digest[row].tobytes():
            yield "its bytes are not those that were written (xxh3_128 differs)"
        if is_video:
            index = self.manifest.video(row)
            yield from table_problems(index, len(body))
            yield from box_problems(index, body)
            if self.decode:
                yield from decode_problems(index, body)

    def _checksum_problems(self, name: str, reader: _HashedReader) -> Iterator[str]:
        promised = next((shard for shard in self.manifest.info["shards"] if shard["name"] == name), None)
        if promised is None:
            return
        if reader.size_bytes != promised["size_bytes"]:
            yield f"has {reader.size_bytes} bytes, not {promised['size_bytes']}"
        if reader.sha256.hexdigest() != promised["sha256"]:
            yield "its sha256 is not the one in dataset.json"


def _idx_problems(path: Path, expected: str) -> Iterator[str]:
    try:
        found = path.read_bytes()
    except OSError as error:
        yield f"its index {path.name} cannot be read ({error.strerror or error})"
        return
    if found != expected.encode():
        ours, theirs = expected.splitlines(), found.decode(errors="replace").splitlines()
        line = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        yield f"its index {path.name} is not what the manifest says, from line {line + 1} on"
