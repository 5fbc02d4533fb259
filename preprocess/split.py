"""One split on its way to disk: what is there already, the journal, the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..shards.config import differences
from ..shards.errors import DatasetError, ResumeError, ShardError
from ..shards.format.columns import FORMAT
from ..shards.format.dataset import DATASET_JSON, MANIFEST, REJECTS, finish_split, read_dataset_json
from ..shards.format.journal import JOURNAL, Journal
from ..shards.format.sample import DatasetInfo, Reject
from ..shards.format.verify import verify
from ..shards.stores.publish import remove_leftovers
from .ledger import libraries
from .plan import ShardTask
from .shard_task import WrittenShard

_SHARD_FILE = re.compile(r".+-\d{6}\.(tar|idx)")


class SplitJob:
    """The shards of one split that are to be written into `folder`, and, as the ledger of its tasks, those that are.

    `info` names the settings; `missing` are sources that the dataset's lists name but that are not there.
    """

    def __init__(self, folder: Path, info: DatasetInfo, tasks: list[ShardTask], missing: list[Reject]) -> None:
        self.folder = folder
        self.info = info
        self.tasks = tasks
        self.written = 0
        """How many shards this run has written."""
        self.clips = 0
        """How many sources it has worked on."""
        self._missing = missing
        self._journal: Journal[WrittenShard] | None = None

    def is_finished(self) -> bool:
        """Whether the split stands on disk, verified, with these settings; ResumeError where it has others."""
        if not (self.folder / DATASET_JSON).is_file() or (self.folder / JOURNAL).is_file():
            return False
        written = read_dataset_json(self.folder)
        there = {"dataset": written["dataset"], **written["settings"]}
        wanted = {"dataset": self.info.dataset, **self.info.settings}
        if changes := "; ".join(differences(there, wanted)):
            raise ResumeError(
                f"{self.folder} was written with other settings ({changes}); choose another output folder, or start "
                "over with overwrite"
            )
        return True

    def begin(self) -> None:
        """Open the journal; ResumeError where it is of other settings."""
        self._journal = Journal(self.folder, self._settings(), WrittenShard)
        remove_leftovers(self.folder)
        names = {task.path.name for task in self.tasks}
        if strange := sorted(path.name for path in self.folder.glob("*.tar") if path.name not in names):
            raise DatasetError(
                f"{self.folder} holds {len(strange)} tars that are not of this run, such as {strange[0]}; choose "
                "another output folder"
            )

    def _settings(self) -> dict[str, Any]:
        names = {"format": FORMAT, "dataset": self.info.dataset, "split": self.info.split}
        return {**names, **self.info.settings, "libraries": libraries()}

    def stands(self, task: ShardTask) -> WrittenShard | None:
        """The record of a shard that an earlier run has written."""
        return None if self._journal is None else self._journal.stands(task)

    def record(self, task: ShardTask, done: WrittenShard) -> None:
        """A shard was written."""
        if self._journal is not None:
            self._journal.record(task, done)
        self.written += 1
        self.clips += task.units

    def finish(self, done: Mapping[str, WrittenShard]) -> None:
        """Write manifest, rejects and dataset.json, of the records by the names of tasks; DatasetError where nothing is
        left to write.
        """
        records = [done[task.name] for task in self.tasks]
        shards = [record.shard for record in records if record.shard is not None]
        rejects = [*self._missing, *(reject for record in records for reject in record.rejects)]
        if not shards:
            common = Counter(f"{reject.stage}: {reject.reason}" for reject in rejects).most_common(3)
            reasons = "; ".join(f"{reason} ({count})" for reason, count in common)
            raise DatasetError(f"{self.folder}: none of {len(rejects)} sources can be used. {reasons}")
        finish_split(self.folder, self.info, shards, rejects)

    def verify(self, progress: Callable[[int, int], None]) -> None:
        """Read everything back and compare; discards the journal, or raises ShardError with the problems."""
        report = verify(self.folder, progress=progress)
        if not report.ok:
            problems = "; ".join(report.problems[:3])
            raise ShardError(
                f"{self.folder}: {len(report.problems)} problems right after writing ({problems}). The disk or the "
                "memory is at fault; start over with overwrite"
            )
        if self._journal is not None:
            self._journal.discard()

    def close(self) -> None:
        """Let go of the journal; what it holds stays."""
        if self._journal is not None:
            self._journal.close()

    def clear(self) -> None:
        """Delete the files of a split that a run began or finished here (dataset.json or a journal says so)."""
        self.close()
        for name in (DATASET_JSON, MANIFEST, REJECTS, JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm"):
            (self.folder / name).unlink(missing_ok=True)
        for path in self.folder.glob("*"):
            if _SHARD_FILE.fullmatch(path.name):
                path.unlink()

    def counts(self) -> dict[str, Any]:
        """The counts of the finished split, the rejects by the stage at which they failed."""
        stages = Counter(pq.read_table(self.folder / REJECTS, columns=["stage"])["stage"].to_pylist())
        return dict(read_dataset_json(self.folder)["counts"]) | ({"rejected": dict(stages)} if stages else {})
