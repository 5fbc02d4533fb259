"""Records the versions of its splits that a run has read, and from which step on, so that `replay` shows each step with
its original samples.

data_versions.json in the run's folder has an entry for each change. The samples that had been removed from a split at
that time are stored in a separate file, since `erase` and later versions change the split's own record.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from maskstream.pipelines.modalities.mixture import RunData, list_manifests
from maskstream.shards.arrays import Int64s
from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.config import Json
from maskstream.shards.format.rejects import encode_numbers
from maskstream.shards.stores.local_files import publish

from .distributed import in_step, rank
from .hook import Hook, RunState

log = logging.getLogger(__name__)

VERSIONS = "data_versions.json"
_READ, _FROM, _SPLITS = "read", "from", "splits"
_REMOVED = "removed-{}.parquet"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SeenSplit:
    """A split as read by a run: its version and fingerprint, and the samples that were removed from it, int64 (R,)."""

    version: int
    fingerprint: str
    removed: Int64s


def record_versions(run: Path, data: RunData, step: int) -> None:
    """Record that the run reads these splits from the step after `step` on. Entries of later steps are dropped.

    Args:
        run: Folder of the run.
        data: Open split or mixture.
        step: Number of steps done.
    """
    splits = []
    for split in list_manifests(data):
        name = ""
        if len(split.removed):
            content = encode_numbers(split.removed)
            name = _REMOVED.format(xxhash.xxh3_128_hexdigest(content))
            publish(run / name, content)
        splits.append({"version": split.version, "fingerprint": split.fingerprint, "removed": name})
    entries = [entry for entry in _read_entries(run) if entry[_FROM] <= step]
    if not entries or entries[-1][_SPLITS] != splits:
        entries.append({_FROM: step + 1, _SPLITS: splits})
    publish(run / VERSIONS, add_checksum({_READ: entries}))
    named = {split["removed"] for entry in entries for split in entry[_SPLITS]}
    for path in run.glob(_REMOVED.format("*")):
        if path.name not in named:
            path.unlink()


class VersionRecord(Hook):
    """Records which versions of its data a run reads, also after a rollback."""

    timed = ""

    def __init__(self, data: RunData) -> None:
        self._data = data

    def begin(self, run: RunState) -> None:
        """Record the versions on rank 0, which writes the folder."""
        with in_step(run.device):
            if rank() == 0:
                record_versions(run.out, self._data, run.step)


def find_splits_at(run: Path, step: int) -> list[SeenSplit] | None:
    """Return the splits as the run read them in a step, in order; None if this is not recorded.

    Args:
        run: Folder of the run.
        step: Number of the step.
    """
    entries = [entry for entry in _read_entries(run) if entry[_FROM] <= step]
    try:
        return [_read_split(run, split) for split in entries[-1][_SPLITS]] if entries else None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        log.warning("the record of the data of step %d in %s is damaged (%s) and is not used", step, run, error)
        return None


def _read_entries(run: Path) -> list[Json]:
    path = run / VERSIONS
    if not path.exists():
        return []
    try:
        return list(read_checksummed(path.read_bytes())[_READ])
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s is damaged (%s) and is not used", path, error)
        return []


def _read_split(run: Path, split: Json) -> SeenSplit:
    removed = np.empty(0, np.int64)
    if name := split["removed"]:
        content = (run / name).read_bytes()
        if name != _REMOVED.format(xxhash.xxh3_128_hexdigest(content)):
            raise ValueError(f"{name} does not match the checksum in its name")
        removed = pq.read_table(io.BytesIO(content)).column("sample").to_numpy().astype(np.int64)
    return SeenSplit(version=int(split["version"]), fingerprint=str(split["fingerprint"]), removed=removed)
