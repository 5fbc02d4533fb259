"""What one process does: index one tar, and write its file of packets beside the manifest."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ...shards.errors import ShardError
from ...shards.format.record import Row, ShardRecord
from ...shards.format.sample import Reject
from ...shards.format.ustar import CHUNK_BYTES, HashedReader
from ...shards.media.packet_table import beside, packets_path
from ...shards.stores.block_sums import SUMS, write_sums
from ...shards.stores.publish import publishing
from ..encode.reject import RejectError
from ..executors.base import Report
from .groups import Group, groups
from .indexer import INDEXERS
from .labels import Label, label_of


@dataclass(frozen=True, kw_only=True, slots=True)
class TarTask:
    """The tar at `out / name`, what it is indexed as, and whether every entry of its videos is decoded."""

    out: Path
    name: str
    modality: str
    check: bool

    @property
    def units(self) -> int:
        """A task's progress is counted in tars."""
        return 1


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedTar:
    """The record of a task: a shard whose rows still have no labels, one label per row, the rejects, and the time at
    which the tar was last written before it was read, in ns.
    """

    shard: ShardRecord
    labels: tuple[Label, ...]
    rejects: tuple[Reject, ...]
    modified_ns: int

    def to_json(self) -> dict[str, Any]:
        rejects = [asdict(reject) for reject in self.rejects]
        facts = {"labels": self.labels, "rejects": rejects, "modified_ns": self.modified_ns}
        return {"shard": self.shard.to_json(), **facts}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> IndexedTar:
        return cls(
            shard=ShardRecord.from_json(data["shard"]),
            labels=tuple(data["labels"]),
            rejects=tuple(Reject(**reject) for reject in data["rejects"]),
            modified_ns=data["modified_ns"],
        )

    def stands(self, folder: Path) -> bool:
        """Whether the tar is the one that was read, and its packets and sums are in the folder."""
        name = self.shard.name
        try:
            status = (folder / name).stat()
        except OSError:
            return False
        beside_it = packets_path(folder, name).is_file() and beside(folder, name, SUMS).is_file()
        return beside_it and (status.st_size, status.st_mtime_ns) == (self.shard.size_bytes, self.modified_ns)


@dataclass(slots=True)
class _Found:
    """What has been found in a tar so far."""

    rows: dict[str, Row] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


def index_tar(task: TarTask, report: Report) -> IndexedTar:
    """Read the tar once; `report` gets each key before it is worked on.

    ShardError where the tar cannot be opened or read.
    """
    path = task.out / task.name
    found = _Found()
    try:
        with path.open("rb") as file, publishing(packets_path(task.out, task.name)) as packets:
            modified_ns = os.fstat(file.fileno()).st_mtime_ns
            reader = HashedReader(file, lambda size_bytes: None)
            for group in groups(reader, INDEXERS[task.modality].components):
                report(group.key)
                _take(task, group, found, packets)
            while reader.read(CHUNK_BYTES):
                pass
    except OSError as error:
        raise ShardError(f"{path} cannot be read ({error.strerror or error})") from error
    write_sums(beside(task.out, task.name, SUMS), reader.sums)
    with packets_path(task.out, task.name).open("rb") as file:
        packets_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    rows = tuple(found.rows.values())
    shard = ShardRecord(task.name, reader.sha256.hexdigest(), reader.position, rows, packets_sha256)
    return IndexedTar(shard=shard, labels=tuple(found.labels), rejects=tuple(found.rejects), modified_ns=modified_ns)


def _take(task: TarTask, group: Group, found: _Found, packets: BinaryIO) -> None:
    """Make a row of the group and its packets, or a reject."""
    source = f"{task.name}:{group.key}" if group.key else task.name
    try:
        if group.problem:
            raise RejectError("tar", group.problem)
        if group.key in found.keys:
            raise RejectError("tar", "its key came before in this tar; members of a sample must stand together")
        found.keys.add(group.key)
        modality = INDEXERS[task.modality]
        component = next((name for name in modality.components if name in group.data), None)
        if component is None:
            among = ", ".join(modality.components)
            raise RejectError("open", f"has no {modality.noun} (none of {among}), only {_short(group)}")
        if modality.noun in group.components:
            raise RejectError("tar", f"has a member with the ending {modality.noun!r}, as what is indexed is called")
        label = label_of(group.data)
        indexed = modality.index(group.data[component], component, task.check)
    except RejectError as error:
        found.rejects.append(Reject(source=source, stage=error.stage, reason=error.reason))
        return
    found.rows[group.key] = indexed.row(group.key, source, group.components, component, packets.tell())
    packets.write(indexed.member.table)
    found.labels.append(label)


def _short(group: Group) -> str:
    names = [*group.components]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
