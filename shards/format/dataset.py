"""Finishes a split: writes manifest, rejects and `dataset.json`, whose existence marks the split as finished.

dataset.json describes the current version of the split and names the parts of its manifest. versions/N.json is the same
description for version N. Parts never change, so a new version adds only a few lines.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from maskstream.shards.checksummed import CHECKSUM, add_checksum, read_checksummed
from maskstream.shards.errors import MissingFileError, OutageError, ShardError, StoreError, UnlistedError
from maskstream.shards.reach import is_file_name
from maskstream.shards.stores.base import Store
from maskstream.shards.stores.folders import file_name, is_elsewhere
from maskstream.shards.stores.local import LocalStore
from maskstream.shards.stores.open import open_store
from maskstream.shards.stores.output import Location, Output, Sizes, open_output, split_folder_and_name, within
from maskstream.shards.stores.url import beside, is_url

from .checked_file import SIZE_BYTES, SUM, facts_of, read_checked
from .columns import FINGERPRINT_DIGITS, FORMAT, build_rejects_table
from .data_errors import REMEDY, parsing
from .part_writer import PartWriter, encode_parquet, find_repeated_keys
from .records import ShardRecord
from .sample import DatasetInfo, Reject
from .tokenizer import ERASED_TOKENIZER, TOKENIZER

DATASET_JSON = "dataset.json"
VERSIONS = "versions"
"""Folder of the descriptions of all versions; also the field of dataset.json with the checksums of earlier versions."""
REJECTS = "rejects.parquet"
PART = re.compile(r"manifest-\d{6}\.parquet")
_INDEX = re.compile(
    rf"(manifest|rejects|removed|selected)(-\d{{6}}){{0,2}}\.parquet|versions/\d+\.json|{ERASED_TOKENIZER.pattern}"
)
FOREIGN = "foreign"
"""Profile of an index of foreign tars, which other programs wrote."""
HELD_OUT, HELD_OUT_OF = "held_out", "held_out_of"
"""Fields of dataset.json. A divided split has the first, which describes the validation split; the validation split has
the second, with the folder of the divided split.
"""
FEW = "few"
"""Field of dataset.json of a few-shot split: the number of samples per label, and the seed of the choice."""
CURATIONS = "curations"
"""Field of dataset.json of a curated split. Each curation has its options, the version that it started from, the number
of samples of all parts, and the version that it produced.
"""
CURATION_OF = "of"
"""Field of a curation of another split, which was merged into this one: the folder of that split."""
MOST_VERSIONS = 100_000
"""Most versions of one split. `verify` opens each, so a damaged number must not make it loop over billions."""
MAX_JSON_BYTES = 1 << 28
"""Largest dataset.json that is read. Ten million samples need 50 kB."""

MAX_SPLITS_NAMED = 20
"""Most folders that are searched for splits when a location is not a split."""

_AGAIN = (
    "make the shards again with `maskstream shards DATASET ... --overwrite`, or `maskstream index` for foreign tars"
)
_TEXTS = ("dataset", "split", "modality", "profile", "fingerprint", "rejects")
_KEYS = (*_TEXTS, "version", "settings", "label_names", "counts", "files", "parts")
_COUNTS: dict[str, type] = dict.fromkeys(("samples", "rejects", "shards", "bytes"), int)
_PART: dict[str, type] = {"name": str, "samples": int, "shards": int}
_CURATION: dict[str, type] = {"asked": dict, "began": int, "samples": int, "made": int}
_FILE: dict[str, type] = {SIZE_BYTES: int, SUM: str}


def finish_split(
    folder: Location | Output, info: DatasetInfo, shards: Iterable[ShardRecord], rejects: Sequence[Reject]
) -> None:
    """Write the index of a split: the parts of the manifest, rejects.parquet, versions/1.json and, last, dataset.json.

    dataset.json and versions/1.json are equal; they have the checksums of all files and of themselves. The same input
    gives the same bytes; rejects are sorted by source. An existing dataset.json is deleted first, so it never describes
    other files. Where no lock excludes other runs (an object store), it is kept, and so are its files: an equal one was
    written by another run of the same job.

    Args:
        folder: Folder of the split, or its output.
        info: Description of the split.
        shards: Records of the shards. An iterator yields them in the order of their names, and only the rows of one
            part are in memory; a sequence is sorted.
        rejects: Sources that did not become samples.

    Raises:
        ShardError: The existing dataset.json is from another job, a shard is missing or has another size, or two
            samples have the same key.
    """
    output = open_output(folder)
    rejects = sorted(rejects, key=lambda reject: (reject.source, reject.stage, reject.reason))
    if output.is_locked:
        output.remove([DATASET_JSON])
        output.remove_leftovers(VERSIONS)
    standing = _find_standing(output)

    def publish(name: str, data: bytes) -> None:
        if standing is not None and standing.get(name) != facts_of(data):
            raise ShardError(_explain_another(output))
        output.publish(name, data)

    writer, sizes = PartWriter(publish), output.sizes()
    for shard in sorted(shards, key=lambda shard: shard.name) if isinstance(shards, Sequence) else shards:
        _check_file(sizes, shard)
        writer.add(shard)
    writer.finish()
    _check_keys(output.store, writer)
    refused = encode_parquet(build_rejects_table(rejects))
    publish(REJECTS, refused)
    description = {
        "format": FORMAT,
        "version": 1,
        "dataset": info.dataset,
        "split": info.split,
        "modality": info.modality,
        "profile": info.profile,
        "settings": info.settings,
        "fingerprint": writer.names.hexdigest()[:FINGERPRINT_DIGITS],
        "counts": writer.counts | {"rejects": len(rejects)},
        "label_names": list(info.label_names),
        "rejects": REJECTS,
        "parts": writer.parts,
        "files": writer.files | {REJECTS: facts_of(refused)},
        VERSIONS: {},
    } | ({"sums": sums} if (sums := writer.sums) else {})
    json.dumps(description, allow_nan=False)  # raises ValueError for values that are not valid JSON
    data = add_checksum(description)
    if output.whole(DATASET_JSON, MAX_JSON_BYTES) not in (None, data):
        raise ShardError(_explain_another(output))
    output.publish(name_version(1), data)
    if not output.create(DATASET_JSON, data) and output.whole(DATASET_JSON, MAX_JSON_BYTES) != data:
        raise ShardError(_explain_another(output))
    output.remove([name for name in output.names() if is_index(name) and name not in _written(description)])


def _find_standing(output: Output) -> dict[str, Any] | None:
    """Return the facts of the files in the existing dataset.json; None if it does not exist."""
    data = output.whole(DATASET_JSON, MAX_JSON_BYTES)
    if data is None:
        return None
    try:
        return dict(read_checksummed(data)["files"])
    except (ValueError, KeyError, TypeError):
        return {}


def _explain_another(output: Output) -> str:
    return (
        f"{within(output.location, DATASET_JSON)} already exists and differs from this run's, so another run "
        "wrote it with different rejects or settings; if no other run is active, delete it and run the same "
        "command again"
    )


def publish_version(output: Output, description: Mapping[str, Any]) -> None:
    """Write versions/N.json and then the same as dataset.json, which makes version N the current one.

    Both store the checksums of the descriptions of all earlier versions: those in `description`, and otherwise the
    checksums of the files. The caller is the only writer of the split; leftovers of killed writers in versions/ are
    removed.
    """
    output.remove_leftovers(VERSIONS)
    known, version = description.get(VERSIONS, {}), description["version"]
    earlier = [number for number in list_versions(output.store) if number < version]
    sums = {str(number): known.get(str(number)) or [sum_of_version(output.store, number)] for number in earlier}
    data = add_checksum({**description, VERSIONS: sums})
    output.publish(name_version(version), data)
    output.publish(DATASET_JSON, data)


def sum_of_version(store: Store, version: int) -> str:
    """Return the checksum of the description of a version."""
    return _sum(store.whole(name_version(version), MAX_JSON_BYTES))


def _sum(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def name_version(version: int) -> str:
    """Return the name of the description of a version."""
    return f"{VERSIONS}/{version}.json"


def list_versions(store: Store) -> list[int]:
    """Return the numbers of a split's versions, sorted. Raises UnlistedError if the store cannot list files."""
    names = store.names(f"{VERSIONS}/")
    found = (name.removeprefix(f"{VERSIONS}/").removesuffix(".json") for name in names)
    return sorted(int(number) for number in found if number.isdecimal())


def is_index(name: str) -> bool:
    """Return True if a file of a split's folder belongs to its index.

    The index consists of parts, rejects, descriptions of versions, and tokenizers from which words were erased.
    """
    return bool(_INDEX.fullmatch(name))


def _written(description: Mapping[str, Any]) -> set[str]:
    """Return the names of the index files of a split with one version."""
    return {*description["files"], name_version(description["version"])}


def read_dataset_json(location: str | Path, version: int | None = None) -> dict[str, Any]:
    """Read the dataset.json of the split at a location; see `read_description`."""
    return read_description(open_store(location), version)


def read_description(store: Store, version: int | None = None) -> dict[str, Any]:
    """Read the dataset.json of a split: format, version, dataset, split, modality, profile, settings, ...

    Args:
        store: Store of the split's folder.
        version: Version whose description is read instead; None reads dataset.json.

    Raises:
        ShardError: The file is missing, not regular, damaged (it contains its own checksum), or of another format; a
            file's name leads out of the folder; or dataset.json and the version's description contradict each other.
    """
    seen = None
    while True:
        name = DATASET_JSON if version is None else name_version(version)
        data = _read_json(store, name)
        info = _parse(f"{store.location}/{name}", data)
        problem, other = _find_contradiction(store, info, data, version)
        if problem is None:
            return info
        if seen == (data, other):
            raise ShardError(f"{problem}; {REMEDY}")
        seen = data, other  # a writer may have changed one file between the two reads, so both are read again


def _parse(path: str, data: bytes) -> dict[str, Any]:
    try:
        info = read_checksummed(data)
    except ValueError as error:
        if (found := _explain_older_format(data)) is not None:
            raise ShardError(_explain_other_format(path, found)) from error
        raise ShardError(f"{path} is damaged: {error}; {REMEDY}") from error
    if (format_ := info.get("format")) != FORMAT:
        raise ShardError(_explain_other_format(path, format_))
    with parsing(path):
        _check_form(path, info)
        _check_names(path, info)
    return info


def _find_contradiction(
    store: Store, info: Mapping[str, Any], data: bytes, version: int | None
) -> tuple[str | None, bytes | None]:
    """Explain how a description contradicts the other file about its version (None if it does not), and return that
    file.

    dataset.json equals the description of its version, and stores the checksums of earlier ones. Splits of an earlier
    release have no such checksums, and a missing checksum is not a contradiction.
    """
    number = info["version"] if version is None else version
    path = f"{store.location}/{name_version(number)}"
    if info["version"] != number:
        return f"{path} describes version {info['version']}", None
    other = _read_if_there(store, name_version(number) if version is None else DATASET_JSON)
    if other is None:
        return None, None
    current, described = (data, other) if version is None else (other, data)
    try:
        about = info if version is None else read_checksummed(other)
        sums = about.get(VERSIONS, {}).get(str(number), [])
        legal = [_sum(current), *sums] if about["version"] == number else sums
        is_of_before = VERSIONS not in about and not (version is None and VERSIONS in read_checksummed(described))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, other  # the other one is damaged, which is reported when it is read
    if is_of_before or not legal or _sum(described) in legal:
        return None, other
    return f"{path} does not match its description in {DATASET_JSON}: one of them was changed", other


def _read_if_there(store: Store, name: str) -> bytes | None:
    try:
        return store.whole(name, MAX_JSON_BYTES)
    except OutageError:
        raise
    except StoreError:
        return None


def is_split(store: Store) -> bool:
    """Return True if a store has a dataset.json."""
    try:
        store.size(DATASET_JSON)
    except StoreError:
        return False
    return True


def list_own_curations(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the records of curations that created versions of the described split itself."""
    return [one for one in info.get(CURATIONS, ()) if CURATION_OF not in one]


def store_beside(store: Store, name: str) -> Store | None:
    """Open the sibling split `name`, in the folder of a split or of the target of its link; None if
    it does not exist.
    """
    places = (within(split_folder_and_name(store.location)[0], name), beside(store.location, name))
    stores = (open_store(place) for place in dict.fromkeys(map(str, places)))
    return next(filter(is_split, stores), None)


def _read_json(store: Store, name: str) -> bytes:
    try:
        return store.whole(name, MAX_JSON_BYTES)
    except MissingFileError as error:
        raise ShardError(_explain_no_version(store, name) if is_split(store) else _explain_no_split(store)) from error
    except StoreError as error:
        raise ShardError(f"{error}; {REMEDY}") from error


def _explain_older_format(data: bytes) -> str | None:
    """Return the format of a dataset.json that predates its own checksum; None for any other contents."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or CHECKSUM in fields or fields.get("format") == FORMAT:
        return None
    return str(fields.get("format"))


def _explain_other_format(path: str, found: object) -> str:
    return f"{path} has the format {found!r}; this version of maskstream reads {FORMAT!r}: {_AGAIN}"


def _check_form(path: str, info: dict[str, Any]) -> None:
    """Raise ShardError for missing fields and fields of other types."""
    if missing := [key for key in _KEYS if key not in info]:
        raise ShardError(f"{path} lacks {', '.join(missing)}; {REMEDY}")
    files = info["files"] if isinstance(info["files"], dict) else {}
    used = [info["rejects"], *(info[name] for name in ("removed", "selected", TOKENIZER) if name in info)]
    forms = {
        "version": type(info["version"]) is int and 0 < info["version"] <= MOST_VERSIONS,
        "counts": _has_shape(info["counts"], _COUNTS),
        "parts": _is_list_of(info["parts"], partial(_has_shape, types=_PART))
        and len({part["name"] for part in info["parts"]} & files.keys()) == len(info["parts"]),
        "files": all(name in [*files] for name in used) and _is_object_of(files, partial(_has_shape, types=_FILE)),
        "settings": isinstance(info["settings"], dict) and isinstance(info["settings"].get("encoder", {}), dict),
        "label_names": _is_list_of(info["label_names"], _is_text),
        "sums": _is_object_of(info.get("sums", {}), partial(_is_list_of, check=_is_finite)),
        CURATIONS: _is_list_of(info.get(CURATIONS, []), partial(_has_shape, types=_CURATION)),
        VERSIONS: _is_object_of(info.get(VERSIONS, {}), partial(_is_list_of, check=_is_text)),
        **{name: isinstance(info[name], str) for name in _TEXTS},
    }
    if wrong := [name for name, has_form in forms.items() if not has_form]:
        raise ShardError(f"{path}: {' and '.join(wrong)} are not valid in {FORMAT!r}; {REMEDY}")


def _check_names(path: str, info: dict[str, Any]) -> None:
    """Raise ShardError for invalid names of parts, and for names that cannot be file names."""
    for what in ("dataset", "split", "rejects"):
        if not is_file_name(info[what]):
            raise ShardError(
                f"{path}: {what} is {info[what]!r}, but it is used in file names, so it must not contain a /; {REMEDY}"
            )
    if TOKENIZER in info and not ERASED_TOKENIZER.fullmatch(info[TOKENIZER]):
        raise ShardError(
            f"{path}: tokenizer is {info[TOKENIZER]!r}; expected names such as 'tokenizer.e2.json'; {REMEDY}"
        )
    for part in info["parts"]:
        name = part["name"]
        if not PART.fullmatch(file_name(name)) or (name != file_name(name) and not is_elsewhere(name)):
            raise ShardError(
                f"{path}: a part has the name {name!r}; expected names such as 'manifest-000000.parquet', and "
                f"in a merged split '../other/manifest-000000.parquet'; {REMEDY}"
            )


def _is_list_of(value: object, check: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(map(check, value))


def _is_object_of(value: object, check: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(map(check, value.values()))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _has_shape(value: object, types: dict[str, type]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in types.items())


def _explain_no_version(store: Store, name: str) -> str:
    try:
        legal = ", ".join(map(str, list_versions(store))) or "none"
    except UnlistedError:
        legal = "numbered from 1"
    return f"there is no {name} in {store.location}; its versions are {legal}"


def _explain_no_split(store: Store) -> str:
    where = store.location
    if isinstance(store, LocalStore) and not store.folder.is_dir():
        return f"there is no folder {where}; pass the folder of a split (`maskstream shards DATASET --out OUT`)"
    if splits := _list_splits(store):
        return f"{where} contains the splits {', '.join(splits)}; pass one of them, such as {where}/{splits[0]}"
    return (
        f"there is no {DATASET_JSON} in {where}, so it is not a finished split; create one from raw data with "
        "`maskstream shards DATASET --root RAW --out OUT`, or rerun that command if it was stopped"
    )


def _list_splits(store: Store) -> list[str]:
    """Return the names of the splits in the store's folders; [] if it cannot list them."""
    splits = []
    with suppress(StoreError):
        for name in store.folders()[:MAX_SPLITS_NAMED]:
            with suppress(StoreError):
                store.size(f"{name}/{DATASET_JSON}")
                splits.append(name)
    return splits


def _check_file(sizes: Sizes, shard: ShardRecord) -> None:
    if is_url(shard.name):
        folder, name = split_folder_and_name(shard.name)
        size: int | None = open_store(folder).size(name)
    else:
        size = sizes.size(shard.name)
    if size != shard.size_bytes:
        found = "is missing" if size is None else f"has {size} bytes"
        path = within(sizes.location, shard.name)
        raise ShardError(f"the shard {path} {found}, but was written with {shard.size_bytes} bytes; write it again")


def _check_keys(store: Store, writer: PartWriter) -> None:
    if twice := find_repeated_keys(writer.hashes, (_read_keys(store, part["name"], writer) for part in writer.parts)):
        raise ShardError(f"{len(twice)} keys occur more than once in this split, for example {twice[0]!r}")


def _read_keys(store: Store, name: str, writer: PartWriter) -> list[str]:
    data = read_checked(store, name, writer.files)
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        keys: list[str] = file.read(["key"], use_threads=False).column("key").to_pylist()
    return keys
