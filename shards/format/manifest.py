"""The manifest of a split: arrays with all that a loader must know before it reads a tar."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SampleError, ShardError
from ..media.packet_table import packets_name
from ..media.video_index import VideoIndex
from ..members.member import ENDING, Member
from ..members.video import VIDEO
from ..stores.base import Range, ShardFile, Store
from ..stores.local import LocalStore
from ..stores.location import opened
from .checked_file import read_checked
from .column_reader import ColumnReader
from .columns import COMPONENT_COLUMNS, DIGEST, FACTS, LIST, OFFSET, SAMPLE_COLUMNS, SIZE, WORD
from .contradictions import contradictions
from .damage import REMEDY, parsing
from .data_errors import data_reason
from .dataset import FOREIGN, MANIFEST, read_dataset_json
from .shared_arrays import Shared, can_share

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Float64s = npt.NDArray[np.float64]
UInt8s = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Words:
    """One word per sample: `code` int32 (N,) indexes `names`; -1 means none."""

    names: list[str]
    code: Int32s


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lists:
    """One list per sample: that of sample i is `values[start[i]:start[i + 1]]`; start int64 (N + 1,).

    Lists are the largest part of a manifest, so `values` has the narrowest type that fits (int8 to int64), and lists of
    equal lengths share `start`.
    """

    start: Int64s
    values: npt.NDArray[np.signedinteger]

    def __getitem__(self, i: int) -> Int64s:
        return self.values[int(self.start[i]) : int(self.start[i + 1])].astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """One component of all N samples; all values are 0 for samples that lack it.

    kind: the name of its `Kind`. offset, size: int64 (N,), of the data in the tar, in bytes. facts: int64 or float64
    (N,) each.
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
        """The xxh3_128 of each sample's data, uint8 (N, 16), read from disk on first use; 0 if a sample lacks it."""
        return self.read_digest()

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which samples have the component, bool (N,). No data is at offset 0, where a tar has a header."""
        return self.offset > 0

    def facts_of(self, i: int) -> dict[str, int | float]:
        """The facts of sample i."""
        return {name: values[i].item() for name, values in self.facts.items()}

    def described(self, i: int, data: bytes = b"", table: bytes = b"") -> Member:
        """The member of sample i with its columns and the given bytes. Raises ValueError if the sample lacks it."""
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
        """The ending of sample i's member in the tar; it differs from the component's name only in foreign tars."""
        words = self.words.get(ENDING)
        return self.name if words is None else words.names[words.code[i]]


def component_of(components: Mapping[str, Component], kinds: Sequence[str], wanted: str | None = None) -> Component:
    """The component `wanted`, or by default the only one of these kinds.

    Raises ValueError if there is no such component, or if several fit and `wanted` is None.
    """
    of = " or ".join(kinds)
    fitting = [name for name, component in components.items() if component.kind in kinds]
    listed = ", ".join(fitting) or "none"
    if wanted is not None:
        if wanted not in components:
            raise ValueError(f"component={wanted!r} does not exist; components that are {of}: {listed}")
        if wanted not in fitting:
            raise ValueError(
                f"component={wanted!r} is {components[wanted].kind}, not {of}; components that are {of}: {listed}"
            )
        return components[wanted]
    if len(fitting) != 1:
        held = ", ".join(f"{name} ({component.kind})" for name, component in components.items()) or "nothing"
        if fitting:
            raise ValueError(f"{len(fitting)} components are {of}: {listed}; name one with component=")
        raise ValueError(f"no component is {of}; the split holds {held}")
    return components[fitting[0]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Manifest:
    """The samples of a split, numbered 0 to N - 1 in the order of the shards and of each tar.

    info: the contents of dataset.json. label: int64 (N,), -1 for none. shard: int32 (N,),
    indexes shard_names. components: by name. store: reads the split. The arrays are read-only. A manifest pickles
    as its store, or, for a process that is being started, as shared memory.
    """

    info: dict[str, Any]
    shard_names: list[str]
    shard: Int32s
    label: Int64s
    components: dict[str, Component]
    _keys: pa.StringArray
    store: Store
    _shared: Shared | None = field(default=None, repr=False)

    @classmethod
    def load(cls, location: str | Path | Store) -> Manifest:
        """Read dataset.json and manifest.parquet of a finished split.

        Both are compared with their checksums before they are parsed. Then the positions of members are compared with
        the sizes of shards. Raises ShardError if they cannot be read or contradict each other, OutageError if the
        location cannot be reached; no other exception.

        location: a location or the store of one.
        """
        store = opened(location)
        info = read_dataset_json(store)
        store = store.of_split(_shard_files(info), outside=info["profile"] == FOREIGN)
        with _columns(store, info) as reader:
            manifest = _read(cls, info, reader, store)
            members = {name: (component.offset, component.size) for name, component in manifest.components.items()}
            columns = (manifest.shard_names, manifest.shard, manifest.label, members)
            if problem := next(contradictions(info, *columns), None):
                raise ShardError(f"{store.location}/{MANIFEST} {problem}; {REMEDY}")
        return manifest

    def __len__(self) -> int:
        return len(self.label)

    def __reduce__(self) -> tuple[Callable[..., Manifest], tuple[Any, ...]]:
        return (_of_parts, (self._in_shared_memory(),)) if can_share() else (Manifest.load, (self.store,))

    @property
    def location(self) -> str:
        """The path or URL of the split's folder."""
        return self.store.location

    def _in_shared_memory(self) -> Shared:
        """Move the arrays to shared memory on first use; this manifest then uses them too."""
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
        """The source of each sample, read from disk at each call."""
        with _columns(self.store, self.info) as reader:
            return reader.strings("source")

    def shard_name(self, i: int) -> str:
        """The tar that holds sample i, by its name in the store."""
        name: str = self.shard_names[self.shard[i]]
        return name

    @property
    def folder(self) -> Path:
        """The split's local folder, for readers that use no store. Raises ValueError if the split is not local."""
        if not isinstance(self.store, LocalStore):
            raise ValueError(f"{self.location} is not local; copy it to a local folder and give that")
        return self.store.folder

    def shard_path(self, i: int) -> Path:
        """The path of the tar that holds sample i, for readers that use no store, as `folder`."""
        return self.folder / self.shard_name(i)

    def component(self, name: str) -> Component:
        """The component `name`. Raises ValueError if no sample has it."""
        if name not in self.components:
            raise ValueError(
                f"{self.location} has no component {name!r}; its components are {', '.join(self.components) or 'none'}"
            )
        return self.components[name]

    def member(self, i: int, name: str) -> Range:
        """The byte range of component `name` of sample i. Raises SampleError if the sample lacks it."""
        component = self.components.get(name)
        if component is None or not component.offset[i]:
            raise self._missing(i, name)
        return Range(self.shard_name(i), int(component.offset[i]), int(component.size[i]))

    def video(self, i: int, name: str | None = None) -> VideoIndex:
        """The index of the video `name` of sample i, by default of the only video component.

        Raises SampleError if the sample lacks it.
        """
        component = self.components[name] if name else component_of(self.components, (VIDEO.name,))
        if not component.offset[i]:
            raise self._missing(i, component.name)
        member = component.described(i)
        return VideoIndex.of(member.facts, member.words, member.lists)

    @contextmanager
    def reading(self, i: int, name: str) -> Iterator[None]:
        """Raises SampleError where the data of component `name` of sample i make the block fail.

        All that parses or decodes a member, or computes with its numbers in the manifest, runs in such a block, and
        nothing else does: data_errors.py has the errors that are the data's.
        """
        try:
            yield
        except Exception as error:
            if (reason := data_reason(error)) is None:
                raise
            raise self.sample_error(i, name, reason) from error

    def sample_error(self, i: int, name: str, reason: str) -> SampleError:
        """The error that says why component `name` of sample i cannot be used."""
        return SampleError(shard=PurePosixPath(self.shard_name(i)).name, key=self.key(i), component=name, reason=reason)

    def _missing(self, i: int, name: str) -> SampleError:
        return self.sample_error(i, name, "the sample has no such component")

    @property
    def fingerprint(self) -> str:
        """The split's identity: 32 hex digits of the sha256 of the shards' names and checksums."""
        lines = "".join(f"{shard['name']} {shard['sha256']}\n" for shard in self.info["shards"])
        return hashlib.sha256(lines.encode()).hexdigest()[:32]


def _of_parts(parts: dict[str, Any]) -> Manifest:
    return Manifest(**parts)


@contextmanager
def _columns(store: Store, info: Mapping[str, Any]) -> Iterator[ColumnReader]:
    """The columns of the split's manifest. Raises ShardError if they cannot be read."""
    path = f"{store.location}/{MANIFEST}"
    data = read_checked(store, MANIFEST, info["files"])
    with parsing(path), pq.ParquetFile(pa.BufferReader(data)) as file:
        yield ColumnReader(path, file)


def _shard_files(info: Mapping[str, Any]) -> dict[str, ShardFile]:
    """What dataset.json says of the tars and packet tables."""
    files = {}
    for shard in info["shards"]:
        files[shard["name"]] = ShardFile(shard["size_bytes"], shard["sha256"])
        if (packets := shard.get("packets_sha256")) is not None:
            files[packets_name(shard["name"])] = ShardFile(None, str(packets))
    return files


def _read(cls: type[Manifest], info: dict[str, Any], reader: ColumnReader, store: Store) -> Manifest:
    shard_names, shard = reader.codes("shard", SAMPLE_COLUMNS["shard"])
    return cls(
        info=info,
        shard_names=shard_names,
        shard=shard,
        label=reader.numbers("label", SAMPLE_COLUMNS["label"], np.int64),
        components={name: _read_component(reader, name, kind, info, store) for name, kind in reader.kinds.items()},
        _keys=reader.strings("key"),
        store=store,
    )


def _read_component(reader: ColumnReader, name: str, kind: str, info: Mapping[str, Any], store: Store) -> Component:
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
        elif found in FACTS:
            facts[word] = reader.numbers(f"{name}.{word}", found, found.to_pandas_dtype())
        else:
            legal = " or ".join(map(str, (*FACTS, WORD, LIST)))
            raise ShardError(f"{reader.path}: column '{name}.{word}' is {found}, not {legal}; {REMEDY}")
    return Component(
        name=name,
        kind=kind,
        offset=reader.numbers(f"{name}.{OFFSET}", COMPONENT_COLUMNS[OFFSET], np.int64),
        size=reader.numbers(f"{name}.{SIZE}", COMPONENT_COLUMNS[SIZE], np.int64),
        facts=facts,
        words=words,
        lists=lists,
        read_digest=partial(_read_digest, store, info, name),
    )


def _read_list(reader: ColumnReader, name: str, others: Mapping[str, Lists]) -> Lists:
    """Read a column of lists; it shares `start` with another column of equal lengths."""
    lengths, values = reader.lists(name, LIST.value_type)
    start = np.concatenate([[0], np.cumsum(lengths)])
    start.flags.writeable = False
    same = (other.start for other in others.values() if np.array_equal(other.start, start))
    return Lists(start=next(same, start), values=values)


def _read_digest(store: Store, info: Mapping[str, Any], name: str) -> UInt8s:
    with _columns(store, info) as reader:
        return reader.digests(f"{name}.{DIGEST}", COMPONENT_COLUMNS[DIGEST])
