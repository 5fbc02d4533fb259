"""Checks one shard against the manifest in a single pass over its bytes."""

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import xxhash

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import MissingFileError, OutageError, ShardError, StoreError
from maskstream.shards.media.video_index import PACKETS, name_packets_file, name_sidecar
from maskstream.shards.members.kinds import KINDS
from maskstream.shards.members.member import skip_check
from maskstream.shards.members.text import BYTES
from maskstream.shards.stores.base import Store, stream
from maskstream.shards.stores.block_sums import SUMS_OF
from maskstream.shards.stores.folders import get_folder_name

from .component import Component
from .data_errors import described
from .manifest import Manifest
from .rejects import ERASED
from .ustar import CHUNK_BYTES, HashedReader, format_idx, format_indexed_name, walk


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardCheck:
    """Check of the shard `name`.

    rows: Numbers of its samples in the manifest, int64 (n,). declared: Its entry in dataset.json, empty if there is
    none.
    """

    manifest: Manifest
    name: str
    rows: Int64s
    declared: Mapping[str, Any]
    decode: bool
    advance: Callable[[int], None]

    def problems(self) -> Iterator[str]:
        """Return the problems of the shard, without its name. All readable parts are checked."""
        rows = self.rows.tolist()
        keys = self.manifest.keys(self.rows)
        spans = [self._spans(row) for row in rows]
        yield from _find_idx_problems(self.manifest.store, self._name_beside(".idx"), self.index)
        yield from self._find_table_problems()

        expected = {
            f"{key}.{name}": (row, key, name)
            for row, key, names in zip(rows, keys, spans, strict=True)
            for name in names
        }
        try:
            with stream(self.manifest.store, self.name) as file:
                reader = HashedReader(file, self.advance)
                yield from self._find_tar_problems(reader, expected)
                while reader.read(CHUNK_BYTES):
                    pass
        except MissingFileError:
            yield "is missing"
            return
        except StoreError as error:
            yield f"cannot be read ({error})"
            return
        for _, key, name in expected.values():
            yield f"sample {key!r}, component {name!r}: is not in the tar"
        yield from self._find_checksum_problems(reader)
        if reader.sha256.hexdigest() == self.declared.get("sha256"):
            yield from self._find_sums_problems(SUMS_OF[".tar"], reader)

    @property
    def index(self) -> str:
        """Return the expected contents of the idx."""
        spans = [self._spans(row) for row in self.rows.tolist()]
        return format_idx(zip(self.manifest.keys(self.rows), spans, strict=True))

    def _spans(self, row: int) -> dict[str, tuple[int, int]]:
        """Return offset and size of a sample's members, by their ending, in the order of the tar."""
        spans = {}
        for component in self.manifest.components.values():
            if offset := int(component.offset[row]):
                spans[component.ending(row)] = (offset, int(component.size[row]))
        return dict(sorted(spans.items(), key=lambda item: item[1]))

    def _component(self, row: int, ending: str) -> Component:
        """Return the component of a sample's member with this ending."""
        own = self.manifest.components.values()
        return next(component for component in own if component.offset[row] and component.ending(row) == ending)

    def _find_tar_problems(self, reader: HashedReader, expected: dict[str, tuple[int, str, str]]) -> Iterator[str]:
        """Walk the tar by its headers and remove each member found from `expected`."""
        try:
            for member in walk(reader, foreign=self._foreign):
                row, key, name = expected.pop(format_indexed_name(member.name), (-1, "", ""))
                if row < 0 and self._foreign:
                    continue  # a reject; the shard's sha256 covers it
                if row < 0 and member.name == ERASED and self.declared.get("written") is not None:
                    if any(chunk.strip(b"\0") for chunk in reader.chunks(member.size)):
                        yield f"the erased member at byte {member.offset_data} is not zero"
                elif row < 0:
                    yield f"member {member.name!r} is not in the manifest or occurs twice"
                elif not member.isreg():
                    yield f"sample {key!r}, component {name!r}: is not a regular file in the tar"
                else:
                    for problem in self._find_member_problems(row, name, member, reader):
                        yield f"sample {key!r}, component {name!r}: {problem}"
        except ShardError as error:
            yield str(error)

    def _find_member_problems(
        self, row: int, name: str, member: tarfile.TarInfo, reader: HashedReader
    ) -> Iterator[str]:
        component = self._component(row, name)
        if member.offset_data != component.offset[row]:
            yield f"is at byte {member.offset_data} of the tar, not {component.offset[row]}"
        if member.size != component.size[row]:
            yield f"has {member.size} bytes, not {component.size[row]}"
            return
        kind = KINDS.get(component.kind, BYTES)
        looks = kind.check is not skip_check or (self.decode and kind.decode is not skip_check)
        body = reader.read(member.size) if looks else b""
        digest = xxhash.xxh3_128(body)
        for chunk in reader.chunks(0 if looks else member.size):
            digest.update(chunk)
        if digest.digest() != component.digest[row].tobytes():
            yield "its bytes differ from those that were written (xxh3_128)"
        try:
            if looks and (table := self._table(component, row)) is not None:
                whole = component.described(row, body, table)
                yield from kind.check(whole)
                yield from kind.decode(whole) if self.decode else ()
        except OutageError:
            raise
        except KeyError as error:
            yield f"the manifest lacks its {error}, which the kind {kind.name!r} needs"
        except Exception as error:
            yield f"cannot be checked ({described(error)})"

    def _table(self, component: Component, row: int) -> bytes | None:
        """Return the packet table of a member, b"" if it has none, and only the part of it that lies within the packets
        file. None if that file cannot be read, which another check reports.
        """
        if "table_size" not in component.facts:
            return b""
        offset, size = (int(component.facts[name][row]) for name in ("table_offset", "table_size"))
        store, name = self.manifest.store, name_packets_file(self.name)
        try:
            end = store.size(name)
            begin = min(max(offset, 0), end)
            return store.unchecked(name, begin, min(max(size, 0), end - begin))
        except StoreError:
            return None

    @property
    def _foreign(self) -> bool:
        """True if another program wrote the tar."""
        return self.declared.get("packets_sha256") is not None

    def _name_beside(self, suffix: str) -> str:
        """Return the name of a file that belongs to the shard; for a foreign tar it is in the split's folder."""
        name, folder = name_sidecar(self.name, suffix), "" if self._foreign else get_folder_name(self.name)
        return f"{folder}/{name}" if folder else name

    def _find_table_problems(self) -> Iterator[str]:
        name, expected = name_packets_file(self.name), self.declared.get("packets_sha256")
        if expected is None:
            return
        try:
            with stream(self.manifest.store, name) as file:
                reader = HashedReader(file, lambda size_bytes: None)
                while reader.read(CHUNK_BYTES):
                    pass
        except StoreError as error:
            yield f"its packets file cannot be read ({error})"
            return
        if reader.sha256.hexdigest() != expected:
            yield f"the sha256 of its packets file {name} differs from dataset.json"
        else:
            yield from self._find_sums_problems(SUMS_OF[PACKETS], reader)

    def _find_checksum_problems(self, reader: HashedReader) -> Iterator[str]:
        if not self.declared:
            return
        if reader.position != self.declared["size_bytes"]:
            yield f"has {reader.position} bytes, not {self.declared['size_bytes']}"
        if reader.sha256.hexdigest() != self.declared["sha256"]:
            yield "its sha256 differs from dataset.json"

    def _find_sums_problems(self, suffix: str, reader: HashedReader) -> Iterator[str]:
        name = self._name_beside(suffix)
        expected = reader.sums.digest()
        try:
            found = self.manifest.store.whole(name, len(expected))
        except MissingFileError:
            yield f"its sums file {name} is missing, so loaders cannot verify their reads"
            return
        except StoreError as error:
            yield f"its sums file cannot be read ({error})"
            return
        if found != expected:
            yield f"its sums file {name} differs from the sums of its blocks"


def _find_idx_problems(store: Store, name: str, expected: str) -> Iterator[str]:
    try:
        found = store.whole(name, 2 * len(expected.encode()))
    except MissingFileError:
        yield f"its index {name} is missing"
        return
    except StoreError as error:
        yield f"its index cannot be read ({error})"
        return
    if found != expected.encode():
        ours, theirs = expected.splitlines(), found.decode(errors="replace").splitlines()
        line = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        yield f"its index {name} differs from the manifest from line {line + 1} on"
