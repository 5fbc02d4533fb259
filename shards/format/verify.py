"""Verifies a split against its manifest, byte by byte. Damage is reported, not raised."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ShardError
from ..members.video import VIDEO
from .dataset import FOREIGN, MANIFEST, REJECTS, read_dataset_json
from .manifest import Manifest
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


def verify(folder: str | Path, *, decode: bool = False, progress: Progress | None = None) -> VerifyReport:
    """Read every shard of the split in `folder` once and compare it with dataset.json, the manifest and its idx.

    This compares the size and sha256 of shards; the name, offset, size and xxh3_128 of members, with none missing or
    extra; the idx; and the counts. It runs the checks of the members' kinds (shards/members), such as that of a video's
    table of GOPs. With `decode`, members are also decoded, one at a time. The report lists the first 100 problems of a
    shard and counts the others.
    """
    try:
        _check_manifest(Path(folder))
        manifest = Manifest.load(folder)
    except ShardError as error:
        return VerifyReport(samples=0, shards=0, size_bytes=0, problems=[str(error)])
    counts = manifest.info["counts"]
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        if progress is not None:
            progress(done, counts["bytes"])

    problems = list(_split_problems(manifest))
    declared = {shard["name"]: shard for shard in manifest.info["shards"]}
    for name, rows in zip(manifest.shard_names, _rows_of_shards(manifest), strict=True):
        check = ShardCheck(
            manifest=manifest, name=name, rows=rows, declared=declared.get(name, {}), decode=decode, advance=advance
        )
        problems += [f"{name}: {problem}" for problem in _capped(check.problems())]
    return VerifyReport(
        samples=counts["samples"], shards=counts["shards"], size_bytes=counts["bytes"], problems=problems
    )


def _rows_of_shards(manifest: Manifest) -> list[npt.NDArray[np.int64]]:
    """The samples of each shard in order, int64 (n,), from one pass over the manifest."""
    counts = np.bincount(manifest.shard, minlength=len(manifest.shard_names))
    rows = np.split(np.argsort(manifest.shard, kind="stable"), np.cumsum(counts[:-1]))
    return rows[: len(counts)]


def _check_manifest(folder: Path) -> None:
    """Raise ShardError if the manifest is damaged; nothing can then be compared with it."""
    declared = read_dataset_json(folder)["manifest_sha256"]
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ShardError(f"{path} cannot be read ({error.strerror or error})") from error
    if found != declared:
        raise ShardError(f"{path}: its sha256 differs from dataset.json")


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
    """The contradictions between dataset.json, the manifest, the rejects and the folder; no shard is read."""
    info = manifest.info
    declared = {shard["name"]: shard["samples"] for shard in info["shards"]}
    counted = np.bincount(manifest.shard, minlength=len(manifest.shard_names)).tolist()
    held = dict(zip(manifest.shard_names, counted, strict=True))
    for name in sorted(declared.keys() | held.keys()):
        if declared.get(name) != held.get(name):
            yield f"{name}: has {held.get(name)} samples in the manifest, but {declared.get(name)} in dataset.json"
    for path in sorted(manifest.folder.glob("*.tar")) if info["profile"] != FOREIGN else ():
        if path.name not in declared:
            yield f"{path.name}: is not a shard of this split, but readers of all tars in the folder would read it"

    sizes = sum(shard["size_bytes"] for shard in info["shards"])
    truth = {"shards": len(declared), "bytes": sizes, "rejects": _count_rejects(manifest.folder)}
    if videos := [component for component in manifest.components.values() if component.kind == VIDEO.name]:
        truth["frames"] = sum(int(video.facts["n_frames"].sum()) for video in videos)
    for name, value in truth.items():
        if info["counts"].get(name) != value:
            yield f"dataset.json: counts {info['counts'].get(name)} {name}, but there are {value}"
    if (repeated := len(manifest) - len(set(manifest.keys(range(len(manifest)))))) > 0:
        yield f"{MANIFEST}: {repeated} keys are duplicates"


def _count_rejects(folder: Path) -> int | str:
    try:
        return int(pq.read_metadata(folder / REJECTS).num_rows)
    except (pa.ArrowException, OSError) as error:
        return f"none that can be read ({error})"
