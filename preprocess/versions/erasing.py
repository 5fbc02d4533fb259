"""Remove samples from a split as a new version, or erase them.

Removed samples keep their slots in the order, and loaders replace them. Erased samples leave no bytes, keys or sources
in any file or version, and optionally none of the words that only they had.

An erasure writes new shards and parts under new names, then the descriptions of all versions, then dataset.json, and
only then deletes the old files. Readers see the split either before or after; this also holds after a kill, and
repeating the call results in the same files.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import BusyError, DatasetError
from maskstream.shards.format.dataset import (
    CURATIONS,
    FOREIGN,
    HELD_OUT_OF,
    list_versions,
    publish_version,
    read_description,
)
from maskstream.shards.format.manifest import Manifest, forget_index
from maskstream.shards.format.records import MEASURES, RECORDS, forget_measures
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.sample import TARGETS, make_targets_key
from maskstream.shards.format.verify import SplitCheck
from maskstream.shards.named import list_few
from maskstream.shards.stores.folders import get_folder_name, is_elsewhere, joined
from maskstream.shards.stores.output import Location, Output, open_output

from .adding import find_added_with, find_all_added, remove_folder
from .dependents import Dependents, erase_rows, find_files_that_name, list_dependents, merge_command, renew_cards
from .dividing import renew_held_out
from .erased_files import erase_from_part, erase_from_shard, remove_what_no_version_names
from .erased_words import ErasedWords, find_erased_words, share_words
from .merging import MERGED, find_keys
from .samples import Kept, SampleTable, publish_samples
from .versions_without import ErasedPart, Erasure, drop_records, erase_from_records, names_one, publish_without


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """Result of a removal: the current version, and the samples removed by it and in total."""

    version: int
    removed: int
    removed_in_all: int


def remove(split: Location | Output, keys: Iterable[str], *, curation: Mapping[str, Any] | None = None) -> Removal:
    """Create a version of the split without the samples with these keys.

    No tar changes; `erase` destroys samples. The order of the others is unchanged, and a loader replaces a removed
    sample like an unusable one, so a run saved on the previous version resumes exactly. Keys removed earlier have no
    effect.

    Args:
        split: Location of the split.
        keys: Keys of the samples.
        curation: Record of a curation (`CURATIONS`) for the new version. The samples are left out by choice, so runs
            begun earlier keep them, until they are removed without a curation.

    Raises:
        ValueError: The split does not have a key. Nothing is written.
        ShardError: The split cannot be read.
        BusyError: Another run is writing to it, or has created a version since the curation began.
    """
    output = open_output(split)
    wanted = set(keys)
    read_description(output.store)  # raises before a lock makes a folder
    with output.sole_writer():
        manifest = Manifest.open(output.store)
        if curation is not None and manifest.version != curation["began"]:
            raise BusyError(
                f"{manifest.location} got version {manifest.version} while version {curation['began']} was curated, so "
                "nothing was removed; run the same command again"
            )
        before = SampleTable.read(output.store, manifest.info)
        numbers = manifest.whole_numbers(find_numbers(manifest, wanted))
        samples = before.mark(numbers, Kept.REMOVED if curation is None else Kept.CURATED)
        if np.array_equal(samples.kept, before.kept):
            return Removal(version=manifest.version, removed=0, removed_in_all=len(before.removed))
        if not len(samples.find(Kept.YES)):
            raise ValueError(f"{manifest.location} has no samples besides these; delete the split instead")
        info = manifest.info | {"version": manifest.version + 1}
        if curation is not None:
            info[CURATIONS] = [*info.get(CURATIONS, ()), dict(curation)]
        publish_version(output, publish_samples(output, info, samples))
    total = len(samples.removed)
    return Removal(version=info["version"], removed=total - len(before.removed), removed_in_all=total)


def find_numbers(manifest: Manifest, keys: set[str]) -> Int64s:
    """Return the sorted numbers of the samples with these keys. Raises ValueError for an unknown key."""
    found = find_keys([manifest], keys)
    if missing := sorted(keys - found.keys()):
        raise ValueError(explain_missing_keys(manifest, missing, len(keys)))
    return np.array(sorted(found.values()), np.int64)


def explain_missing_keys(manifest: Manifest, missing: Iterable[str], of: int) -> str:
    """Describe the keys that the split does not have, among `of` given keys."""
    names = sorted(missing)
    shown = list_few(names, repr)
    return (
        f"{len(names)} of {of} keys are not in {manifest.location}: {shown}; pass sample keys (`key` in the "
        "manifest), not the names of sources"
    )


_MERGE = ", and then `maskstream merge` as before"
_RUNS = (
    "run.json, pages and exports of runs trained with these labels contain the names, and `erase` cannot find them: "
    "search the folders of your runs, and delete or repeat those runs"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Erased:
    """Result of an erasure.

    Attributes:
        version: Current version.
        erased: Number of samples erased by this call.
        unknown: Keys that the split does not have, such as keys erased earlier.
        labels: Number of erased label names.
        tokens: Number of erased vocabulary entries.
        beside: Other splits and files, in the split's folder and in those of its dependents, that were erased from too.
        named: Files there that still name the samples, each with the remedy.
    """

    version: int
    erased: int
    unknown: tuple[str, ...] = ()
    labels: int = 0
    tokens: int = 0
    beside: tuple[str, ...] = ()
    named: tuple[str, ...] = ()


def erase(split: Location | Output, keys: Iterable[str], *, words: bool = False) -> Erased:
    """Erase the samples with these keys from all versions of a split, and create a new version without them.

    Their members become zeros at unchanged offsets, in a tar with a new name, and their names are deleted from the
    manifest, the rejects, the records, and leftovers of a killed `shards --append`. Their slots in the order remain, so
    a run resumes exactly for all other samples. An open loader continues in the new tars and replaces erased samples.

    They are also erased from validation and few-sample splits, stored targets, feature tables and cards in the folders
    of the split and its dependents. Merged splits and other files that name them are reported.

    Args:
        split: Location of the split.
        keys: Keys of the samples.
        words: Also erase label names and vocabulary entries that no other sample has, from the split and the splits
            next to it. Numbers and ids are unchanged, with placeholders for the words.

    Raises:
        ValueError: The split does not have a key, and nothing was erased from it earlier. As for all errors, nothing is
            written.
        DatasetError: The samples are stored elsewhere (a merged split or an index of foreign tars; the message names
            the place), or their words cannot be determined.
        ShardError: The split or a shard of the samples is damaged.
        BusyError: Another run is writing to the split.
    """
    output, wanted, gone = open_output(split), set(keys), ErasedWords()
    read_description(output.store)  # raises before a lock makes a folder
    with ExitStack() as stack:
        stack.enter_context(output.sole_writer())
        added = find_added_with(output, wanted)
        for folder in added:
            stack.enter_context(folder.sole_writer())
        output.remove_leftovers(RECORDS)
        check = SplitCheck.of(output.location, cached=True)
        manifest = check.manifest
        found = find_keys([manifest], wanted)
        was_erased = any(shard.written is not None for shard in check.shards)
        if found.keys() != wanted and not was_erased:
            raise ValueError(explain_missing_keys(manifest, wanted - found.keys(), len(wanted)))
        version, changed, sources = manifest.version, list[str](), set[str]()
        dependents = list_dependents(output)
        beside = _find_beside(output, manifest, added, dependents) if words else []
        held = [*beside, *dependents.targets]
        for one in held:
            stack.enter_context(one.sole_writer())
        of_targets = {make_targets_key(key) for key in wanted}
        if found:
            _check(check, found)
            for other in dependents.targets:
                stored = SplitCheck.of(other.location, cached=True)
                _check(stored, find_keys([stored.manifest], of_targets))
            version += 1
            gone = _words(manifest, found, beside) if words else gone
            sources = {*manifest.sources().take(sorted(found.values())).to_pylist()} - {""}
        for other in held:
            own = of_targets if other in dependents.targets else set[str]()
            changed += [other.location] if _erase_beside(other, own, gone) else []
        changed += map(str, erase_rows(dependents.folders, wanted))
        if found:
            forget_measures(one.sha256 for one in check.shards)
            _erase(output, check, found, version, gone)
        output.remove(output.names(f"{MEASURES}/"))
        changed += [one.location for one in renew_held_out(output, dependents.held)]
        remove_what_no_version_names(output)
        renew_held_out(output, dependents.held)  # its versions that can no longer be read
        for folder in added:
            folder.remove(folder.names())
    for folder in added:
        remove_folder(folder)
    changed_splits = [output, *dependents.held, *dependents.targets, *beside]
    cards, named = renew_cards(changed_splits, dependents.folders)
    return Erased(
        version=version,
        erased=len(found),
        unknown=tuple(sorted(wanted - found.keys())),
        labels=len(gone.labels),
        tokens=len(gone.tokens),
        beside=tuple(dict.fromkeys([*changed, *map(str, cards)])),
        named=(
            *named,
            *dependents.unread,
            *(
                f"{one.location} is merged with it and cannot be read until `{merge_command(one)}` is run again"
                for one in dependents.merged
            ),
            *find_files_that_name(changed_splits, dependents.folders, {*wanted, *sources, *gone.labels}),
            *([_RUNS] if gone.labels else []),
        ),
    )


def _find_beside(output: Output, manifest: Manifest, added: Sequence[Output], dependents: Dependents) -> list[Output]:
    """Return the other splits in a split's folder that may have its words; merged splits have none of their own.

    Raises:
        DatasetError: A killed `shards --append` has left other folders than `added`.
    """
    if left := {one.location for one in find_all_added(output)} - {one.location for one in added}:
        raise DatasetError(
            f"{min(left)} was left by a killed `maskstream shards --append` and may contain the words too; run that "
            "again first, or delete it"
        )
    return [
        other
        for other, info in dependents.others
        if MERGED not in info["settings"] and info["profile"] != FOREIGN and share_words(manifest.info, info)
    ]


def _words(manifest: Manifest, found: Mapping[str, int], others: Sequence[Output]) -> ErasedWords:
    """Return the words that only these samples have, in the split and in others."""
    beside = [SplitCheck.of(one.location, cached=True).manifest for one in others]
    return find_erased_words(manifest, np.array(sorted(found.values()), np.int64), beside)


def _erase_beside(output: Output, keys: AbstractSet[str], words: ErasedWords) -> bool:
    """Erase words and samples from another split as a new version; return whether it had any of them."""
    check = SplitCheck.of(output.location, cached=True)
    manifest = check.manifest
    found, names = find_keys([manifest], keys), manifest.info["label_names"]
    rejected = keys and any(names_one(one, keys, keys) for one in read_rejects(manifest.store, manifest.info))
    if found or rejected or words.label_names(names) != names or words.tokenizer(manifest):
        _erase(output, check, found, manifest.version + 1, words, keys)
    elif len(list_versions(output.store)) == 1:
        return False
    remove_what_no_version_names(output)  # including leftovers of a killed call
    return bool(found or rejected or words.label_names(names) != names)


def _check(check: SplitCheck, found: Mapping[str, int]) -> None:
    """Raise DatasetError or ValueError if samples cannot be erased here."""
    manifest = check.manifest
    if manifest.info["profile"] == FOREIGN:
        raise DatasetError(
            f"{manifest.location} is an index of foreign tars; take the samples out of the tars, then index these again"
        )
    away = {get_folder_name(name) for row in found.values() if is_elsewhere(name := manifest.shard_name(row))}
    if away:
        places = ", ".join(sorted(joined(manifest.location, folder) for folder in away))
        what, then = ("is held out of another split", "") if HELD_OUT_OF in manifest.info else ("is merged", _MERGE)
        raise DatasetError(
            f"{manifest.location} {what}, and its samples are in {places}; run `maskstream erase` there{then}"
        )
    if len({*manifest.removed.tolist(), *found.values()}) == len(manifest):
        raise ValueError(f"{manifest.location} has no samples besides these; delete the split instead")


def _erase(
    output: Output,
    check: SplitCheck,
    found: Mapping[str, int],
    version: int,
    words: ErasedWords,
    keys: AbstractSet[str] = frozenset(),
) -> None:
    """Erase samples, and every mention of these keys."""
    manifest = check.manifest
    rows = np.array(sorted(found.values()), np.int64)
    shards = {}
    for number in np.unique(manifest.shard[rows]).tolist():
        own = [row for row in rows.tolist() if manifest.shard[row] == number]
        shards[check.shards[number].name] = erase_from_shard(output, check, number, own, version)
    parts, sources, start = list[ErasedPart](), {*keys}, 0
    for part in manifest.info["parts"]:
        inside = rows[(rows >= start) & (rows < start + part["samples"])] - start
        if len(inside):
            data, gone = erase_from_part(manifest.store, manifest.info, part["name"], inside.tolist(), shards)
            sources |= gone
            frames = _frames(manifest, inside + start)
            parts.append(ErasedPart(name=part["name"], rows=inside, data=data, frames=frames))
        start += part["samples"]
    if manifest.info["modality"] == TARGETS:
        drop_records(output, keys | found.keys())
    else:
        erase_from_records(output, shards, found.keys(), sources, words)
    # The current version as it was before a killed erasure, which may have left a later one.
    before = [
        manifest.info if one == manifest.version else read_description(output.store, one)
        for one in list_versions(output.store)
        if one <= manifest.version
    ]
    erasure = Erasure(
        version=version,
        parts=parts,
        keys=keys | found.keys(),
        sources=sources,
        words=words,
        tokenizer=words.tokenizer(manifest),
    )
    publish_without(output, before, erasure)
    for info in before:
        forget_index(info)


def _frames(manifest: Manifest, rows: Int64s) -> Int64s:
    """Return the number of video frames of each sample."""
    videos = [one.facts["n_frames"][rows] for one in manifest.components.values() if one.kind == "video"]
    return np.sum(videos, axis=0, dtype=np.int64) if videos else np.zeros(len(rows), np.int64)
