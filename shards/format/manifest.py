"""The manifest of a split: all that a loader knows before it reads a byte of a tar, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ShardError
from ..stores.base import Range, Store
from ..stores.local import LocalStore
from .column_reader import REMEDY, ColumnReader
from .columns import (
    COMPONENT_COLUMNS,
    DIGEST,
    FACT_COLUMNS,
    GOP_COLUMNS,
    GOP_PACKETS,
    OFFSET,
    SAMPLE_COLUMNS,
    SIZE,
    TABLE_COLUMNS,
    TABLE_OFFSET,
    VIDEO_COLUMNS,
)
from .dataset import MANIFEST, read_dataset_json
from .sample import VideoIndex
from .shared_arrays import Shared, can_share

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float64s = npt.NDArray[np.float64]
UInt8s = npt.NDArray[np.uint8]

CONTAINERS = ("mp4", "webm", "mkv", "mov", "m4v", "avi")
"""Components that hold a video; of a sample that has several, the first one counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """Where one component of each of N samples lies; offset and size are 0 where a sample lacks it.

    offset int64 (N,) of the data in the tar and size int64 (N,), in bytes.
    """

    offset: Int64s
    size: Int64s
    read_digest: Callable[[], UInt8s] = field(repr=False)

    @cached_property
    def digest(self) -> UInt8s:
        """Uint8 (N, 16), the xxh3_128 of each, 0 where a sample lacks it; read from disk when it is first asked for."""
        return self.read_digest()

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Bool (N,): which samples have it (no data lies at offset 0: there is a header before it)."""
        return self.offset > 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoColumns:
    """The `VideoIndex` of N samples: arrays (N,), and the GOPs of all samples in flat arrays.

    The GOPs of sample i are `start[i]:start[i + 1]` of first_frame, offset, size and lead; samples without video have
    none and 0 in every array. `codec` is a number into `codec_names` (-1 for none). The flat arrays are as narrow as
    their values allow (int8 to int64), for they are most of what a manifest holds. table_offset and packets are None
    but for tars that others wrote.
    """

    codec_names: list[str]
    codec: Int32s
    fps: Float64s
    n_frames: Int64s
    width: Int64s
    height: Int64s
    header_size: Int64s
    start: Int64s
    first_frame: npt.NDArray[np.signedinteger]
    offset: npt.NDArray[np.signedinteger]
    size: npt.NDArray[np.signedinteger]
    lead: npt.NDArray[np.signedinteger]
    table_offset: Int64s | None
    packets: npt.NDArray[np.signedinteger] | None

    def __getitem__(self, i: int) -> VideoIndex:
        i = range(len(self.codec))[i]
        if self.codec[i] < 0:
            raise ValueError(f"sample {i} has no video")
        gops = slice(int(self.start[i]), int(self.start[i + 1]))
        return VideoIndex(
            codec=self.codec_names[self.codec[i]],
            fps=float(self.fps[i]),
            n_frames=int(self.n_frames[i]),
            width=int(self.width[i]),
            height=int(self.height[i]),
            header_size=int(self.header_size[i]),
            first_frame=self.first_frame[gops].astype(np.int64),
            offset=self.offset[gops].astype(np.int64),
            size=self.size[gops].astype(np.int64),
            lead=self.lead[gops].astype(np.int64),
            table_offset=None if self.table_offset is None else int(self.table_offset[i]),
            packets=None if self.packets is None else self.packets[gops].astype(np.int64),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Manifest:
    """The samples of a split, numbered 0 to N - 1 in the order of the shards and of each tar.

    folder: of the split. info: the contents of dataset.json. label int64 (N,), -1 for none. shard int32 (N,), a number
    into shard_names. video_columns: None in a split without video. facts: an array (N,), int64 or float64, for each
    fact that samples have (facts.py), 0 in those without it. The arrays are read-only. store: what ranges of its tars
    are read through. It pickles as its folder and store, and for a process that is being started as memory that
    both then have in common.
    """

    folder: Path
    info: dict[str, Any]
    shard_names: list[str]
    shard: Int32s
    label: Int64s
    video_columns: VideoColumns | None
    facts: dict[str, npt.NDArray[Any]]
    _keys: pa.StringArray
    _components: dict[str, Component]
    store: Store
    _shared: Shared | None = field(default=None, repr=False)

    @classmethod
    def load(cls, folder: str | Path, store: Store | None = None) -> Manifest:
        """Read dataset.json and manifest.parquet of a finished split; raises ShardError where that cannot be done.

        store: what ranges are read through, by default of the folder's files.
        """
        folder = Path(folder)
        info = read_dataset_json(folder)
        with _columns(folder) as reader:
            manifest = _read(cls, folder, info, reader, store or LocalStore(folder))
        if len(manifest) != info["counts"]["samples"]:
            raise ShardError(
                f"{folder / MANIFEST} has {len(manifest)} samples, but dataset.json says {info['counts']['samples']}; "
                f"{REMEDY}"
            )
        return manifest

    def __len__(self) -> int:
        return len(self.label)

    def __reduce__(self) -> tuple[Callable[..., Manifest], tuple[Any, ...]]:
        return (_of_parts, (self._in_shared_memory(),)) if can_share() else (Manifest.load, (self.folder, self.store))

    def _in_shared_memory(self) -> Shared:
        """All of it in memory that processes share; from the first time on, the arrays here are those there."""
        if self._shared is None:
            shared = Shared({f.name: getattr(self, f.name) for f in fields(self)})
            for name, value in {**shared.tree(), "_shared": shared}.items():
                object.__setattr__(self, name, value)
            return shared
        return self._shared

    def key(self, i: int) -> str:
        """The key of sample i."""
        return str(self._keys[int(i)].as_py())

    def keys(self, indexes: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """The keys of many samples."""
        keys: list[str] = self._keys.take(pa.array(np.asarray(indexes, dtype=np.int64))).to_pylist()
        return keys

    def sources(self) -> pa.StringArray:
        """What each sample was made of (read from disk at each call)."""
        with _columns(self.folder) as reader:
            return reader.strings("source")

    def shard_name(self, i: int) -> str:
        """The tar that holds sample i, as the store names it."""
        name: str = self.shard_names[self.shard[i]]
        return name

    def shard_path(self, i: int) -> Path:
        """The same as a path, for what reads tars of local folders without a store."""
        return self.folder / self.shard_name(i)

    @property
    def component_names(self) -> list[str]:
        """The components that samples of this split have, sorted."""
        return list(self._components)

    def component(self, name: str) -> Component:
        """Where component `name` of every sample lies; raises ValueError where no sample has it."""
        if name not in self._components:
            raise ValueError(f"no component {name!r} in {self.folder}; it has {', '.join(self._components) or 'none'}")
        return self._components[name]

    def member(self, i: int, name: str) -> Range:
        """Where component `name` of sample i lies: its tar, offset and size in bytes; ShardError where it has none."""
        component = self._components.get(name)
        if component is None or not component.offset[i]:
            raise ShardError(f"sample {self.key(i)!r} of {self.folder} has no component {name!r}")
        return Range(self.shard_name(i), int(component.offset[i]), int(component.size[i]))

    @property
    def video_component(self) -> str:
        """The component that `video` is about: "mp4" in splits that maskstream encoded."""
        for name in CONTAINERS:
            if name in self._components:
                return name
        raise ShardError(f"no component of {', '.join(CONTAINERS)} in {self.folder}, so it has no video")

    def video_member(self, i: int) -> tuple[str, int]:
        """The component that holds the video of sample i, and the offset of its data in the tar, in bytes."""
        for name in CONTAINERS:
            if name in self._components and (offset := int(self._components[name].offset[i])):
                return name, offset
        raise ShardError(f"sample {self.key(i)!r} of {self.folder} has no component of {', '.join(CONTAINERS)}")

    def video(self, i: int) -> VideoIndex:
        """Where the frames of sample i lie in its member; raises ValueError where it has none."""
        return self._video[i]

    @property
    def n_frames(self) -> Int64s:
        """Int64 (N,)."""
        return self._video.n_frames

    @property
    def fps(self) -> Float64s:
        """Float64 (N,), frames per second."""
        return self._video.fps

    @property
    def width(self) -> Int64s:
        """Int64 (N,), pixels as displayed."""
        return self._video.width

    @property
    def height(self) -> Int64s:
        """Int64 (N,), pixels as displayed."""
        return self._video.height

    @property
    def fingerprint(self) -> str:
        """What a resume compares: 32 hex digits of the sha256 of the shards' names and checksums."""
        lines = "".join(f"{shard['name']} {shard['sha256']}\n" for shard in self.info["shards"])
        return hashlib.sha256(lines.encode()).hexdigest()[:32]

    @property
    def _video(self) -> VideoColumns:
        if self.video_columns is None:
            raise ValueError(f"{self.folder} holds {self.info['modality']} without video frames")
        return self.video_columns


def _of_parts(parts: dict[str, Any]) -> Manifest:
    return Manifest(**parts)


@contextmanager
def _columns(folder: Path) -> Iterator[ColumnReader]:
    """The columns of the manifest in `folder`; ShardError where they cannot be read."""
    path = folder / MANIFEST
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield ColumnReader(path, file)
    except FileNotFoundError as error:
        raise ShardError(f"no {MANIFEST} in {folder}, though dataset.json is there; {REMEDY}") from error
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path} is unreadable ({error}); {REMEDY}") from error


def _read(cls: type[Manifest], folder: Path, info: dict[str, Any], reader: ColumnReader, store: Store) -> Manifest:
    shard_names, shard = reader.codes("shard", SAMPLE_COLUMNS["shard"])
    names = [name.removesuffix(DIGEST) for name in reader.names if name.endswith(DIGEST)]
    return cls(
        folder=folder,
        info=info,
        shard_names=shard_names,
        shard=shard,
        label=reader.numbers("label", SAMPLE_COLUMNS["label"], np.int64),
        video_columns=_read_video(reader) if "n_frames" in reader.names else None,
        facts={
            name: reader.numbers(name, kind, np.int64 if kind == pa.int64() else np.float64)
            for name, kind in FACT_COLUMNS.items()
            if name in reader.names
        },
        _keys=reader.strings("key"),
        _components={name: _read_component(reader, name) for name in names},
        store=store,
    )


def _read_component(reader: ColumnReader, name: str) -> Component:
    return Component(
        offset=reader.numbers(name + OFFSET, COMPONENT_COLUMNS[OFFSET], np.int64),
        size=reader.numbers(name + SIZE, COMPONENT_COLUMNS[SIZE], np.int64),
        read_digest=partial(_read_digest, reader.path.parent, name),
    )


def _read_digest(folder: Path, name: str) -> UInt8s:
    with _columns(folder) as reader:
        return reader.digests(name + DIGEST, COMPONENT_COLUMNS[DIGEST])


def _read_video(reader: ColumnReader) -> VideoColumns:
    codec_names, codec = reader.codes("codec", VIDEO_COLUMNS["codec"])
    arrays: dict[str, Any] = {
        name: reader.numbers(name, kind, np.float64 if name == "fps" else np.int64)
        for name, kind in VIDEO_COLUMNS.items()
        if name != "codec"
    }
    kinds = dict(GOP_COLUMNS)
    arrays |= {TABLE_OFFSET: None, "packets": None}
    if TABLE_OFFSET in reader.names:
        arrays[TABLE_OFFSET] = reader.numbers(TABLE_OFFSET, TABLE_COLUMNS[TABLE_OFFSET], np.int64)
        kinds[GOP_PACKETS] = TABLE_COLUMNS[GOP_PACKETS]
    lists = {name.removeprefix("gop_"): reader.lists(name, kind) for name, kind in kinds.items()}
    lengths = lists["offset"][0]
    if not all(np.array_equal(others, lengths) for others, _ in lists.values()):
        raise ShardError(f"{reader.path}: the lists of GOPs of a sample differ in length; {REMEDY}")
    arrays |= {name: values for name, (_, values) in lists.items()}
    start = np.concatenate([[0], np.cumsum(lengths)])
    return VideoColumns(codec_names=codec_names, codec=codec, start=start, **arrays)
