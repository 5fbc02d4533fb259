"""Refuses to test on training samples, unless this is requested.

A split is identified by its fingerprint, and a sample by its key and the checksums of its members, so neither a
different path nor a different version of a split hides training samples.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from maskstream.shards.arrays import Int64s, UInt64s
from maskstream.shards.checksummed import read_checksummed
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.dataset import HELD_OUT_OF, list_versions, read_description
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.part_writer import hash_keys
from maskstream.shards.stores.folders import joined
from maskstream.shards.stores.open import open_store
from maskstream.train.core.checkpoint import CHECKPOINTS, STATE, list_checkpoints
from maskstream.train.core.data import read_splits
from maskstream.train.core.run_folder import run_settings

TRAINED_ON = "trained_on"
"""Metadata key of a file of weights: the splits that they were trained on, in JSON."""
_JSON = "json"
_AT_ONCE = 1 << 16
_REMEDY = (
    "a score on training samples measures memorisation, not learning. Pass a split that was not trained on, such "
    "as a validation split made by `maskstream split`, or add --same-split (same_split=True) to allow them"
)


def check_unseen(
    test: Manifest, *, runs: Sequence[Path] = (), train: Manifest | None = None, same_split: bool = False
) -> None:
    """Raise ValueError if a test split has samples that were trained on.

    The splits of a run are listed in its run.json and checkpoints; if a split no longer exists, only fingerprints are
    compared.

    Args:
        test: Split to test on.
        runs: Folders of runs whose training samples are not allowed.
        train: A training split whose samples are not allowed.
        same_split: Allow training samples.
    """
    if same_split:
        return
    if train is not None:
        _check(test, train, f"{train} (--data)")
    for run in runs:
        for fingerprint, location in list_splits_trained_on(run):
            if train is not None and fingerprint == train.fingerprint:
                continue
            if fingerprint == test.fingerprint:
                raise ValueError(
                    f"{test} is the split that {run} was trained on (fingerprint {fingerprint}); {_REMEDY}"
                )
            if (seen := _opened(fingerprint, location, test)) is not None:
                _check(test, seen, f"version {seen.version} of {seen}, which {run} was trained on")


def _check(test: Manifest, seen: Manifest, what: str) -> None:
    if test.fingerprint == seen.fingerprint:
        raise ValueError(f"{test} has the same samples as {what} (fingerprint {test.fingerprint}); {_REMEDY}")
    if len(shared := find_shared_samples(test, seen)):
        n = len(test) - len(test.removed)
        first = test.key(int(shared[0]))
        raise ValueError(f"{len(shared)} of {n} samples of {test}, such as {first!r}, are also in {what}; {_REMEDY}")


def find_shared_samples(one: Manifest, other: Manifest) -> Int64s:
    """Return the indices of a split's samples, without removed ones, that another split also has.

    Samples are the same if they have the same key, and the same bytes in all members that both have, except `json`.

    Args:
        one: The split.
        other: The other split.
    """
    mine, theirs = _read_hashes(one), _read_hashes(other)
    order = np.argsort(theirs)
    at = np.minimum(np.searchsorted(theirs, mine, sorter=order), max(len(theirs) - 1, 0))
    found = np.flatnonzero(theirs[order[at]] == mine) if len(theirs) else np.empty(0, np.int64)
    found = np.setdiff1d(found, one.removed, assume_unique=True)
    pairs = order[at[found]]
    names = one.components.keys() & other.components.keys()
    same = np.ones(len(found), bool)
    for name in sorted(names - {_JSON} or names) if len(found) else ():
        same &= (one.components[name].digest[found] == other.components[name].digest[pairs]).all(axis=1)
    return found[same]


def _read_hashes(manifest: Manifest) -> UInt64s:
    n = len(manifest)
    some = (manifest.keys(range(begin, min(begin + _AT_ONCE, n))) for begin in range(0, n, _AT_ONCE))
    return np.concatenate([np.empty(0, np.uint64), *map(hash_keys, some)])


def list_splits_trained_on(run: Path, later: frozenset[Path] = frozenset()) -> Iterator[tuple[str, str]]:
    """Yield the fingerprint of each split that a run was trained on, with its location or "".

    Splits of its initial weights are listed in the metadata of the weights' file (`TRAINED_ON`), or by the run that it
    belongs to.

    Args:
        run: Folder of the run.
        later: Runs that began with weights of this one, which are not visited again.
    """
    yield from _list_own_splits(run)
    initial = run_settings(run).get("initial")
    if not isinstance(initial, str):
        return
    with suppress(OSError, ValueError, SafetensorError):
        with safe_open(initial, "pt") as file:
            told = (file.metadata() or {}).get(TRAINED_ON)
        before = Path(initial).resolve().parent
        if told is not None:
            yield from ((str(fingerprint), str(location)) for fingerprint, location in json.loads(told))
        elif before not in (later := later | {run.resolve()}):
            yield from list_splits_trained_on(before, later)


def _list_own_splits(run: Path) -> Iterator[tuple[str, str]]:
    if told := read_splits(run):
        yield from ((str(one["fingerprint"]), str(one["location"])) for one in told)
        return
    # a run of an earlier release, or with a custom loader
    for checkpoint in list_checkpoints(run / CHECKPOINTS):
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = read_checksummed((checkpoint / STATE).read_bytes())["loader"]
            yield from ((one, "") for one in _find_fingerprints(state))
            return


def _find_fingerprints(state: Any) -> Iterator[str]:
    """Yield the fingerprints in a loader's state, including the parts of a mixture."""
    if isinstance(state, Mapping):
        if isinstance(found := state.get("dataset"), str):
            yield found
        for value in state.values():
            yield from _find_fingerprints(value)
    elif isinstance(state, list):
        for value in state:
            yield from _find_fingerprints(value)


def _opened(fingerprint: str, location: str, test: Manifest) -> Manifest | None:
    """Return the version of a split with a fingerprint, searching the location, the test split and the split that it
    was held out of; None if there is none.
    """
    held_out_of = test.info.get(HELD_OUT_OF)
    places = [location, test.location, joined(test.location, held_out_of) if held_out_of else ""]
    for place in filter(None, places):
        with suppress(MaskstreamError):
            store = open_store(place)
            for version in reversed(list_versions(store)):
                if (info := read_description(store, version))["fingerprint"] == fingerprint:
                    return Manifest.open(store, version=version, info=info)
    return None
