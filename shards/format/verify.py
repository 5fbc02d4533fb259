"""Verifies a split against its manifest, byte by byte. Damage is reported, not raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MaskstreamError, OutageError, StoreError, UnlistedError
from ..members.video import VIDEO
from ..sealed import sealed
from ..stores.base import Store
from .damage import described
from .dataset import DATASET_JSON, FOREIGN, MANIFEST, MAX_JSON_BYTES
from .manifest import Manifest
from .rejects import read_rejects
from .shard_check import ShardCheck

MAX_PROBLEMS_PER_SHARD = 100

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes of all shards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """The numbers of samples, shards and bytes in dataset.json, and the problems, each with its shard and key."""

    samples: int
    shards: int
    size_bytes: int
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def verify(location: str | Path, *, decode: bool = False, progress: Progress | None = None) -> VerifyReport:
    """Read every shard of the split at a location once and compare it with dataset.json, the manifest and its idx.

    This compares the checksums of dataset.json, the manifest and the rejects; the size and sha256 of shards; the name,
    offset, size and xxh3_128 of members, with none missing or extra; the idx, sums and packets files; the counts and
    labels. It runs the checks of the members' kinds (shards/members), such as that of a video's
    table of GOPs. With `decode`, members are also decoded, one at a time. The report lists the first 100 problems of a
    shard and counts the others. Raises OutageError if the location cannot be reached, which is no damage.
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
    """The report of a split that cannot be opened."""
    return VerifyReport(samples=0, shards=0, size_bytes=0, problems=[str(error)])


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """A split that is checked in parts: what its files say of each other, and each of its shards.

    rows: the samples of each shard, int64 (n,). declared: the entries of dataset.json by the names of shards.
    """

    manifest: Manifest
    rows: list[npt.NDArray[np.int64]]
    declared: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, location: str | Path) -> SplitCheck:
        """The check of a location. Raises MaskstreamError if it holds no split that can be opened."""
        manifest = Manifest.load(location)
        foreign = manifest.info["profile"] == FOREIGN
        manifest = replace(manifest, store=manifest.store.of_split({}, outside=foreign))  # asks for the sizes itself
        declared = {shard["name"]: shard for shard in manifest.info["shards"]}
        return cls(manifest, _rows_of_shards(manifest), declared)

    def split_problems(self) -> list[str]:
        """The contradictions between dataset.json, the manifest, the rejects and the files; no shard is read."""
        return list(_split_problems(self.manifest))

    def shard_problems(self, number: int, *, decode: bool, advance: Callable[[int], None]) -> list[str]:
        """The problems of a shard, which is read once; `advance` is told of the bytes that were read."""
        name = self.manifest.shard_names[number]
        check = ShardCheck(
            manifest=self.manifest,
            name=name,
            rows=self.rows[number],
            declared=self.declared.get(name, {}),
            decode=decode,
            advance=advance,
        )
        return [f"{name}: {problem}" for problem in _capped(_guarded(check.problems()))]

    def report(self, problems: list[str]) -> VerifyReport:
        """The report of a check that found these problems."""
        counts = self.manifest.info["counts"]
        return VerifyReport(
            samples=counts["samples"], shards=counts["shards"], size_bytes=counts["bytes"], problems=problems
        )


def _rows_of_shards(manifest: Manifest) -> list[npt.NDArray[np.int64]]:
    """The samples of each shard in order, int64 (n,), from one pass over the manifest."""
    counts = np.bincount(manifest.shard, minlength=len(manifest.shard_names))
    rows = np.split(np.argsort(manifest.shard, kind="stable"), np.cumsum(counts[:-1]))
    return rows[: len(counts)]


def _guarded(problems: Iterator[str]) -> Iterator[str]:
    """The problems; an exception that finding them raises is the last one."""
    try:
        yield from problems
    except OutageError:
        raise
    except Exception as error:
        yield f"cannot be checked to its end ({described(error)})"


def _capped(problems: Iterable[str]) -> list[str]:
    kept: list[str] = []
    others = 0
    for problem in problems:
        if len(kept) < MAX_PROBLEMS_PER_SHARD:
            kept.append(problem)
        else:
            others += 1
    return [*kept, f"and {others} more problems"] if others else kept


def _split_problems(manifest: Manifest) -> Iterator[str]:
    """The contradictions between dataset.json, the manifest, the rejects and the files; no shard is read."""
    info = manifest.info
    yield from _text_problems(manifest.store, info)
    declared = {shard["name"]: shard["samples"] for shard in info["shards"]}
    counted = np.bincount(manifest.shard, minlength=len(manifest.shard_names)).tolist()
    held = dict(zip(manifest.shard_names, counted, strict=True))
    for name in sorted(declared.keys() | held.keys()):
        if declared.get(name) != held.get(name):
            yield f"{name}: has {held.get(name)} samples in the manifest, but {declared.get(name)} in dataset.json"
    for name in _tars(manifest.store) if info["profile"] != FOREIGN else ():
        if name not in declared:
            yield f"{name}: is not a shard of this split, but readers of all tars in the folder would read it"

    sizes = sum(shard["size_bytes"] for shard in info["shards"])
    truth = {"shards": len(declared), "bytes": sizes}
    try:
        truth["rejects"] = len(read_rejects(manifest.store, info))
    except OutageError:
        raise
    except MaskstreamError as error:
        yield str(error)
    if videos := [component for component in manifest.components.values() if component.kind == VIDEO.name]:
        truth["frames"] = sum(int(video.facts["n_frames"].sum()) for video in videos)
    for name, value in truth.items():
        if info["counts"].get(name) != value:
            yield f"dataset.json: counts {info['counts'].get(name)} {name}, but there are {value}"
    if (repeated := len(manifest) - len(set(manifest.keys(range(len(manifest)))))) > 0:
        yield f"{MANIFEST}: {repeated} keys are duplicates"
    names, most = info["label_names"], int(manifest.label.max(initial=-1))
    if names and most >= len(names):
        yield f"{MANIFEST}: has the label {most}, but dataset.json names only {len(names)} labels"


def _tars(store: Store) -> list[str]:
    """The tars in the folder itself; none where files cannot be listed."""
    try:
        return [name for name in store.names() if name.endswith(".tar") and "/" not in name]
    except UnlistedError:
        return []


def _text_problems(store: Store, info: Mapping[str, Any]) -> Iterator[str]:
    """Find changes of dataset.json that change none of its values, such as another spelling of a number."""
    try:
        found = store.whole(DATASET_JSON, MAX_JSON_BYTES)
    except StoreError as error:
        yield str(error)
        return
    if found != sealed(info):
        yield f"{DATASET_JSON}: its text is not what was written, though its values are"
