"""Removes samples from a split, as a new version: their slots in the order stay, and loaders replace them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.shards.format.checked_file import facts_of
from maskstream.shards.format.dataset import publish_version, read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import REMOVED, removed_bytes, removed_name
from maskstream.shards.stores.output import Location, Output, output_at

_AT_ONCE = 1 << 16
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """What a removal made: the current version, how many samples it has removed now, and in all."""

    version: int
    removed: int
    removed_in_all: int


def remove(split: Location | Output, keys: Iterable[str]) -> Removal:
    """Make a version of the split at a location without the samples with these keys.

    No tar is touched; `erase` destroys samples. The order of the others stays, and a loader replaces a removed sample
    by another as one that cannot be used, so a run that was saved in the version before resumes exactly. Keys that were
    removed before change nothing.

    Raises ValueError, before anything is written, for keys that the split does not have; ShardError if the split
    cannot be read, BusyError if another run writes to it.
    """
    output = output_at(split)
    wanted = set(keys)
    read_dataset_json(output.store)  # raises before a lock makes a folder
    with output.sole_writer():
        manifest = Manifest.load(output.store)
        found = numbers_of(manifest, wanted)
        removed = np.union1d(manifest.removed, found)
        fresh = len(removed) - len(manifest.removed)
        if fresh == 0:
            return Removal(version=manifest.version, removed=0, removed_in_all=len(removed))
        if len(removed) == len(manifest):
            raise ValueError(f"{manifest.location} has no other samples than these; delete the split instead")
        version = manifest.version + 1
        data, name = removed_bytes(removed), removed_name(version)
        output.publish(name, data)
        info = manifest.info
        files = {file: facts for file, facts in info["files"].items() if file != info.get(REMOVED)}
        counts = info["counts"] | {"removed": len(removed)}
        publish_version(
            output,
            info | {"version": version, "counts": counts, REMOVED: name, "files": files | {name: facts_of(data)}},
        )
    return Removal(version=version, removed=fresh, removed_in_all=len(removed))


def numbers_of(manifest: Manifest, keys: set[str]) -> npt.NDArray[np.int64]:
    """The numbers of the samples with these keys, sorted. Raises ValueError if the split does not have a key."""
    found: dict[str, int] = {}
    for begin in range(0, len(manifest), _AT_ONCE):
        some = manifest.keys(range(begin, min(begin + _AT_ONCE, len(manifest))))
        found |= {key: begin + i for i, key in enumerate(some) if key in keys}
    if missing := sorted(keys - found.keys()):
        raise ValueError(missing_keys(manifest, missing, len(keys)))
    return np.array(sorted(found.values()), np.int64)


def missing_keys(manifest: Manifest, missing: Iterable[str], of: int) -> str:
    """What is wrong with keys that the split does not have; `of`: how many were given."""
    names = sorted(missing)
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    return (
        f"{len(names)} of {of} keys are not in {manifest.location}: {shown}; a key is that of a sample (`key` in the "
        "manifest), not the name of a source"
    )
