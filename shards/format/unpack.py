"""Unpack the parts of a manifest, one after another, into one index file.

A part is read completely into memory, compared with its checksum by the caller and parsed here; its columns are
appended to spool files on disk. So unpacking a manifest of any size takes only the memory of one part. Parts may lack
components, facts, words and lists of other parts; their samples then have 0, no word and empty lists.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import ShardError
from maskstream.shards.stores.folders import get_folder_name
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
    ShardFacts,
)
from .data_errors import REMEDY
from .index_cache import FILLED_AT_ONCE, IndexWriter, Spool

_SAMPLES_AT_ONCE = 1 << 14
"""Number of samples that are compared at once; their data stays in the processor's cache."""

Ints = npt.NDArray[np.integer]


def find_contradictions(
    shards: Sequence[ShardFacts],
    shard_names: Sequence[str],
    shard: Ints,
    label: Ints,
    members: Mapping[str, tuple[Ints, Ints]],
) -> Iterator[str]:
    """Find contradictions in the columns (N,) of N samples, between each other or with the part's `shards`.

    shard: Indexes of shard_names. members: Offset and size of each component's members in the tar, in bytes; 0 if a
    sample lacks it.
    """
    declared = {one.name: one for one in shards}
    if len({*shard_names}) < len(shard_names) or len(declared) < len(shards):
        yield "lists a shard twice"
    if strange := [name for name in shard_names if name not in declared]:
        yield f"lists {len(strange)} shards that it does not describe, such as {strange[0]!r}"
        return
    if len(shard) and not 0 <= shard.min() <= shard.max() < len(shard_names):
        yield f"has shard numbers from {shard.min()} to {shard.max()}, but {len(shard_names)} shards"
        return
    number = {one.name: i for i, one in enumerate(shards)}
    numbers = np.array([number[name] for name in shard_names], np.int64)
    wanted = np.repeat(np.arange(len(shards)), [min(one.samples, len(shard) + 1) for one in shards])
    if not np.array_equal(wanted, numbers[shard] if len(shard) else shard):
        yield f"has {len(shard)} samples that do not match the order and sizes of its {len(shards)} shards"
        return
    if len(label) and label.min() < -1:
        yield f"has the label {label.min()}; labels begin at 0; -1 means no label"
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
    """Collects the columns of parts. `new_file` creates the temporary files; `foreign` means that the parts index
    foreign tars.
    """

    def __init__(self, new_file: NewFile, *, foreign: bool) -> None:
        self._new_file = new_file
        self._foreign = foreign
        self._rows = 0
        self._names: set[str] = set()
        self._texts = {name: _Ragged(new_file, np.uint8) for name in ("shards.name", "shards", "key")}
        kinds = {"shards.samples": np.int64, "shards.size_bytes": np.int64, "shard": np.int32, "label": np.int64}
        self._numbers = {name: Spool(new_file, kind) for name, kind in kinds.items()}
        self._components: dict[str, _Component] = {}

    def add(self, part: Mapping[str, Any], reader: ColumnReader, rows: Int64s | None = None) -> None:
        """Add a part, which is described in dataset.json as `part`. Its shard names are relative to the folder in its
        name. rows: Sorted numbers of the samples to use; None for all.

        Raises ShardError if it contradicts its description, itself, or the parts before it.
        """
        for what, found in (("samples", reader.rows), ("shards", len(reader.shards))):
            if found != part[what]:
                raise ShardError(f"{reader.path} has {found} {what}, but dataset.json lists {part[what]}; {REMEDY}")
        reader = reader.select(rows)
        known = len(self._names)
        self._add_shards(part["name"], reader)
        words, shard = reader.codes("shard", SAMPLE_COLUMNS["shard"])
        label = reader.numbers("label", SAMPLE_COLUMNS["label"], np.int64)
        members = {name: self._read_places(reader, name) for name in reader.kinds}
        if problem := next(find_contradictions(reader.shards, words, shard, label, members), None):
            raise ShardError(f"{reader.path} {problem}; {REMEDY}")
        number = {one.name: known + i for i, one in enumerate(reader.shards)}
        numbers = np.array([number[word] for word in words], np.int32)
        self._numbers["shard"].append(numbers[shard] if len(shard) else shard)
        self._numbers["label"].append(label)
        self._texts["key"].add_texts(reader.strings("key"))
        for name, kind in reader.kinds.items():
            component = self._components.setdefault(name, _Component(kind, self._new_file))
            if component.kind != kind:
                raise ShardError(
                    f"{reader.path}: component {name!r} is {kind}, but {component.kind} in an earlier part; {REMEDY}"
                )
            component.add(reader, name, members[name], self._rows)
        self._rows += len(label)
        for component in self._components.values():
            component.fill(self._rows)
        if len(self._names) - known != len(reader.shards):
            raise ShardError(f"{reader.path} lists a shard twice; {REMEDY}")

    def write(self, stream: BinaryIO, key: str) -> None:
        """Write the index file, with `key` in its header, and delete the temporary files."""
        writer = IndexWriter(stream)
        for name, texts in self._texts.items():
            texts.write(writer, f"{name}.text", f"{name}.start")
        for name, spool in self._numbers.items():
            spool.write(writer, name)
        components = {name: component.write(writer, name) for name, component in self._components.items()}
        writer.finish({"key": key, "components": components})

    def _read_places(self, reader: ColumnReader, name: str) -> tuple[Array, Array]:
        offset, size = (reader.numbers(f"{name}.{word}", COMPONENT_COLUMNS[word], np.int64) for word in (OFFSET, SIZE))
        return offset, size

    def _add_shards(self, part: str, reader: ColumnReader) -> None:
        for shard in reader.shards:
            if problem := shard.check_part_name(foreign=self._foreign):
                raise ShardError(f"{reader.path}: {problem}; {REMEDY}")
        folder = get_folder_name(part)
        names = [f"{folder}/{one.name}" if folder and not is_url(one.name) else one.name for one in reader.shards]
        if twice := self._names.intersection(names):
            raise ShardError(
                f"{reader.path} lists the shard {min(twice)!r}, which an earlier part also lists; {REMEDY}"
            )
        self._names.update(names)
        described = [
            json.dumps(replace(one, name=name).to_json()) for one, name in zip(reader.shards, names, strict=True)
        ]
        self._texts["shards.name"].add_texts(build_text_array(names))
        self._texts["shards"].add_texts(build_text_array(described))
        for name in ("samples", "size_bytes"):
            self._numbers[f"shards.{name}"].append(np.array([getattr(one, name) for one in reader.shards], np.int64))


class _Ragged:
    """A column of texts or lists: their lengths, and their concatenated bytes or values."""

    def __init__(self, new_file: NewFile, dtype: npt.DTypeLike) -> None:
        self.lengths, self.values = Spool(new_file, np.int64), Spool(new_file, dtype)
        self.digest = xxhash.xxh3_128()
        """Add lengths."""

    def append(self, lengths: Array, values: Array) -> None:
        lengths = np.ascontiguousarray(lengths, np.int64)
        self.digest.update(lengths.view(np.uint8).data)
        self.lengths.append(lengths)
        self.values.append(values)

    def add_texts(self, texts: pa.LargeStringArray) -> None:
        if len(texts):
            offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
            data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
            self.append(np.diff(offsets), data[offsets[0] : offsets[-1]])

    def fill(self, rows: int) -> None:
        while (lacking := min(rows - self.lengths.length, FILLED_AT_ONCE)) > 0:
            self.append(np.zeros(lacking, np.int64), np.empty(0, np.int8))

    def write(self, writer: IndexWriter, name: str, start: str | None) -> None:
        """Write the values and, if `start` is a name, the first value of each row."""
        if start is not None:
            writer.put(start, np.int64, _starts(self.lengths))
        self.lengths.close()
        self.values.write(writer, name)


class _Component:
    """The columns of one component."""

    def __init__(self, kind: str, new_file: NewFile) -> None:
        self.kind = kind
        self._new_file = new_file
        self._types: dict[str, str] = {}
        self._spools: dict[str, Spool] = {}
        self._words: dict[str, dict[str, int]] = {}
        """Return the numbers of the words of a column, in the order in which the words first appear."""
        self._lists: dict[str, _Ragged] = {}

    def add(self, reader: ColumnReader, name: str, places: tuple[Array, Array], rows_before: int) -> None:
        """Add the columns of the component `name` of a part."""
        for word, values in zip((OFFSET, SIZE), places, strict=True):
            self._append(word, values, rows_before)
        for word, found in reader.list_word_types(name).items():
            if word in COMPONENT_COLUMNS:
                continue
            column, type_ = f"{name}.{word}", next((type_ for kind, type_ in _TYPES if found == kind), None)
            if type_ is None:
                legal = " or ".join(str(kind) for kind, _ in _TYPES)
                raise ShardError(f"{reader.path}: column {column!r} is {found}, not {legal}; {REMEDY}")
            if self._types.setdefault(word, type_) != type_:
                raise ShardError(f"{reader.path}: {column} has a different type than in an earlier part; {REMEDY}")
            if type_ == "list":
                if word not in self._lists:
                    self._lists[word] = _Ragged(self._new_file, np.int8)
                self._lists[word].fill(rows_before)
                self._lists[word].append(*reader.lists(column, LIST.value_type))
            elif type_ == "word":
                words, codes = reader.codes(column, found)
                number = self._words.setdefault(word, {})
                own = [number.setdefault(one, len(number)) for one in words]
                self._append(word, np.array([*own, -1], np.int32)[codes], rows_before)
            else:
                self._append(word, reader.numbers(column, found, FACTS[found]), rows_before)

    def _append(self, word: str, values: Array, rows_before: int) -> None:
        if word not in self._spools:
            self._spools[word] = Spool(self._new_file, values.dtype)
        self._spools[word].fill(rows_before, -1 if word in self._words else 0)
        self._spools[word].append(values)

    def fill(self, rows: int) -> None:
        """Fill in samples up to number `rows` that have no value yet, as samples without the component."""
        for word, spool in self._spools.items():
            spool.fill(rows, -1 if word in self._words else 0)
        for lists in self._lists.values():
            lists.fill(rows)

    def write(self, writer: IndexWriter, name: str) -> Mapping[str, Any]:
        """Write the columns and return their description. Lists of equal lengths share one array of them."""
        for word, spool in self._spools.items():
            spool.write(writer, f"{name}.{word}")
        starts: dict[bytes, str] = {}
        shared = {}
        for word, lists in self._lists.items():
            start = f"{name}.{word}.start"
            shared[word] = starts.setdefault(lists.digest.digest(), start)
            lists.write(writer, f"{name}.{word}", start if shared[word] == start else None)
        return {
            "kind": self.kind,
            "facts": [word for word, type_ in self._types.items() if type_ == "fact"],
            "words": {word: list(numbers) for word, numbers in self._words.items()},
            "lists": shared,
        }


_TYPES = (*((kind, "fact") for kind in FACTS), (WORD, "word"), (LIST, "list"))


def _starts(lengths: Spool) -> Iterator[Array]:
    """Yield the start of each value, given their lengths, and the end of the last one."""
    end = 0
    yield np.zeros(1, np.int64)
    for chunk in lengths.chunks():
        ends = end + np.cumsum(chunk)
        end = int(ends[-1])
        yield ends


def build_text_array(texts: Sequence[str]) -> pa.LargeStringArray:
    """Return the texts as an array. `pa.array` would import pandas where that is installed, which takes 0.3 s."""
    coded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, coded)], dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(coded))]
    return pa.Array.from_buffers(pa.large_string(), len(coded), buffers)
