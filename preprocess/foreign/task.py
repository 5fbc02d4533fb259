"""The work of one index task: index a tar, and write its packets file in the folder of the manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Self

from ...shards.errors import OutageError
from ...shards.format.record import Row, ShardRecord
from ...shards.format.sample import Reject
from ...shards.format.ustar import CHUNK_BYTES, HashedReader
from ...shards.media.packet_table import PACKETS, packets_path, sidecar
from ...shards.stores.block_sums import SUMS_OF, write_sums
from ...shards.stores.output import Sizes
from ...shards.stores.publish import publishing
from ..blames import NO_BLAMES, Blames
from ..encode.reject import RejectError
from ..executors.base import Again, Report
from ..limits import DEFAULT, Limits, limited
from ..machine import check_machine
from ..retry import PAUSES_S, retried
from .groups import Group, groups
from .indexer import INDEXERS
from .labels import Label, label_of


@dataclass(frozen=True, kw_only=True, slots=True)
class TarTask:
    """The tar at `out / name`, its modality, whether every entry point of its videos is decoded, what a sample may
    cost, and the pauses in seconds between attempts to read the tar.
    """

    out: Path
    name: str
    modality: str
    check: bool
    limits: Limits = DEFAULT
    pauses_s: tuple[float, ...] = PAUSES_S
    blames: Blames = NO_BLAMES

    @property
    def units(self) -> int:
        """One tar."""
        return 1

    def blamed(self, unit: str, reason: str) -> Self:
        """The same task after the sample `unit` ended a process; if it did so twice, it is a reject."""
        return replace(self, blames=self.blames.plus(unit, reason))


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedTar:
    """The record of an index task: a shard whose rows have no labels yet, the label of each row, the rejects, and the
    tar's modification time in ns when it was read.
    """

    shard: ShardRecord
    labels: tuple[Label, ...]
    rejects: tuple[Reject, ...]
    modified_ns: int

    def to_parts(self) -> list[dict[str, Any]]:
        rejects = [asdict(reject) for reject in self.rejects]
        facts = {"labels": self.labels, "rejects": rejects, "modified_ns": self.modified_ns}
        return [{"shard": self.shard.to_json(), **facts}]

    @classmethod
    def from_parts(cls, parts: Sequence[dict[str, Any]]) -> IndexedTar:
        [data] = parts
        return cls(
            shard=ShardRecord.from_json(data["shard"]),
            labels=tuple(data["labels"]),
            rejects=tuple(Reject(**reject) for reject in data["rejects"]),
            modified_ns=data["modified_ns"],
        )

    def stands(self, sizes: Sizes) -> bool:
        """Whether the tar is unchanged, and its packets file and checksums exist. An index is in a local folder."""
        folder = Path(sizes.location)
        name = self.shard.name
        try:
            status = (folder / name).stat()
        except OSError:
            return False
        beside = (PACKETS, *SUMS_OF.values())
        has_sidecars = all(sidecar(folder, name, suffix).is_file() for suffix in beside)
        return has_sidecars and (status.st_size, status.st_mtime_ns) == (self.shard.size_bytes, self.modified_ns)


@dataclass(slots=True)
class _Found:
    """The contents of a tar, as far as it has been read."""

    rows: dict[str, Row] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


def index_tar(task: TarTask, report: Report) -> IndexedTar:
    """Read the tar once and index it. Calls `report` with each key. Raises ShardError if it is no whole tar, and
    OutageError if it cannot be read, also after the task's last pause, or if the machine has too little left to judge.
    """
    return retried(
        f"the tar {task.name!r}", lambda: _indexed(task, report), task.pauses_s, lambda why: report(Again(why))
    )


def _indexed(task: TarTask, report: Report) -> IndexedTar:
    path = task.out / task.name
    found = _Found()
    try:
        with path.open("rb") as file, publishing(packets_path(task.out, task.name)) as packets:
            modified_ns = os.fstat(file.fileno()).st_mtime_ns
            reader = HashedReader(file, lambda size_bytes: None)
            for group in groups(reader, INDEXERS[task.modality].components):
                report(group.key)
                _take(task, group, found, packets, report)
            while reader.read(CHUNK_BYTES):
                pass
    except OSError as error:
        raise OutageError(f"{path} cannot be read ({error.strerror or error})") from error
    write_sums(sidecar(task.out, task.name, SUMS_OF[".tar"]), reader.sums)
    with packets_path(task.out, task.name).open("rb") as file:
        written = HashedReader(file, lambda size_bytes: None)
        while written.read(CHUNK_BYTES):
            pass
    write_sums(sidecar(task.out, task.name, SUMS_OF[PACKETS]), written.sums)
    packets_sha256 = written.sha256.hexdigest()
    rows = tuple(found.rows.values())
    shard = ShardRecord(task.name, reader.sha256.hexdigest(), reader.position, rows, packets_sha256)
    return IndexedTar(shard=shard, labels=tuple(found.labels), rejects=tuple(found.rejects), modified_ns=modified_ns)


def _take(task: TarTask, group: Group, found: _Found, packets: BinaryIO, report: Report) -> None:
    """Index a group: add its row and write its packet table, or add a reject."""
    source = f"{task.name}:{group.key}" if group.key else task.name
    try:
        if group.problem:
            raise RejectError("tar", group.problem)
        if group.key in found.keys:
            raise RejectError("tar", "its key occurs earlier in this tar; the members of a sample must be consecutive")
        found.keys.add(group.key)
        indexer = INDEXERS[task.modality]
        component = next((name for name in indexer.components if name in group.data), None)
        if component is None:
            legal = ", ".join(indexer.components)
            raise RejectError("open", f"has no {indexer.noun} (none of {legal}), only {_short(group)}")
        if indexer.noun in group.components:
            raise RejectError("tar", f"has a member {indexer.noun!r}; this name is reserved, rename the member")
        label = label_of(group.data)
        task.blames.check(source)
        try:
            with limited(source, task.limits, report):
                indexed = indexer.index(group.data[component], component, task.check)
        finally:
            report(source)
    except RejectError as error:
        check_machine(error)
        found.rejects.append(Reject(source=source, stage=error.stage, reason=error.reason))
        return
    found.rows[group.key] = indexed.row(group.key, source, group.components, component, packets.tell())
    packets.write(indexed.member.table)
    found.labels.append(label)


def _short(group: Group) -> str:
    names = [*group.components]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
