"""The work of one index task: index a tar, and write its packets file to the folder of the manifest.

Members are grouped into samples as in WebDataset: consecutive members with the same key. The indexers define which
modalities can be indexed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import xxhash

from maskstream.preprocess.encode.image.encoder import IMAGE_SUFFIXES
from maskstream.preprocess.encode.limits import DEFAULT, Limits, limited
from maskstream.preprocess.encode.points.encoder import POINT_SUFFIXES
from maskstream.preprocess.executors.base import Again, Report
from maskstream.preprocess.job.judge import judge_error, retried
from maskstream.preprocess.job.ledger import CrashableTask
from maskstream.preprocess.source import PAUSES_S, RejectError
from maskstream.shards.errors import OutageError, ShardError, StoreError
from maskstream.shards.format.records import Row, ShardRecord
from maskstream.shards.format.sample import Reject
from maskstream.shards.format.ustar import CHUNK_BYTES, HashedReader, split_name, walk
from maskstream.shards.format.writer import HashedStream
from maskstream.shards.media.video_index import PACKETS, name_packets_file, name_sidecar
from maskstream.shards.stores.block_sums import SUMS_OF
from maskstream.shards.stores.output import Location, Sizes, open_output

from .labels import LABELS, Label, read_label
from .sound import index_sound
from .tar_file import Indexed, TarFile, TarState
from .video import index_video

CONTAINERS = ("mp4", "webm", "mkv", "mov", "m4v", "avi")
"""Components that contain video, in order of preference."""
SOUNDS = ("flac", "wav", "mp3", "ogg", "oga", "opus", "m4a", "aac")
"""Components that contain audio, in order of preference."""
MAX_PROBED = 1000
"""Members of a tar that are searched for one that can be indexed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexer:
    """The indexing of one modality.

    Attributes:
        name: Modality.
        noun: Its medium in messages.
        components: Components that can be indexed; the first one that a sample has is used.
        index: Function of a member's bytes, its component and whether to check every entry point; raises RejectError if
            the member cannot be used.
    """

    name: str
    noun: str
    components: tuple[str, ...]
    index: Callable[[bytes, str, bool], Indexed]


def _index_video(data: bytes, component: str, check: bool) -> Indexed:
    return index_video(data, check=check)


def _index_sound(data: bytes, component: str, check: bool) -> Indexed:
    return index_sound(data, component)


INDEXERS = {
    "video": Indexer(name="video", noun="video", components=CONTAINERS, index=_index_video),
    "audio": Indexer(name="audio", noun="sound", components=SOUNDS, index=_index_sound),
}


CLOUDS = frozenset({suffix[1:] for suffix in POINT_SUFFIXES} | {"points.npy"})
"""Components of point clouds and meshes, which are not indexed. Most formats must be parsed as a whole, and a loader
reads a range of rows, which is a random sample only if the rows are shuffled, as in shards.
"""


PICTURES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
"""Components of images, which are not indexed either."""


def choose_indexer(tars: Sequence[TarFile], wanted: str | None) -> Indexer:
    """Return the indexer of a modality.

    If no sample can be indexed, the tars are indexed as videos, and the rejects list their contents.

    Args:
        tars: Tars to index.
        wanted: Modality; None for the one of the first sample that can be indexed.

    Raises:
        ValueError: The modality is unknown, or that sample has several modalities, or is a point cloud, mesh or image.
    """
    if wanted is not None:
        if wanted not in INDEXERS:
            raise ValueError(f"modality {wanted!r} cannot be indexed; use one of {', '.join(INDEXERS)}")
        return INDEXERS[wanted]
    for tar in tars:
        components = _read_first_components(tar)
        found = [m for m in INDEXERS.values() if components & set(m.components)]
        if len(found) > 1:
            held = ", ".join(sorted(components & {c for m in found for c in m.components}))
            names = " or ".join(f"--modality {m.name}" for m in found)
            raise ValueError(
                f"a sample of {tar.where} contains {held}. Choose {names}, or use `maskstream shards`, which stores "
                "both with a common clock"
            )
        if found:
            return found[0]
        if clouds := sorted(components & CLOUDS):
            raise ValueError(
                f"a sample of {tar.where} contains {clouds[0]}, but point clouds and meshes cannot be indexed. Unpack "
                "the tars and use `maskstream shards points-folder`"
            )
        if pictures := sorted(components & PICTURES):
            raise ValueError(
                f"a sample of {tar.where} contains {pictures[0]}, but images cannot be indexed. Use `maskstream "
                "shards image-folder`, or image-text-folder if they have texts; its ROOT may contain the original "
                "tars"
            )
    return INDEXERS["video"]


def _read_first_components(tar: TarFile) -> set[str]:
    """Return the components of a tar's first sample that has a known component; empty if there is none."""
    known = {component for m in INDEXERS.values() for component in m.components} | CLOUDS | PICTURES
    key, components = "", set[str]()
    try:
        with tar.reading() as (file, _):
            reader = HashedReader(file, lambda size_bytes: None)
            for member in islice(walk(reader, foreign=True), MAX_PROBED):
                split = split_name(member.name) if member.isreg() else None
                if split is None:
                    continue
                if split[0] != key:
                    if components & known:
                        break
                    key, components = split[0], set()
                components.add(split[1])
    except (OutageError, StoreError, ShardError):
        pass  # indexing reports the error
    return components if components & known else set()


MAX_LABEL_BYTES = 1 << 24


@dataclass(slots=True)
class Group:
    """The members of a sample.

    Attributes:
        key: Key of the sample.
        components: Offset, size and digest of each component.
        data: Bytes of the components to read.
        problem: Reason why the group is not a sample; "" if it may be one.
    """

    key: str
    components: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""


def groups(reader: HashedReader, wanted: Collection[str]) -> Iterator[Group]:
    """Yield the groups of a tar in order.

    A member whose name has no key and component is a group with a problem. If the tar is damaged or truncated, the last
    group has the key "" and the reason as its problem.

    Args:
        reader: Reader of the tar.
        wanted: Components whose bytes are kept, besides labels.
    """
    group: Group | None = None
    try:
        for member in walk(reader, foreign=True):
            if member.isdir():
                continue
            split = split_name(member.name) if member.isreg() and member.name.isprintable() else None
            if split is None:
                yield Group(
                    member.name.encode("utf-8", "backslashreplace").decode(),
                    problem="is not a member of a sample (KEY.COMPONENT, a regular file)",
                )
                continue
            key, component = split
            if group is not None and group.key != key:
                yield group
                group = None
            group = group or Group(key)
            if component in group.components:
                group.problem = f"has the component {component!r} twice"
            _read(group, component, member.offset_data, member.size, reader, wanted)
    except ShardError as error:
        if group is not None:
            group.problem = group.problem or "is the last sample before the damaged part of the tar"
            yield group
        yield Group("", problem=str(error))
        return
    if group is not None:
        yield group


def _read(group: Group, component: str, offset: int, size: int, reader: HashedReader, wanted: Collection[str]) -> None:
    """Add a member to the group, with its bytes if they are needed or contain a label."""
    is_label = component in LABELS
    if is_label and size > MAX_LABEL_BYTES:
        group.problem = f"has a {component} of {size} bytes; labels may have at most {MAX_LABEL_BYTES}"
    is_kept = component in wanted or (is_label and size <= MAX_LABEL_BYTES)
    body = reader.read(size) if is_kept else b""
    digest = xxhash.xxh3_128(body)
    for chunk in reader.chunks(0 if is_kept else size):
        digest.update(chunk)
    group.components[component] = (offset, size, digest.digest())
    if is_kept:
        group.data[component] = body


@dataclass(frozen=True, kw_only=True, slots=True)
class TarTask(CrashableTask):
    """A tar to index.

    Attributes:
        out: Folder of the split.
        name: Name of the tar in the split (`TarFile.of`).
        modality: Modality to index.
        check: Whether to decode every entry point of its videos.
        limits: Limits on the cost of a sample.
        pauses_s: Pauses in seconds between attempts to read the tar.
    """

    out: Location
    name: str
    modality: str
    check: bool
    limits: Limits = DEFAULT
    pauses_s: tuple[float, ...] = PAUSES_S

    @property
    def units(self) -> int:
        """Number of units of progress: one tar."""
        return 1


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedTar:
    """The record of an index task.

    Attributes:
        shard: Shard whose rows have no labels yet.
        labels: Label of each row.
        rejects: Rejects of the tar.
        modified_ns: Modification time of the tar in ns when it was read.
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
        """Return whether the tar is unchanged, and its packets file and checksums exist."""
        name = self.shard.name
        if any(sizes.size(beside) is None for beside in list_sidecars(name)):
            return False
        return TarFile.of(sizes.location, name).state() == TarState(self.shard.size_bytes, self.modified_ns)


def list_sidecars(tar: str) -> list[str]:
    """Return the names of the files that an index has for a tar, besides its idx."""
    return [name_sidecar(tar, suffix) for suffix in (PACKETS, *SUMS_OF.values())]


@dataclass(slots=True)
class _Found:
    """The contents of a tar, as far as it has been read."""

    rows: dict[str, Row] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


def index_tar(task: TarTask, report: Report) -> IndexedTar:
    """Read a tar once and index it.

    Args:
        task: Tar to index.
        report: Function that is called with the key of each sample.

    Raises:
        ShardError: This is not a complete tar.
        OutageError: The tar cannot be read even after the last pause, or the machine lacks the resources to judge it.
    """
    return retried(
        f"the tar {task.name!r}", lambda: _index_tar(task, report), task.pauses_s, lambda why: report(Again(why))
    )


def _index_tar(task: TarTask, report: Report) -> IndexedTar:
    output, found = open_output(task.out), _Found()
    tar = TarFile.of(task.out, task.name)
    with tar.reading() as (file, state), output.writing(name_packets_file(task.name)) as stream:
        packets = HashedStream(stream)
        reader = HashedReader(file, lambda size_bytes: None)
        for group in groups(reader, INDEXERS[task.modality].components):
            report(group.key)
            _take(task, group, found, packets, report)
        while reader.read(CHUNK_BYTES):
            pass
    for suffix, sums in ((".tar", reader.sums), (PACKETS, packets.sums)):
        output.publish(name_sidecar(task.name, SUMS_OF[suffix]), sums.digest())
    rows = tuple(found.rows.values())
    shard = ShardRecord(
        task.name, reader.sha256.hexdigest(), reader.position, rows, packets_sha256=packets.sha256.hexdigest()
    )
    return IndexedTar(
        shard=shard, labels=tuple(found.labels), rejects=tuple(found.rejects), modified_ns=state.modified_ns
    )


def _take(task: TarTask, group: Group, found: _Found, packets: HashedStream, report: Report) -> None:
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
            raise RejectError("open", f"has no {indexer.noun} (none of {legal}), only {_shorten_text(group)}")
        if indexer.noun in group.components:
            raise RejectError("tar", f"has a member {indexer.noun!r}; this name is reserved; rename the member")
        label = read_label(group.data)
        task.crashes.check(source)
        try:
            with limited(source, task.limits, report, size_bytes=len(group.data[component])):
                indexed = indexer.index(group.data[component], component, task.check)
        finally:
            report(source)
    except BaseException as error:
        reject = judge_error(error, task.name)
        found.rejects.append(Reject(source=source, stage=reject.stage, reason=reject.reason))
        return
    found.rows[group.key] = indexed.row(group.key, source, group.components, component, packets.size_bytes)
    packets.write(indexed.member.table)
    found.labels.append(label)


def _shorten_text(group: Group) -> str:
    names = [*group.components]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
