"""The manifest of a split: arrays with everything that a loader needs before it reads a tar."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from maskstream.shards.arrays import Int32s, Int64s, UInt8s
from maskstream.shards.descriptors import is_starting_process
from maskstream.shards.errors import (
    MaskstreamError,
    MissingFileError,
    MovedError,
    OutageError,
    RemovedError,
    SampleError,
    ShardError,
)
from maskstream.shards.media.video_index import VideoIndex, name_packets_file
from maskstream.shards.members.video import VIDEO
from maskstream.shards.named import list_few
from maskstream.shards.stores.base import Range, ShardFile, Store
from maskstream.shards.stores.block_cache import BlockCache
from maskstream.shards.stores.folders import get_folder_name, is_elsewhere, open_merged_store, store_of_split
from maskstream.shards.stores.local import LocalStore
from maskstream.shards.stores.open import open_store
from maskstream.shards.stores.url import is_url

from .checked_file import SIZE_BYTES, SUM, read_checked
from .columns import COMPONENT_COLUMNS, DIGEST, DIGEST_BYTES, OFFSET, SIZE, ColumnReader, ShardFacts
from .component import Component, Lists, Words, component_of
from .data_errors import REMEDY, explain_data_error, find_outage, parsing
from .dataset import DATASET_JSON, FOREIGN, read_description
from .index_cache import IndexFile, NewFile, forget, open_cached_index, open_in_memory, received
from .rejects import SELECTED, count_part_samples, read_removed, read_selected, read_selected_sum, strip_tar_name
from .unpack import Unpacker

log = logging.getLogger(__name__)

_REOPENING = threading.Lock()
_INDEX_VERSION = 3
"""Version of the contents of index files. An index with another version is rebuilt."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Strings stored one after another in `text`, uint8; string i is `text[start[i]:start[i + 1]]`, start int64 (n +
    1,).
    """

    start: Int64s
    text: UInt8s

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]
        return self.text[int(self.start[i]) : int(self.start[i + 1])].tobytes().decode()

    def many(self, numbers: Int64s) -> list[str]:
        """Return the strings with the given numbers, int64 (n,). Raises IndexError if a number is out of range."""
        few = numbers.tolist()  # on a batch, Python's min and max are faster than numpy's
        if few and not 0 <= min(few) <= max(few) < len(self):
            raise IndexError(f"texts must be numbered 0 to {len(self) - 1}, got {min(few)} to {max(few)}")
        text = self.text.data
        edges = zip(self.start[numbers].tolist(), self.start[numbers + 1].tolist(), strict=True)
        return [str(text[begin:end], "utf-8") for begin, end in edges]

    def whole(self) -> list[str]:
        """Return all strings."""
        text, starts = self.text.tobytes(), self.start.tolist()
        return [text[begin:end].decode() for begin, end in pairwise(starts)]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Manifest:
    """The samples of a split, numbered 0 to N - 1 in the order of the shards and of each tar.

    The arrays are read-only and, except `removed` and changed labels, mapped from an index file (index_cache.py) that
    all processes of a machine share. A manifest is pickled as its store and version or, for a process that is being
    started, as its store and a descriptor of its index. A manifest is immutable, except that `reopen` follows an
    erasure.

    Attributes:
        info: Contents of dataset.json, or of the requested version's description.
        shard_names: Names of the S shards in the store.
        shard_samples: Number of samples of each shard, int64 (S,).
        shard_bytes: Size of each shard in bytes, int64 (S,).
        shard: Index of each sample's shard in `shard_names`, int32 (N,).
        label: Label of each sample, int64 (N,); -1 for none.
        components: Components of the samples, by name.
        store: Store with the split's files.
        removed: Sorted numbers of the samples that were removed, int64 (R,).
        cache: Cache of the bytes that the store reads from URLs. None if it reads none, and in a process that received
            this manifest.
        whole: True if the manifest has all samples of its parts, including those that a divided split leaves out.
        stored_names: Label names in the split's own order if `with_labels` changed the numbering; otherwise None.
    """

    info: dict[str, Any]
    shard_names: list[str]
    shard_samples: Int64s
    shard_bytes: Int64s
    shard: Int32s
    label: Int64s
    components: dict[str, Component]
    store: Store
    removed: Int64s
    cache: BlockCache | None = field(default=None, repr=False)
    whole: bool = True
    stored_names: tuple[str, ...] | None = None
    _keys: Texts
    _index: IndexFile = field(repr=False)

    @classmethod
    def load(
        cls,
        location: SplitLocation,
        *,
        version: int | None = None,
        cached: bool = True,
        cache: BlockCache | None = None,
        whole: bool = False,
    ) -> Manifest:
        """Open the finished split at a location, and its store; see `open`.

        Args:
            location: Path or URL of a split's folder, or a manifest, which is returned unchanged if it is of that
                version.
            version: Version to read; None reads the current one (for a manifest, the same version).
            cached: If False, read and check the parts of the manifest even if this machine has an index of them.
            cache: Cache of the bytes that are read from URLs.
            whole: Include all samples of the parts, also those that a divided split leaves out.
        """
        if not isinstance(location, Manifest):
            return cls.open(open_store(location, cache), version=version, cached=cached, cache=cache, whole=whole)
        if version in (None, location.version) and (SELECTED not in location.info or whole == location.whole):
            return location
        return cls.open(location.store, version=version, cached=cached, cache=cache or location.cache, whole=whole)

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        version: int | None = None,
        info: dict[str, Any] | None = None,
        cached: bool = True,
        cache: BlockCache | None = None,
        whole: bool = False,
    ) -> Manifest:
        """Open the finished split in a store: read dataset.json, and map the index of its manifest.

        If this machine has no such index yet, the parts of the manifest are compared with their checksums, parsed, and
        compared with the sizes of their shards.

        Args:
            store: Store of the split's folder.
            version: Version to read; None reads the current one.
            info: Description of that version, if it has been read already.
            cached: If False, read and check the parts even if this machine has an index of them.
            cache: Cache of the bytes that are read from URLs.
            whole: Include all samples of the parts, also those that a divided split leaves out. Files number samples
                this way.

        Raises:
            ShardError: A file cannot be read, or the files contradict each other.
            OutageError: The location cannot be reached.
        """
        info = read_description(store, version) if info is None else info
        if any(is_elsewhere(name) for name in _list_part_names(info)):
            store = open_merged_store(store, cache)
        whole = whole or SELECTED not in info

        def unpack(new_file: NewFile, stream: BinaryIO) -> None:
            with ExitStack() as files:
                unpacker = Unpacker(lambda: files.enter_context(new_file()), foreign=info["profile"] == FOREIGN)
                for part, rows in _list_rows_of_parts(store, info, whole=whole):
                    with _read_columns(store, info, part["name"]) as reader:
                        unpacker.add(part, reader, rows)
                unpacker.write(stream, key)

        key = _index_key(info, whole=whole)
        size = sum(info["files"][name][SIZE_BYTES] for name in _list_part_names(info))
        with parsing(f"{store.location}/{DATASET_JSON}"):
            index = open_cached_index(key, size, unpack) if cached else open_in_memory(unpack)
            removed = read_removed(store, info)
            if not whole and len(removed) and (selected := read_selected(store, info)) is not None:
                removed = np.flatnonzero(np.isin(selected, removed, assume_unique=True))
            return cls._of(info, store, index, removed, cache, whole=whole)

    @classmethod
    def _of(
        cls,
        info: dict[str, Any],
        store: Store,
        index: IndexFile,
        removed: Int64s,
        cache: BlockCache | None = None,
        *,
        whole: bool,
    ) -> Manifest:
        names = _read_texts(index, "shards.name").whole()
        foreign = info["profile"] == FOREIGN
        is_home = isinstance(store, LocalStore) and not foreign  # then all of its files are in its folder
        is_far = is_url(store.location) or (not is_home and any(map(is_url, names)))
        cache = cache if is_far else None
        files = {} if isinstance(store, LocalStore) and not is_far else _shard_files(_shards(index))
        store = store_of_split(store, files, outside=foreign, cache=cache)
        manifest = cls(
            info=info,
            shard_names=names,
            shard_samples=index.array("shards.samples"),
            shard_bytes=index.array("shards.size_bytes"),
            shard=index.array("shard"),
            label=index.array("label"),
            components={
                name: _select_component(store, info, index, name, described, whole=whole)
                for name, described in index.header["components"].items()
            },
            store=store,
            removed=removed,
            cache=cache,
            whole=whole,
            _keys=_read_texts(index, "key"),
            _index=index,
        )
        counts = info["counts"] | ({"samples": count_part_samples(info)} if SELECTED in info and whole else {})
        for what, found in (("samples", len(manifest)), ("shards", len(names))):
            if found != counts[what]:
                raise ShardError(
                    f"the manifest of {store.location} has {found} {what}, but dataset.json lists {counts[what]}; "
                    f"{REMEDY}"
                )
        return manifest

    def __len__(self) -> int:
        return len(self.label)

    def __str__(self) -> str:
        """Return the location, for messages."""
        return self.location

    def __reduce__(self) -> tuple[Callable[..., Manifest], tuple[Any, ...]]:
        if self.stored_names is not None:
            info, label = {**self.info, "label_names": [*self.stored_names]}, self._index.array("label")
            return Manifest.with_labels, (replace(self, info=info, label=label, stored_names=None), self.label_names)
        if is_starting_process():
            return _receive_index, (self.info, self.store, self._index.pickle_for_process(), self.removed, self.whole)
        return _load_index, (self.store, self.version, self.whole, self.removed)

    @property
    def location(self) -> str:
        """Path or URL of the split's folder."""
        return self.store.location

    @property
    def version(self) -> int:
        """Number of the version, from 1."""
        return int(self.info["version"])

    @property
    def label_names(self) -> tuple[str, ...]:
        """Label names by number; () if the split has only numeric labels."""
        return tuple(self.info["label_names"])

    def with_labels(self, names: Sequence[str]) -> Manifest:
        """Renumber the labels by their positions in another table of names, matching them by name.

        Labels of a split without names are identified by their numbers. The new labels take 8 bytes per sample, unless
        they are unchanged.

        Args:
            names: Label names by new number.

        Raises:
            ValueError: A sample has a label whose name is not in the table.
            ShardError: A label exceeds the names in dataset.json.
        """
        if tuple(names) == self.label_names:
            return self
        stored = self.label_names if self.stored_names is None else self.stored_names
        label: Int64s = self._index.array("label")
        if stored and int(label.max(initial=-1)) >= len(stored):
            raise ShardError(
                f"{self} has the label {label.max()}, but dataset.json lists only {len(stored)} names; {REMEDY}"
            )
        numbers = np.arange(len(stored)) if stored else np.unique(label[label >= 0])
        own = stored or tuple(map(str, numbers.tolist()))
        places = {name: place for place, name in reversed([*enumerate(names)])}
        moved = np.array([places.get(name, -1) for name in own], np.int64)
        if not np.array_equal(moved, numbers):
            at = label if stored else np.searchsorted(numbers, label)
            found = np.where(label < 0, -1, moved[at])
            lacking = np.setdiff1d(np.flatnonzero((found < 0) & (label >= 0)), self.removed, assume_unique=True)
            if len(lacking):
                unknown = sorted({own[n] for n in np.unique(at[lacking]).tolist()})
                raise ValueError(
                    f"{self} has {len(lacking)} samples with the classes {list_few(unknown, repr)}, which are "
                    f"not among the {len(names)} classes {list_few(names, repr)}"
                )
            label = found
        info = {**self.info, "label_names": [*names]}
        return replace(self, info=info, label=label, stored_names=stored)

    def key(self, i: int) -> str:
        """Return the key of sample i."""
        return self._keys[int(i)]

    def keys(self, indexes: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """Return the keys of the samples with the given numbers, (n,)."""
        return self._keys.many(np.asarray(indexes, np.int64))

    def sources(self) -> pa.LargeStringArray:
        """Return the source of each sample. Every call reads them from the parts again."""
        parts = [pa.array([], pa.large_string())]
        for part, rows in _list_rows_of_parts(self.store, self.info, whole=self.whole):
            with _read_columns(self.store, self.info, part["name"]) as reader:
                parts.append(reader.select(rows).strings("source"))
        return pa.concat_arrays(parts)

    def shards(self) -> list[ShardFacts]:
        """Return the facts of each shard."""
        return _shards(self._index)

    def shard_name(self, i: int) -> str:
        """Return the name in the store of the tar that holds sample i."""
        name: str = self.shard_names[self.shard[i]]
        return name

    @property
    def folder(self) -> Path:
        """Local folder of the split, for readers that use no store. Raises ValueError if the split is not local."""
        if not isinstance(self.store, LocalStore):
            raise ValueError(
                f"{self.location} is not a single local folder; copy it to one (`maskstream append` copies a "
                "merged split's shards) and use that"
            )
        return self.store.folder

    def shard_path(self, i: int) -> Path:
        """Return the path of the tar that holds sample i, for readers that use no store. Raises ValueError as `folder`
        does.
        """
        return self.folder / self.shard_name(i)

    def component(self, name: str) -> Component:
        """Return the component `name`. Raises ValueError if no sample has it."""
        if name not in self.components:
            raise ValueError(
                f"{self.location} has no component {name!r}; its components are {', '.join(self.components) or 'none'}"
            )
        return self.components[name]

    def is_removed(self, i: int) -> bool:
        """Return True if sample i was removed from the split."""
        at = int(np.searchsorted(self.removed, i))
        return at < len(self.removed) and int(self.removed[at]) == i

    def member(self, i: int, name: str) -> Range:
        """Return the byte range of component `name` of sample i.

        Raises:
            SampleError: The sample lacks the component.
            RemovedError: The sample was removed.
        """
        shard = self.shard_name(i)  # before the check, because `reopen` changes names after `removed`
        if len(self.removed) and self.is_removed(i):
            raise self._make_removed_error(i, name)
        component = self.components.get(name)
        if component is None or not component.offset[i]:
            raise self._missing(i, name)
        return Range(shard, int(component.offset[i]), int(component.size[i]))

    def video(self, i: int, name: str | None = None) -> VideoIndex:
        """Return the index of a video of sample i.

        Args:
            i: Number of the sample.
            name: Component of the video; None takes the only video component.

        Raises:
            SampleError: The sample lacks the component.
        """
        component = self.components[name] if name else component_of(self.components, (VIDEO.name,))
        if not component.offset[i]:
            raise self._missing(i, component.name)
        member = component.described(i)
        return VideoIndex.of(member.facts, member.words, member.lists)

    def reading(self, i: int, name: str) -> _Reading:
        """Return a context manager in which component `name` of sample i is parsed or decoded.

        All code that parses or decodes a member, or computes with its numbers in the manifest, runs in such a block,
        and no other code does. data_errors.py lists the errors that are attributed to the data.

        Raises:
            SampleError: The block failed because of the data.
            OutageError: The block failed because of the machine.
            MovedError: The file was replaced in an erasure; the manifest has been reopened.
        """
        return _Reading(self, i, name)

    def sample_error(self, i: int, name: str, reason: str) -> SampleError:
        """Return the error for an unusable component `name` of sample i: RemovedError if the sample was removed,
        SampleError with `reason` otherwise.
        """
        if len(self.removed) and self.is_removed(i):
            return self._make_removed_error(i, name)
        return SampleError(**self._where(i), component=name, reason=reason)

    def reopen(self, i: int, missing: str) -> bool:
        """Switch to the tars that replaced others in an erasure since the split was opened.

        The erased samples count as removed. All other samples keep their byte ranges and numbers, so rows that are
        already planned stay valid.

        Args:
            i: Number of the sample that was to be read.
            missing: Message about the missing file.

        Returns:
            True if the sample has moved to a tar other than this file.
        """
        with _REOPENING:
            for version in (self.version, None):  # a held-out split loses its earlier versions in an erasure
                with suppress(MaskstreamError):
                    found = Manifest.open(self.store, version=version, cache=self.cache, whole=self.whole)
                    if found.fingerprint == self.fingerprint and found.shard_names != self.shard_names:
                        self._switch_to(found)
                        return True
            name = PurePosixPath(self.shard_name(i)).name
            return name not in missing and f"{strip_tar_name(name)}." in missing  # another thread was first

    def _switch_to(self, found: Manifest) -> None:
        erased = len(np.setdiff1d(found.removed, self.removed))
        # `removed` first: the new tars have zeros where samples were erased, and no thread may read those.
        object.__setattr__(self, "removed", np.union1d(self.removed, found.removed))
        object.__setattr__(self, "store", found.store)
        object.__setattr__(self, "shard_names", found.shard_names)
        log.warning(
            "%d samples were erased from %s during reading: other samples replace them, and the rest are read "
            "from the new tars",
            erased,
            self.location,
        )

    def moved_error(self, i: int, name: str) -> MovedError:
        """Return the error for a request that was made before `reopen`."""
        return MovedError(**self._where(i), component=name, reason="the sample has moved to another tar")

    def _make_removed_error(self, i: int, name: str) -> RemovedError:
        return RemovedError(**self._where(i), component=name, reason="the sample was removed from the split")

    def _where(self, i: int) -> dict[str, str]:
        return {"shard": PurePosixPath(self.shard_name(i)).name, "key": self.key(i)}

    def _missing(self, i: int, name: str) -> SampleError:
        return self.sample_error(i, name, "the sample has no such component")

    def whole_numbers(self, indexes: Int64s) -> Int64s:
        """Return the numbers of samples, int64 (n,), among all samples of the parts, as files of a
        split number them.
        """
        selected = None if self.whole else read_selected(self.store, self.info)
        return indexes if selected is None else selected[indexes]

    @property
    def fingerprint(self) -> str:
        """Identity of the samples and their order: 32 hex digits of a sha256 of the shards' names and checksums."""
        return str(self.info["fingerprint"])


class _Reading:
    """The context manager of `Manifest.reading`. A class, because a generator takes 1 us longer and every sample needs
    several.
    """

    __slots__ = ("i", "manifest", "name")

    def __init__(self, manifest: Manifest, i: int, name: str) -> None:
        self.manifest, self.i, self.name = manifest, i, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        if isinstance(error, MissingFileError) and self.manifest.reopen(self.i, str(error)):
            raise self.manifest.moved_error(self.i, self.name) from error
        if (outage := find_outage(error)) is not None and not isinstance(error, MaskstreamError):
            raise OutageError(f"{self.manifest.shard_name(self.i)} cannot be read now ({outage.strerror})") from error
        if (reason := explain_data_error(error)) is not None:
            raise self.manifest.sample_error(self.i, self.name, reason) from error


SplitLocation = str | Path | Manifest
"""Path or URL of a split's folder, or the manifest of a split that is already open."""


def join_label_names(splits: Sequence[Manifest]) -> tuple[str, ...]:
    """Return the label names of several splits: the first split's names, then those that only the second has, etc.

    Labels without names are identified by their numbers. If no split has names, the result is empty.
    """
    tables = {split.label_names for split in splits}
    if len(tables) == 1:
        return tables.pop()
    numbers = (np.unique(split.label[split.label >= 0]) for split in splits)
    named = (split.label_names or map(str, own.tolist()) for split, own in zip(splits, numbers, strict=True))
    return tuple(dict.fromkeys(name for names in named for name in names))


def _load_index(store: Store, version: int, whole: bool, removed: Int64s) -> Manifest:
    return replace(Manifest.open(store, version=version, whole=whole), removed=removed)


def _receive_index(info: dict[str, Any], store: Store, descriptor: Any, removed: Int64s, whole: bool) -> Manifest:
    return Manifest._of(info, store, received(descriptor), removed, whole=whole)


def _list_part_names(info: Mapping[str, Any]) -> list[str]:
    return [part["name"] for part in info["parts"]]


def _list_rows_of_parts(
    store: Store, info: Mapping[str, Any], *, whole: bool
) -> Iterator[tuple[dict[str, Any], Int64s | None]]:
    """Yield each part with the sorted rows of it that belong to the split, int64 (n,), or None for all rows."""
    selected = None if whole else read_selected(store, info)
    start = 0
    for part in info["parts"]:
        stop = start + part["samples"]
        rows = None if selected is None else selected[slice(*np.searchsorted(selected, (start, stop)))] - start
        yield part, rows
        start = stop


def _index_key(info: Mapping[str, Any], *, whole: bool = True) -> str:
    """Return the file name of the index: a checksum of everything that its contents depend on."""
    parts = [(get_folder_name(name), info["files"][name][SUM]) for name in _list_part_names(info)]
    if not whole:
        parts.append((SELECTED, read_selected_sum(info)))
    return str(xxhash.xxh3_128_hexdigest(json.dumps([_INDEX_VERSION, info["profile"] == FOREIGN, parts]).encode()))


@contextmanager
def _read_columns(store: Store, info: Mapping[str, Any], name: str) -> Iterator[ColumnReader]:
    """Open the columns of the part `name`. Raises ShardError if they cannot be read."""
    path = f"{store.location}/{name}"
    data = read_checked(store, name, info["files"])
    with parsing(path), pq.ParquetFile(pa.BufferReader(data)) as file:
        yield ColumnReader(path, file)


def forget_index(info: Mapping[str, Any]) -> None:
    """Delete this machine's index of the manifest that a description refers to, if it exists."""
    for whole in {True, SELECTED not in info}:
        forget(_index_key(info, whole=whole))


def _read_texts(index: IndexFile, name: str) -> Texts:
    return Texts(index.array(f"{name}.start"), index.array(f"{name}.text"))


def _shards(index: IndexFile) -> list[ShardFacts]:
    return [ShardFacts.from_json(json.loads(one)) for one in _read_texts(index, "shards").whole()]


def _shard_files(shards: Sequence[ShardFacts]) -> dict[str, ShardFile]:
    """Return size and checksum of the tars and packet tables, for a remote store, which then need not query them."""
    files: dict[str, ShardFile] = {}
    for shard in shards:
        files[shard.name] = ShardFile(shard.size_bytes, shard.sha256)
        if shard.packets_sha256 is not None:
            files[name_packets_file(shard.name)] = ShardFile(None, shard.packets_sha256)
    return files


def _select_component(
    store: Store, info: Mapping[str, Any], index: IndexFile, name: str, described: Mapping[str, Any], *, whole: bool
) -> Component:
    return Component(
        name=name,
        kind=described["kind"],
        offset=index.array(f"{name}.{OFFSET}"),
        size=index.array(f"{name}.{SIZE}"),
        facts={word: index.array(f"{name}.{word}") for word in described["facts"]},
        words={
            word: Words(names=names, code=index.array(f"{name}.{word}")) for word, names in described["words"].items()
        },
        lists={
            word: Lists(start=index.array(start), values=index.array(f"{name}.{word}"))
            for word, start in described["lists"].items()
        },
        read_digest=partial(_read_digest, store, info, name, whole=whole),
    )


def _read_digest(store: Store, info: Mapping[str, Any], name: str, *, whole: bool) -> UInt8s:
    column = f"{name}.{DIGEST}"
    found = []
    for part, rows in _list_rows_of_parts(store, info, whole=whole):
        with _read_columns(store, info, part["name"]) as reader:
            if name in reader.kinds:
                digests = reader.digests(column, COMPONENT_COLUMNS[DIGEST])
                found.append(digests if rows is None else digests[rows])
            else:
                found.append(np.zeros((part["samples"] if rows is None else len(rows), DIGEST_BYTES), np.uint8))
    digests = np.concatenate(found)
    digests.flags.writeable = False
    return digests
