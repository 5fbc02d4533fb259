"""Files next to a split that derive from its samples: splits that share its parts, stored targets, feature tables and
cards; and other files there that name a sample.

Files elsewhere are not found, because a split does not list what was derived from it, except its validation splits.
"""

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.errors import MaskstreamError, ShardError, StoreError
from maskstream.shards.format.dataset import (
    DATASET_JSON,
    HELD_OUT,
    HELD_OUT_OF,
    is_index,
    is_split,
    list_versions,
    read_description,
)
from maskstream.shards.format.records import RECORDS
from maskstream.shards.format.sample import TARGETS
from maskstream.shards.format.tokenizer import TOKENIZER_JSON
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.folders import joined, seen_from
from maskstream.shards.stores.local_files import LOCK
from maskstream.shards.stores.open import open_store
from maskstream.shards.stores.output import Location, Output, open_output, split_folder_and_name, within
from maskstream.shards.stores.url import is_url

from .adding import complete_location
from .card import README, as_text, renew_card
from .merging import MERGED

Json = dict[str, Any]
_FEATURES = {b"weights", b"split", b"fingerprint"}
"""Metadata of a table written by `maskstream embed`."""
_LIST = ["key", "why", "of"]
"""First columns of a list of samples left out by `maskstream curate`."""
_MOST_BYTES = 1 << 30
_GROUP_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependents:
    """Files that derive from a split, in its folder and in those of its validation splits.

    Attributes:
        folders: These folders.
        held: Validation and few-sample splits of it.
        merged: Splits merged from it.
        targets: Stored targets of one of all these.
        others: Other splits there, with their descriptions.
        unread: Reasons why splits there cannot be read, so that it is unknown whether they derive from this split.
    """

    folders: list[Location] = field(default_factory=list)
    held: list[Output] = field(default_factory=list)
    merged: list[Output] = field(default_factory=list)
    targets: list[Output] = field(default_factory=list)
    others: list[tuple[Output, Json]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def list_dependents(split: Output) -> Dependents:
    """Return the dependents of a split."""
    own = _normalise_location(complete_location(split))
    listed = [joined(str(own), one["folder"]) for one in read_description(split.store).get(HELD_OUT, ())]
    folders = {
        str(split_folder_and_name(one)[0]): split_folder_and_name(one)[0]
        for one in (own, *map(_normalise_location, listed))
    }
    found, fingerprints = Dependents(folders=[*folders.values()]), _collect_fingerprints(split)
    stored: list[tuple[Output, Json]] = []
    for place in [within(folder, name) for folder in found.folders for name in open_store(folder).folders()]:
        other = open_output(place)
        if str(place) == str(own) or not is_split(other.store):
            continue
        try:
            info = read_description(other.store)
        except ShardError as error:
            found.unread.append(str(error))
            continue
        if info["modality"] == TARGETS:
            stored.append((other, info))
        elif seen_from(place, own) not in info["settings"].get(MERGED, ()):
            found.others.append((other, info))
        else:
            fingerprints |= _collect_fingerprints(other)
            (found.held if HELD_OUT_OF in info else found.merged).append(other)
    for other, info in stored:
        facts = info["settings"].get(TARGETS)
        is_ours = isinstance(facts, dict) and facts.get("fingerprint") in fingerprints
        found.targets.append(other) if is_ours else found.others.append((other, info))
    return found


def _normalise_location(place: Location) -> Location:
    return place if is_url(place) else Path(place).resolve()


def _collect_fingerprints(split: Output) -> set[str]:
    """Return the fingerprints of all readable versions of a split."""
    found = set[str]()
    for version in (None, *list_versions(split.store)):
        with suppress(ShardError):
            found.add(read_description(split.store, version)["fingerprint"])
    return found


def erase_rows(folders: Iterable[Location], keys: AbstractSet[str]) -> list[Location]:
    """Rewrite the feature tables and curation lists in these folders without the samples with these keys.

    Returns:
        The locations of the rewritten files.
    """
    changed = []
    for folder in folders:
        output = open_output(folder)
        for name in _list_files_in(folder):
            if name.endswith(".parquet") and (data := _drop_rows(_read(output, name) or b"", keys)):
                output.publish(name, data)
                changed.append(within(folder, name))
    return changed


def _drop_rows(data: bytes, keys: AbstractSet[str]) -> bytes | None:
    """Return such a table without these samples; None if it has none of them or is another kind of file."""
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            metadata = {name: one for name, one in (file.metadata.metadata or {}).items() if name != b"ARROW:schema"}
            if not metadata.keys() >= _FEATURES and file.schema_arrow.names[:3] != _LIST:
                return None
            table = file.read(use_threads=False)
        kept = [key not in keys for key in table["key"].to_pylist()]
    except (pa.ArrowException, KeyError):
        return None
    if all(kept):
        return None
    sink = pa.BufferOutputStream()
    left = table.filter(pa.array(kept)).replace_schema_metadata(metadata)
    pq.write_table(left, sink, compression="zstd", row_group_size=_GROUP_ROWS)
    return bytes(sink.getvalue())


def _read(output: Output, name: str) -> bytes | None:
    """Return the contents of a file; None if it is too large or cannot be read."""
    try:
        return output.whole(name, _MOST_BYTES) or b""
    except StoreError:
        return None


def renew_cards(splits: Sequence[Output], folders: Iterable[Location]) -> tuple[list[Location], list[str]]:
    """Rewrite the cards of splits and of their folders; return their locations, and the errors."""
    renewed, failed = list[Location](), list[str]()
    for place in (*map(complete_location, splits), *folders):
        try:
            renewed += [within(place, README)] if renew_card(place) else []
        except MaskstreamError as error:
            failed.append(f"the card in {place} could not be written again ({error})")
    return renewed, failed


def find_files_that_name(splits: Sequence[Output], folders: Sequence[Location], words: Iterable[str]) -> Iterator[str]:
    """Yield the files next to splits, or in their folders, whose name or contents include one of some words.

    Compressed contents are searched too, but not files that belong to a finished split. Each file is listed with the
    remedy.
    """
    wanted = sorted({*words} - {""})
    variants = {form for word in wanted for form in (word, json.dumps(word)[1:-1], html.escape(word), as_text(word))}
    forms = sorted(form.encode("utf-8", "surrogateescape") for form in variants)
    places = [
        (place, name)
        for place in map(complete_location, splits)
        for name in open_output(place).names()
        if not _is_of_split(name)
    ]
    places += [(folder, name) for folder in folders for name in _list_files_in(folder)]
    for place, name in places:
        data = _read(open_output(place), name)
        if data is None:
            yield f"{within(place, name)} cannot be searched (too large, or unreadable); check whether it names them"
        elif _names_one(name.encode("utf-8", "surrogateescape"), forms) or _names_one(_unpacked(name, data), forms):
            yield f"{within(place, name)} still names them; delete it, or recreate it"


def _is_of_split(name: str) -> bool:
    """Return whether a file in a split's folder was written by maskstream and is handled by the erasure."""
    is_record = name.startswith(f"{RECORDS}/") and name.endswith(".record")
    return (
        is_index(name)
        or is_record
        or name in (DATASET_JSON, TOKENIZER_JSON, LOCK)
        or name.endswith((".tar", ".idx", SUMS))
    )


def _list_files_in(folder: Location) -> list[str]:
    """Return the names of the files directly in a folder."""
    if is_url(folder):
        return [name for name in open_output(folder).names() if "/" not in name]
    return sorted(path.name for path in Path(folder).iterdir() if path.is_file())


def _unpacked(name: str, data: bytes) -> bytes:
    """Return a file's contents, or the texts of a Parquet table."""
    if not name.endswith(".parquet"):
        return data
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            texts = [str(file.metadata.metadata or {}), *file.schema_arrow.names]
            for batch in file.iter_batches(use_threads=False):
                texts += [
                    str(one)
                    for column in batch.columns
                    if not (pa.types.is_primitive(column.type) or pa.types.is_fixed_size_list(column.type))
                    for one in column.to_pylist()
                ]
    except pa.ArrowException:
        return data
    return "\n".join(texts).encode("utf-8", "surrogateescape")


def _names_one(data: bytes, forms: Sequence[bytes]) -> bool:
    return any(_is_whole_word(data, at, form) for form in forms for at in _places(data, form))


def _places(data: bytes, form: bytes) -> Iterator[int]:
    at = data.find(form)
    while at >= 0:
        yield at
        at = data.find(form, at + 1)


def _is_whole_word(data: bytes, at: int, form: bytes) -> bool:
    """Return whether a word is not part of a longer one, as "cat" is in "category"."""
    around = data[at - 1 : at] if at else b"", data[at + len(form) : at + len(form) + 1]
    return not any(one.isalnum() for one in around)


def merge_command(merged: Output) -> str:
    """Return the command that merges a split again."""
    splits = [joined(merged.location, one) for one in read_description(merged.store)["settings"][MERGED]]
    return " ".join(["maskstream merge", merged.location, *(str(_normalise_location(one)) for one in splits)])
