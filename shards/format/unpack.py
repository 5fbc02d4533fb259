"""Unpacks the parts of a manifest, one after the other, into one index file.

A part is read whole into memory, compared with its checksum by the caller and parsed here; its columns are added to
spools on disk. So a manifest of any size is unpacked in the memory of one part. Parts may lack components, facts, words
and lists of others: their samples then have 0, no word and empty lists.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from maskstream.shards.errors import ShardError
from maskstream.shards.stores.folders import folder_name
from maskstream.shards.stores.url import is_url

from .columns import (
    COMPONENT_COLUMNS,
    FACTS,
    LIST,
    OFFSET,
    SAMPLE_COLUMNS,
    SIZE,
    WORD,
    ColumnReader,
    SelectedReader,
    ShardFacts,
)
from .data_errors import REMEDY
from .index_cache import IndexWriter, Spool

_SAMPLES_AT_ONCE = 1 << 14
"""Samples that are compared at once; their numbers stay in the processor's cache."""

Ints = npt.NDArray[np.integer]


def contradictions(
    shards: Sequence[ShardFacts],
    shard_names: Sequence[str],
    shard: Ints,
    label: Ints,
    members: Mapping[str, tuple[Ints, Ints]],
) -> Iterator[str]:
    """What contradicts the part's `shards` or itself in the columns of N samples, each (N,).

    shard: indexes of shard_names. members: offset and size of each component's members in the tar, in bytes, 0 if a
    sample lacks it.
    """
    declared = {one.name: one for one in shards}
    if len({*shard_names}) < len(shard_names) or len(declared) < len(shards):
        yield "names a shard twice"
    if strange := [name for name in shard_names if name not in declared]:
        yield f"names {len(strange)} shards that it does not describe, such as {strange[0]!r}"
        return
    if len(shard) and not 0 <= shard.min() <= shard.max() < len(shard_names):
        yield f"has shard numbers from {shard.min()} to {shard.max()}, but {len(shard_names)} shards"
        return
    number = {one.name: i for i, one in enumerate(shards)}
    numbers = np.array([number[name] for name in shard_names], np.int64)
    wanted = np.repeat(np.arange(len(shards)), [min(one.samples, len(shard) + 1) for one in shards])
    if not np.array_equal(wanted, numbers[shard] if len(shard) else shard):
        yield f"has {len(shard)} samples that are not in the order and numbers that it says of its {len(shards)} shards"
        return
    if len(label) and label.min() < -1:
        yield f"has the label {label.min()}; labels begin at 0, and -1 is none"
    sizes = np.array([declared[name].size_bytes for name in shard_names], np.int64)
    for name, (offset, size) in members.items():
        for begin in range(0, len(shard), _SAMPLES_AT_ONCE):
            some = slice(begin, begin + _SAMPLES_AT_ONCE)
            wrong = ((offset[some] | size[some]) < 0) | (offset[some] > sizes[shard[some]] - size[some])
            if wrong.any():
                i = begin + int(np.argmax(wrong))
                yield (
                    f"places component {name!r} of sample {i} at bytes {offset[i]} to {int(offset[i]) + int(size[i])} "
                    f"of {shard_names[shard[i]]}, which has {sizes[shard[i]]} bytes"
                )
                break


Array = npt.NDArray[Any]
NewFile = Callable[[], BinaryIO]


class Unpacker:
    """Collects the columns of parts. `new_file` makes the temporary files; `foreign`: the parts index foreign tars."""

    def __init__(self, new_file: NewFile, *, foreign: bool) -> None:
        self._new_file = new_file
        self._foreign = foreign
        self._rows = 0
        self._shard_names: set[str] = set()
        self._shards = _Shards(
            name=_Texts(new_file),
            sha256=_Texts(new_file),
            packets_sha256=_Texts(new_file),
            written=_Texts(new_file),
            samples=Spool(new_file, np.int64),
            size_bytes=Spool(new_file, np.int64),
        )
        self._key = _Texts(new_file)
        self._shard = Spool(new_file, np.int32)
        self._label = Spool(new_file, np.int64)
        self._components: dict[str, _Component] = {}

    def add(self, part: Mapping[str, Any], reader: ColumnReader, rows: npt.NDArray[np.int64] | None = None) -> None:
        """Add a part, which dataset.json describes as `part`. The names of its shards belong to the folder of its name.
        rows: those of its samples that count, sorted; None for all.

        Raises ShardError if it contradicts its description, itself, or the parts before it.
        """
        for what, found in (("samples", reader.rows), ("shards", len(reader.shards))):
            if found != part[what]:
                raise ShardError(f"{reader.path} has {found} {what}, but dataset.json says {part[what]}; {REMEDY}")
        if rows is not None:
            reader = SelectedReader(reader, rows)
        known = len(self._shard_names)
        names = self._add_shards(part["name"], reader)
        words, shard = reader.codes("shard", SAMPLE_COLUMNS["shard"])
        label = reader.numbers("label", SAMPLE_COLUMNS["label"], np.int64)
        members = {name: self._read_places(reader, name) for name in reader.kinds}
        if problem := next(contradictions(reader.shards, words, shard, label, members), None):
            raise ShardError(f"{reader.path} {problem}; {REMEDY}")
        number = {one.name: known + i for i, one in enumerate(reader.shards)}
        numbers = np.array([number[word] for word in words], np.int32)
        self._shard.append(numbers[shard] if len(shard) else shard)
        self._label.append(label)
        self._key.append(reader.strings("key"))
        for name, kind in reader.kinds.items():
            component = self._components.setdefault(name, _Component(kind, self._new_file))
            if component.kind != kind:
                raise ShardError(
                    f"{reader.path}: component {name!r} is {kind}, but in an earlier part it is {component.kind}; "
                    f"{REMEDY}"
                )
            component.add(reader, name, members[name], self._rows)
        self._rows += len(label)
        for component in self._components.values():
            component.fill(self._rows)
        if len(names) != len(reader.shards):
            raise ShardError(f"{reader.path} names a shard twice; {REMEDY}")

    def write(self, stream: BinaryIO, key: str) -> None:
        """Write the index file, with `key` in its header, and delete the temporary files."""
        writer = IndexWriter(stream)
        self._shards.write(writer)
        self._key.write(writer, "key")
        for name, spool in (("shard", self._shard), ("label", self._label)):
            _put(writer, name, spool)
        components = {name: component.write(writer, name) for name, component in self._components.items()}
        writer.finish({"key": key, "components": components})

    def _read_places(self, reader: ColumnReader, name: str) -> tuple[Array, Array]:
        offset, size = (reader.numbers(f"{name}.{word}", COMPONENT_COLUMNS[word], np.int64) for word in (OFFSET, SIZE))
        return offset, size

    def _add_shards(self, part: str, reader: ColumnReader) -> set[str]:
        for shard in reader.shards:
            if problem := shard.problem_of_name(foreign=self._foreign):
                raise ShardError(f"{reader.path}: {problem}; {REMEDY}")
        folder = folder_name(part)
        names = [f"{folder}/{one.name}" if folder and not is_url(one.name) else one.name for one in reader.shards]
        if twice := self._shard_names.intersection(names):
            raise ShardError(f"{reader.path} names the shard {min(twice)!r}, as an earlier part does; {REMEDY}")
        self._shard_names.update(names)
        self._shards.name.append(text_array(names))
        self._shards.sha256.append(text_array([shard.sha256 for shard in reader.shards]))
        packets = [shard.packets_sha256 or "" for shard in reader.shards]
        self._shards.packets_sha256.append(text_array(packets))
        written = ["" if shard.written is None else "\n".join(shard.written) for shard in reader.shards]
        self._shards.written.append(text_array(written))
        self._shards.samples.append(np.array([shard.samples for shard in reader.shards], np.int64))
        self._shards.size_bytes.append(np.array([shard.size_bytes for shard in reader.shards], np.int64))
        return set(names)


class _Texts:
    """A column of texts: their lengths and their bytes."""

    def __init__(self, new_file: NewFile) -> None:
        self._lengths = Spool(new_file, np.int64)
        self._text = Spool(new_file, np.uint8)

    def append(self, texts: pa.LargeStringArray) -> None:
        offsets = np.frombuffer(texts.buffers()[1] or bytes(8), np.int64)[texts.offset :][: len(texts) + 1]
        if len(texts):
            data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
            self._lengths.append(np.diff(offsets))
            self._text.append(data[offsets[0] : offsets[-1]])

    def write(self, writer: IndexWriter, name: str) -> None:
        writer.put(f"{name}.start", np.int64, _starts(self._lengths))
        self._lengths.close()
        _put(writer, f"{name}.text", self._text)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shards:
    name: _Texts
    sha256: _Texts
    packets_sha256: _Texts
    written: _Texts
    samples: Spool
    size_bytes: Spool

    def write(self, writer: IndexWriter) -> None:
        self.name.write(writer, "shards.name")
        self.sha256.write(writer, "shards.sha256")
        self.packets_sha256.write(writer, "shards.packets_sha256")
        self.written.write(writer, "shards.written")
        _put(writer, "shards.samples", self.samples)
        _put(writer, "shards.size_bytes", self.size_bytes)


@dataclass(slots=True)
class _Words:
    codes: Spool
    number: dict[str, int] = field(default_factory=dict)

    def append(self, words: list[str], codes: Array) -> None:
        """Add codes of `words`; the codes of the whole column number the words in the order in which they appear."""
        own = [self.number.setdefault(word, len(self.number)) for word in words]
        self.codes.append(np.array([*own, -1], np.int32)[codes])


@dataclass(slots=True)
class _Lists:
    lengths: Spool
    values: Spool
    digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)

    def append(self, lengths: Array, values: Array) -> None:
        lengths = np.ascontiguousarray(lengths, np.int64)
        self.digest.update(lengths.data.cast("B") if len(lengths) else b"")
        self.lengths.append(lengths)
        self.values.append(values)


class _Component:
    """The columns of one component."""

    def __init__(self, kind: str, new_file: NewFile) -> None:
        self.kind = kind
        self._new_file = new_file
        self._places = {word: Spool(new_file, np.int64) for word in (OFFSET, SIZE)}
        self._facts: dict[str, Spool] = {}
        self._words: dict[str, _Words] = {}
        self._lists: dict[str, _Lists] = {}

    def add(self, reader: ColumnReader, name: str, places: tuple[Array, Array], rows_before: int) -> None:
        """Add the columns of the component `name` of a part."""
        self.fill(rows_before)
        for spool, values in zip(self._places.values(), places, strict=True):
            spool.append(values)
        for word, found in reader.word_types(name).items():
            if word in COMPONENT_COLUMNS:
                continue
            column = f"{name}.{word}"
            if found == WORD:
                words = self._words.setdefault(word, _Words(Spool(self._new_file, np.int32)))
                _fill(words.codes, rows_before, -1)
                words.append(*reader.codes(column, found))
            elif found == LIST:
                empty = _Lists(Spool(self._new_file, np.int64), Spool(self._new_file, np.int8))
                lists = self._lists.setdefault(word, empty)
                _fill_lists(lists, rows_before)
                lists.append(*reader.lists(column, LIST.value_type))
            elif found in FACTS:
                fact = self._facts.setdefault(word, Spool(self._new_file, FACTS[found]))
                _fill(fact, rows_before, 0)
                fact.append(reader.numbers(column, found, FACTS[found]))
            else:
                legal = " or ".join(map(str, (*FACTS, WORD, LIST)))
                raise ShardError(f"{reader.path}: column {column!r} is {found}, not {legal}; {REMEDY}")
        twice = [word for word in self._facts if word in self._words or word in self._lists]
        twice += [word for word in self._words if word in self._lists]
        if twice:
            raise ShardError(f"{reader.path}: {name}.{twice[0]} has another type than in an earlier part; {REMEDY}")

    def fill(self, rows: int) -> None:
        """Give the samples up to number `rows` that have no value yet the values of samples without the component."""
        for spool in (*self._places.values(), *self._facts.values()):
            _fill(spool, rows, 0)
        for words in self._words.values():
            _fill(words.codes, rows, -1)
        for lists in self._lists.values():
            _fill_lists(lists, rows)

    def write(self, writer: IndexWriter, name: str) -> Mapping[str, Any]:
        """Write the columns and return their description. Lists of equal lengths share one array of them."""
        for word, spool in (*self._places.items(), *self._facts.items()):
            _put(writer, f"{name}.{word}", spool)
        for word, words in self._words.items():
            _put(writer, f"{name}.{word}", words.codes)
        starts: dict[bytes, str] = {}
        shared = {}
        for word, lists in self._lists.items():
            same = lists.digest.digest()
            if same not in starts:
                starts[same] = f"{name}.{word}.start"
                writer.put(starts[same], np.int64, _starts(lists.lengths))
            lists.lengths.close()
            shared[word] = starts[same]
            _put(writer, f"{name}.{word}", lists.values)
        return {
            "kind": self.kind,
            "facts": list(self._facts),
            "words": {word: list(words.number) for word, words in self._words.items()},
            "lists": shared,
        }


_AT_ONCE = 1 << 20


def _fill(spool: Spool, rows: int, value: int) -> None:
    while spool.length < rows:
        spool.append(np.full(min(rows - spool.length, _AT_ONCE), value, np.int8).astype(spool.dtype))


def _fill_lists(lists: _Lists, rows: int) -> None:
    while lists.lengths.length < rows:
        lists.append(np.zeros(min(rows - lists.lengths.length, _AT_ONCE), np.int64), np.empty(0, np.int8))


def _put(writer: IndexWriter, name: str, spool: Spool) -> None:
    writer.put(name, spool.dtype, spool.chunks())
    spool.close()


def _starts(lengths: Spool) -> Iterator[Array]:
    """Where each of the values begins whose lengths are given, and the end of the last one."""
    end = 0
    yield np.zeros(1, np.int64)
    for chunk in lengths.chunks():
        ends = end + np.cumsum(chunk)
        end = int(ends[-1])
        yield ends


def text_array(texts: Sequence[str]) -> pa.LargeStringArray:
    """The texts as an array. `pa.array` would import pandas where that is installed, which takes 0.3 s."""
    coded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, coded)], dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(coded))]
    return pa.Array.from_buffers(pa.large_string(), len(coded), buffers)
