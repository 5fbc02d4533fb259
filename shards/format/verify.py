"""Verifies a split against its manifest, byte by byte. Damage is reported, not raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import MaskstreamError, OutageError, UnlistedError
from maskstream.shards.members.video import VIDEO
from maskstream.shards.stores.base import Store
from maskstream.shards.stores.folders import is_elsewhere

from .checked_file import read_checked
from .columns import ShardFacts, make_fingerprint
from .data_errors import described
from .dataset import (
    DATASET_JSON,
    FOREIGN,
    VERSIONS,
    list_versions,
    name_version,
    read_description,
)
from .manifest import Manifest
from .part_writer import find_repeated_keys, hash_keys
from .rejects import read_rejects, read_selected
from .shard_check import ShardCheck
from .tokenizer import find_tokenizer_problems

MAX_PROBLEMS_PER_SHARD = 100

Progress = Callable[[int, int], None]
"""Called with the number of bytes read so far and the total number of bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """Numbers of samples, shards and bytes in dataset.json, and the problems, each with its shard and key.

    unchecked: files from an earlier release that have no checksum. They do not count as problems.
    """

    samples: int
    shards: int
    size_bytes: int
    problems: list[str]
    unchecked: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if there are no problems."""
        return not self.problems


def verify(location: str | Path, *, decode: bool = False, progress: Progress | None = None) -> VerifyReport:
    """Read every shard of the split at a location once and compare it with dataset.json, the manifest and its idx.

    This compares the checksums of dataset.json, the manifest and the rejects; the size and sha256 of shards; the name,
    offset, size and xxh3_128 of members, with none missing or extra; the idx, sums and packets files; the counts and
    labels. It runs the checks of the members' kinds (shards/members), such as a video's table of
    GOPs. With `decode`, members are also decoded, one at a time. The report lists the first 100 problems of a
    shard and counts the others. Raises OutageError if the location cannot be reached, which does not count as damage.
    """
    try:
        check = SplitCheck.of(location)
    except OutageError:
        raise
    except MaskstreamError as error:
        return unreadable(error)
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        if progress is not None:
            progress(done, check.manifest.info["counts"]["bytes"])

    problems = check.split_problems()
    for number in range(len(check.rows)):
        problems += check.shard_problems(number, decode=decode, advance=advance)
    return check.report(problems)


def unreadable(error: MaskstreamError) -> VerifyReport:
    """Return the report of a split that cannot be opened."""
    return VerifyReport(samples=0, shards=0, size_bytes=0, problems=[str(error)])


def _do_nothing(size_bytes: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """A split that is checked piece by piece: first the consistency of its files, then each shard.

    rows: Samples of each shard, int64 (n,). shards: Facts about each shard as a whole, from the manifest.
    """

    manifest: Manifest
    rows: list[Int64s]
    shards: list[ShardFacts]

    @classmethod
    def of(cls, location: str | Path, *, cached: bool = False) -> SplitCheck:
        """Open the check of a location. Raises MaskstreamError if it contains no split that can be opened.

        cached: Whether the parts of the manifest may come from this machine's index.
        """
        manifest = Manifest.load(location, cached=cached)
        if not manifest.whole:  # it can be opened; all samples of the parts are checked
            manifest = Manifest.open(manifest.store, info=manifest.info, cached=cached, whole=True)
        foreign = manifest.info["profile"] == FOREIGN
        manifest = replace(manifest, store=manifest.store.of_split({}, outside=foreign))  # looks up the sizes itself
        return cls(manifest, _list_rows_of_shards(manifest), manifest.shards())

    def split_problems(self) -> list[str]:
        """Return contradictions between dataset.json, the manifest, the rejects and the files; no shard is read."""
        return list(_split_problems(self.manifest))

    def shard_problems(self, number: int, *, decode: bool, advance: Callable[[int], None]) -> list[str]:
        """Return the problems of a shard, which is read once; `advance` is called with the numbers of bytes read."""
        check = self.shard(number, decode=decode, advance=advance)
        return [f"{check.name}: {problem}" for problem in _limit_problems(_collect_problems(check.problems()))]

    def shard(self, number: int, *, decode: bool = False, advance: Callable[[int], None] = _do_nothing) -> ShardCheck:
        """Return the check of a shard."""
        shard = self.shards[number]
        return ShardCheck(
            manifest=self.manifest,
            name=shard.name,
            rows=self.rows[number],
            declared=shard.to_json(),
            decode=decode,
            advance=advance,
        )

    def report(self, problems: list[str]) -> VerifyReport:
        """Return the report of a check that found these problems."""
        counts = self.manifest.info["counts"]
        return VerifyReport(
            samples=counts["samples"],
            shards=counts["shards"],
            size_bytes=counts["bytes"],
            problems=problems,
            unchecked=_list_unchecked(self.manifest),
        )


def _list_rows_of_shards(manifest: Manifest) -> list[Int64s]:
    """Return the samples of each shard in order, int64 (n,)."""
    ends = np.cumsum(manifest.shard_samples)
    return [np.arange(end - n, end) for end, n in zip(ends, manifest.shard_samples, strict=True)]


def _collect_problems(problems: Iterator[str]) -> Iterator[str]:
    """Return the problems; if finding them raises an exception, it is added as the last one."""
    try:
        yield from problems
    except OutageError:
        raise
    except Exception as error:
        yield f"cannot be checked to its end ({described(error)})"


def _limit_problems(problems: Iterable[str]) -> list[str]:
    kept: list[str] = []
    others = 0
    for problem in problems:
        if len(kept) < MAX_PROBLEMS_PER_SHARD:
            kept.append(problem)
        else:
            others += 1
    return [*kept, f"and {others} more problems"] if others else kept


def _split_problems(manifest: Manifest) -> Iterator[str]:
    """Return contradictions between dataset.json, the manifest, the rejects and the files; no shard is read."""
    info = manifest.info
    yield from _find_version_problems(manifest)
    yield from find_tokenizer_problems(manifest.store, info)
    declared = set(manifest.shard_names)
    for name in _list_tars(manifest.store) if info["profile"] != FOREIGN else ():
        if name not in declared:
            yield f"{name}: is not a shard of this split, but tools that read all tars in the folder would include it"

    truth = {"bytes": int(manifest.shard_bytes.sum())}
    try:
        truth["rejects"] = len(read_rejects(manifest.store, info))
    except OutageError:
        raise
    except MaskstreamError as error:
        yield str(error)
    if videos := [component for component in manifest.components.values() if component.kind == VIDEO.name]:
        selected = read_selected(manifest.store, info)
        own = slice(None) if selected is None else selected
        truth["frames"] = sum(int(video.facts["n_frames"][own].sum()) for video in videos)
    for name, value in truth.items():
        if info["counts"].get(name) != value:
            yield f"dataset.json: counts {info['counts'].get(name)} {name}, but there are {value}"
    if repeated := find_repeated_keys([hash_keys(keys) for keys in _keys(manifest)], _keys(manifest)):
        yield f"{DATASET_JSON}: {len(repeated)} keys occur more than once in the manifest, such as {repeated[0]!r}"
    names, most = info["label_names"], int(manifest.label.max(initial=-1))
    if names and most >= len(names):
        yield f"{DATASET_JSON}: names {len(names)} labels, but the manifest has the label {most}"


_KEYS_AT_ONCE = 1 << 16


def _keys(manifest: Manifest) -> Iterator[list[str]]:
    for begin in range(0, len(manifest), _KEYS_AT_ONCE):
        yield manifest.keys(range(begin, min(begin + _KEYS_AT_ONCE, len(manifest))))


def _find_version_problems(manifest: Manifest) -> Iterator[str]:
    """Find versions that are missing or cannot be opened, and a description of the current one that differs from
    dataset.json. Only a merged split can lose versions, when the splits that it refers to change.
    """
    store, current = manifest.store, manifest.version
    selected, foreign = read_selected(store, manifest.info), manifest.info["profile"] == FOREIGN
    if make_fingerprint(manifest.shards(), foreign=foreign, selected=selected) != manifest.fingerprint:
        yield f"{DATASET_JSON}: its fingerprint does not match its shards"
    versions = {*range(1, current + 1)}
    with suppress(UnlistedError):
        listed = {*list_versions(store), current}
        versions = listed if any(is_elsewhere(part["name"]) for part in manifest.info["parts"]) else versions | listed
    checked = dict(manifest.info["files"])
    for version in sorted(versions):
        try:
            found = read_description(store, version)
            if version == current and found != manifest.info:
                yield f"{name_version(version)}: differs from {DATASET_JSON}, although both describe the same version"
            for name in found["files"]:
                if checked.get(name) != found["files"][name]:
                    read_checked(store, name, found["files"])
        except OutageError:
            raise
        except MaskstreamError as error:
            yield str(error)


def _list_unchecked(manifest: Manifest) -> list[str]:
    """Return the descriptions without a checksum in another file, as in splits of earlier releases."""
    with suppress(UnlistedError):
        known, current = manifest.info.get(VERSIONS), manifest.version
        listed = [version for version in list_versions(manifest.store) if version < current]
        without = [name_version(version) for version in listed if str(version) not in (known or {})]
        return without if known is not None else [DATASET_JSON, *without]
    return []


def _list_tars(store: Store) -> list[str]:
    """Return the tars in the folder itself; none if files cannot be listed."""
    try:
        return [name for name in store.names() if name.endswith(".tar") and "/" not in name]
    except UnlistedError:
        return []
