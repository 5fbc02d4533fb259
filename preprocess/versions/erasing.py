"""Erases samples from a split: their bytes, keys and sources are then in no file of it, in no version.

Shards and parts of the manifest are written again under new names, then the descriptions of all versions, then
dataset.json, and only then the old files are deleted. So whoever opens the split meanwhile reads it as it was before or
as it is after; a kill leaves one of both, and the same call again ends in the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...shards.errors import DatasetError
from ...shards.format.dataset import FOREIGN, read_dataset_json, versions_of
from ...shards.format.manifest import Manifest, forget_index
from ...shards.format.records import RECORDS
from ...shards.format.verify import SplitCheck
from ...shards.stores.elsewhere import folder_of, is_elsewhere, joined
from ...shards.stores.output import Location, Output, output_at
from .added import added_with, remove_folder
from .erased_part import erased_part
from .erased_shard import erased_shard
from .fitting import keys_of
from .leftovers import remove_what_no_version_names
from .removal import missing_keys
from .scrubbed_records import scrub_records
from .versions_without import ErasedPart, Erasure, publish_without

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Erased:
    """What an erasure made: the current version, how many samples it has erased now, and the keys that the split does
    not have, as those that were erased before.
    """

    version: int
    erased: int
    unknown: tuple[str, ...] = ()


def erase(split: Location | Output, keys: Iterable[str]) -> Erased:
    """Erase the samples with these keys from all versions of a split, and make a new version without them.

    Their members become zeros at unchanged offsets, in a tar with another name, and what names them goes from the
    manifest, the rejects and the records; so does what a killed `shards --append` has left of them beside the split.
    Their slots in the order stay, as for removed samples: a run resumes exactly for all others. A loader that has the
    split open reads what it has opened, or says that a file is missing.

    Raises, before anything is written, ValueError for keys that the split does not have, if nothing was erased from it
    before; DatasetError for samples that are elsewhere (a merged split, an index of foreign tars), and says where to
    erase them; ShardError if the split or a shard of the samples is damaged; BusyError if another run writes to it.
    """
    output, wanted = output_at(split), set(keys)
    read_dataset_json(output.store)  # raises before a lock makes a folder
    with ExitStack() as stack:
        stack.enter_context(output.sole_writer())
        added = added_with(output, wanted)
        for folder in added:
            stack.enter_context(folder.sole_writer())
        output.remove_leftovers(RECORDS)
        check = SplitCheck.of(output.location, cached=True)
        manifest = check.manifest
        found = _found(manifest, wanted)
        was_erased = any(shard.written is not None for shard in check.shards)
        if found.keys() != wanted and not was_erased:
            raise ValueError(missing_keys(manifest, wanted - found.keys(), len(wanted)))
        version = manifest.version
        if found:
            _check(check, found)
            version += 1
            _erase(output, check, found, version)
        if found or was_erased:
            remove_what_no_version_names(output)
            for folder in added:
                folder.remove(folder.names())
    for folder in added if found or was_erased else ():
        remove_folder(folder)
    return Erased(version=version, erased=len(found), unknown=tuple(sorted(wanted - found.keys())))


def _found(manifest: Manifest, keys: set[str]) -> dict[str, int]:
    """The numbers of the samples with these keys."""
    found: dict[str, int] = {}
    begin = 0
    for some in keys_of(manifest):
        found |= {key: begin + i for i, key in enumerate(some) if key in keys}
        begin += len(some)
    return found


def _check(check: SplitCheck, found: Mapping[str, int]) -> None:
    """Raise DatasetError or ValueError for what cannot be erased here."""
    manifest = check.manifest
    if manifest.info["profile"] == FOREIGN:
        raise DatasetError(
            f"{manifest.location} is an index of foreign tars; take the samples out of the tars, then index these again"
        )
    away = {folder_of(name) for row in found.values() if is_elsewhere(name := manifest.shard_name(row))}
    if away:
        places = ", ".join(sorted(joined(manifest.location, folder) for folder in away))
        raise DatasetError(
            f"{manifest.location} is merged, and its samples are in {places}; run `maskstream erase` there, and then "
            "`maskstream merge` as before"
        )
    if len({*manifest.removed.tolist(), *found.values()}) == len(manifest):
        raise ValueError(f"{manifest.location} has no other samples than these; delete the split instead")


def _erase(output: Output, check: SplitCheck, found: Mapping[str, int], version: int) -> None:
    manifest = check.manifest
    rows = np.array(sorted(found.values()), np.int64)
    shards = {}
    for number in np.unique(manifest.shard[rows]).tolist():
        own = [row for row in rows.tolist() if manifest.shard[row] == number]
        shards[check.shards[number].name] = erased_shard(output, check, number, own, version)
    parts, sources, start = list[ErasedPart](), set[str](), 0
    for part in manifest.info["parts"]:
        inside = rows[(rows >= start) & (rows < start + part["samples"])] - start
        if len(inside):
            data, gone = erased_part(manifest.store, manifest.info, part["name"], inside.tolist(), shards)
            sources |= gone
            frames = _frames(manifest, inside + start)
            parts.append(ErasedPart(name=part["name"], rows=inside, data=data, frames=frames))
        start += part["samples"]
    scrub_records(output, shards, found.keys(), sources)
    before = [_described(output, one, manifest) for one in _versions(output, manifest)]
    publish_without(output, before, Erasure(version=version, parts=parts, keys={*found}, sources=sources))
    for info in before:
        forget_index(info)


def _frames(manifest: Manifest, rows: np.ndarray[Any, np.dtype[np.int64]]) -> int:
    """The frames of all videos of some samples."""
    videos = [one for one in manifest.components.values() if one.kind == "video"]
    return sum(int(video.facts["n_frames"][rows].sum()) for video in videos)


def _versions(output: Output, manifest: Manifest) -> list[int]:
    """The versions up to the current one. A later one is that of an erasure that was killed."""
    return [version for version in versions_of(output.store) if version <= manifest.version]


def _described(output: Output, version: int, manifest: Manifest) -> Json:
    """The description of a version, as it was before a killed erasure if it is the current one."""
    if version == manifest.version:
        return manifest.info
    return read_dataset_json(output.store, version)
