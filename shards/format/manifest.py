"""The manifest of a split: all that a loader knows before it reads a byte of a tar, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SampleError, ShardError
from ..media.video_index import VideoIndex
from ..members.member import ENDING, Member
from ..members.video import VIDEO
from ..stores.base import Range, Store
from ..stores.local import LocalStore
from .column_reader import REMEDY, ColumnReader
from .columns import COMPONENT_COLUMNS, DIGEST, LIST, OFFSET, SAMPLE_COLUMNS, SIZE, WORD
from .dataset import MANIFEST, read_dataset_json
from .shared_arrays import Shared, can_share

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float64s = npt.NDArray[np.float64]
UInt8s = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Words:
    """A word of each of N samples: `code` int32 (N,) is a number into `names`, -1 for none."""

    names: list[str]
    code: Int32s


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lists:
    """A list of each of N samples, sample i's in `values[start[i]:start[i + 1]]`; start int64 (N + 1,).

    The values of all are in one flat array, as narrow as they allow (int8 to int64), for lists are most of what a
    manifest holds. Lists of a component that have the same lengths have one `start`.
    """

    start: Int64s
    values: npt.NDArray[np.signedinteger]

    def __getitem__(self, i: int) -> Int64s:
        return self.values[int(self.start[i]) : int(self.start[i + 1])].astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """One component of each of N samples: where it lies, and what is known of it; all is 0 where a sample lacks it.

    kind: the name of its `Kind`. offset int64 (N,) of the data in the tar and size int64 (N,), in bytes. facts: arrays
    (N,), int64 or float64.
    """

    name: str
    kind: str
    offset: Int64s
    size: Int64s
    facts: dict[str, Numbers]
    words: dict[str, Words]
    lists: dict[str, Lists]
    read_digest: Callable[[], UInt8s] = field(repr=False)

    @cached_property
    def digest(self) -> UInt8s:
        """Uint8 (N, 16), the xxh3_128 of each, 0 where a sample lacks it; read from disk when it is first asked for."""
        return self.read_digest()

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Bool (N,): which samples have it (no data lies at offset 0: there is a header before it)."""
        return self.offset > 0

    def facts_of(self, i: int) -> dict[str, int | float]:
        """Sample i's facts."""
        return {name: values[i].item() for name, values in self.facts.items()}

    def described(self, i: int, data: bytes = b"", table: bytes = b"") -> Member:
        """Sample i's as a member, with the bytes that are given; ValueError where it has none."""
        i = range(len(self.offset))[i]
        if not self.offset[i]:
            raise ValueError(f"sample {i} has no component {self.name!r}")
        return Member(
            kind=self.kind,
            data=data,
            facts=self.facts_of(i),
            words={name: words.names[words.code[i]] for name, words in self.words.items() if words.code[i] >= 0},
            lists={name: lists[i] for name, lists in self.lists.items()},
            table=table,
        )

    def ending(self, i: int) -> str:
        """The ending of sample i's member in the tar: the component's name, but for tars that others wrote."""
        words = self.words.get(ENDING)
        return self.name if words is None else words.names[words.code[i]]


def component_of(components: Mapping[str, Component], kinds: Sequence[str], wanted: str | None = None) -> Component:
    """The component `wanted`, or by default the only one of these kinds.

    ValueError where there is no such component, or several fit and none is named.
    """
    of = " or ".join(kinds)
    fitting = [name for name, component in components.items() if component.kind in kinds]
    listed = ", ".join(fitting) or "none"
    if wanted is not None:
        if wanted not in components:
            raise ValueError(f"component={wanted!r}, but there is none of that name; of {of} there is {listed}")
        if wanted not in fitting:
            raise ValueError(f"component={wanted!r} is {components[wanted].kind}, not {of}; of {of} there is {listed}")
        return components[wanted]
    if len(fitting) != 1:
        held = ", ".join(f"{name} ({component.kind})" for name, component in components.items()) or "nothing"
        if fitting:
            raise ValueError(f"{len(fitting)} components are {of}: {listed}; name one with component=")
        raise ValueError(f"no component is {of}; there is {held}")
    return components[fitting[0]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Manifest:
    """The samples of a split, numbered 0 to N - 1 in the order of the shards and of each tar.

    folder: of the split. info: the contents of dataset.json. label int64 (N,), -1 for none. shard int32 (N,), a number
    into shard_names. components: by name. The arrays are read-only. store: what ranges of its tars are read through. It
    pickles as its folder and store, and for a process that is being started as memory that both then have in common.
    """

    folder: Path
    info: dict[str, Any]
    shard_names: list[str]
    shard: Int32s
    label: Int64s
    components: dict[str, Component]
    _keys: pa.StringArray
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

    def component(self, name: str) -> Component:
        """The component `name`; raises ValueError where no sample has it."""
        if name not in self.components:
            raise ValueError(f"no component {name!r} in {self.folder}; it has {', '.join(self.components) or 'none'}")
        return self.components[name]

    def member(self, i: int, name: str) -> Range:
        """Where component `name` of sample i lies: its tar, offset and size in bytes; SampleError where it has none."""
        component = self.components.get(name)
        if component is None or not component.offset[i]:
            raise self._lacking(i, name)
        return Range(self.shard_name(i), int(component.offset[i]), int(component.size[i]))

    def video(self, i: int, name: str | None = None) -> VideoIndex:
        """Where the frames of component `name` of sample i lie, by default of the only video; raises SampleError where
        it has none.
        """
        component = self.components[name] if name else component_of(self.components, (VIDEO.name,))
        if not component.offset[i]:
            raise self._lacking(i, component.name)
        member = component.described(i)
        return VideoIndex.of(member.facts, member.words, member.lists)

    def _lacking(self, i: int, name: str) -> SampleError:
        return SampleError(
            shard=self.shard_path(i).name, key=self.key(i), component=name, reason="the sample has no such component"
        )

    @property
    def fingerprint(self) -> str:
        """What a resume compares: 32 hex digits of the sha256 of the shards' names and checksums."""
        lines = "".join(f"{shard['name']} {shard['sha256']}\n" for shard in self.info["shards"])
        return hashlib.sha256(lines.encode()).hexdigest()[:32]


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
    return cls(
        folder=folder,
        info=info,
        shard_names=shard_names,
        shard=shard,
        label=reader.numbers("label", SAMPLE_COLUMNS["label"], np.int64),
        components={name: _read_component(reader, name, kind) for name, kind in reader.kinds.items()},
        _keys=reader.strings("key"),
        store=store,
    )


def _read_component(reader: ColumnReader, name: str, kind: str) -> Component:
    facts: dict[str, Numbers] = {}
    words: dict[str, Words] = {}
    lists: dict[str, Lists] = {}
    for word, found in reader.words_of(name).items():
        if word in COMPONENT_COLUMNS:
            continue
        if found == WORD:
            names, code = reader.codes(f"{name}.{word}", found)
            words[word] = Words(names=names, code=code)
        elif found == LIST:
            lists[word] = _read_list(reader, f"{name}.{word}", lists)
        else:
            facts[word] = reader.numbers(f"{name}.{word}", found, np.int64 if found == pa.int64() else np.float64)
    return Component(
        name=name,
        kind=kind,
        offset=reader.numbers(f"{name}.{OFFSET}", COMPONENT_COLUMNS[OFFSET], np.int64),
        size=reader.numbers(f"{name}.{SIZE}", COMPONENT_COLUMNS[SIZE], np.int64),
        facts=facts,
        words=words,
        lists=lists,
        read_digest=partial(_read_digest, reader.path.parent, name),
    )


def _read_list(reader: ColumnReader, name: str, others: Mapping[str, Lists]) -> Lists:
    """A column of lists; its `start` is that of one of the others where they have the same lengths."""
    lengths, values = reader.lists(name, LIST.value_type)
    start = np.concatenate([[0], np.cumsum(lengths)])
    start.flags.writeable = False
    same = (other.start for other in others.values() if np.array_equal(other.start, start))
    return Lists(start=next(same, start), values=values)


def _read_digest(folder: Path, name: str) -> UInt8s:
    with _columns(folder) as reader:
        return reader.digests(f"{name}.{DIGEST}", COMPONENT_COLUMNS[DIGEST])
