"""The job of one split: compare it with what is on disk, keep its journal, finish and verify it."""

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
from .libraries import libraries
from .plan import ShardTask
from .shard_task import WrittenShard

_SHARD_FILE = re.compile(r".+-\d{6}\.(tar|idx)")


class SplitJob:
    """Writes one split into `folder`. It is the ledger of the split's tasks.

    `info` holds the settings. `missing` are sources that the dataset's lists name but whose files do not exist.
    """

    def __init__(self, folder: Path, info: DatasetInfo, tasks: list[ShardTask], missing: list[Reject]) -> None:
        self.folder = folder
        self.info = info
        self.tasks = tasks
        self.written = 0
        """How many shards this run has written."""
        self.n_sources = 0
        """How many sources this run has encoded."""
        self._missing = missing
        self._journal: Journal[WrittenShard] | None = None

    def is_finished(self) -> bool:
        """Whether the split is on disk, verified, with these settings. Raises ResumeError if its settings differ."""
        if not (self.folder / DATASET_JSON).is_file() or (self.folder / JOURNAL).is_file():
            return False
        written = read_dataset_json(self.folder)
        saved = {"dataset": written["dataset"], **written["settings"]}
        wanted = {"dataset": self.info.dataset, **self.info.settings}
        if changes := "; ".join(differences(saved, wanted)):
            raise ResumeError(
                f"{self.folder} was written with other settings ({changes}); choose another output folder, or start "
                "over with overwrite"
            )
        return True

    def begin(self) -> None:
        """Open the journal.

        Raises ResumeError if the journal has other settings, DatasetError if the folder holds tars of another run.
        """
        self._journal = Journal(self.folder, self._settings(), WrittenShard)
        remove_leftovers(self.folder)
        names = {task.path.name for task in self.tasks}
        if strange := sorted(path.name for path in self.folder.glob("*.tar") if path.name not in names):
            raise DatasetError(
                f"{self.folder} holds {len(strange)} tars of another run, such as {strange[0]}; choose another output "
                "folder"
            )

    def _settings(self) -> dict[str, Any]:
        names = {"format": FORMAT, "dataset": self.info.dataset, "split": self.info.split}
        return {**names, **self.info.settings, "libraries": libraries()}

    def stands(self, task: ShardTask) -> WrittenShard | None:
        """The record of a shard that an earlier run has written; None if there is none."""
        return None if self._journal is None else self._journal.stands(task)

    def record(self, task: ShardTask, done: WrittenShard) -> None:
        """Record a shard that this run has written."""
        if self._journal is not None:
            self._journal.record(task, done)
        self.written += 1
        self.n_sources += task.units

    def finish(self, done: Mapping[str, WrittenShard]) -> None:
        """Write manifest, rejects and dataset.json. `done` holds the record of each task by name.

        Raises DatasetError if every source was rejected.
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
        """Read everything back and compare it, then discard the journal. Raises ShardError with the problems."""
        report = verify(self.folder, progress=progress)
        if not report.ok:
            problems = "; ".join(report.problems[:3])
            raise ShardError(
                f"{self.folder}: {len(report.problems)} problems right after writing ({problems}). Check the disk and "
                "the memory of this machine, and start over with overwrite"
            )
        if self._journal is not None:
            self._journal.discard()

    def close(self) -> None:
        """Close the journal and keep its records."""
        if self._journal is not None:
            self._journal.close()

    def clear(self) -> None:
        """Delete all files that a run wrote into the folder."""
        self.close()
        for name in (DATASET_JSON, MANIFEST, REJECTS, JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm"):
            (self.folder / name).unlink(missing_ok=True)
        for path in self.folder.glob("*"):
            if _SHARD_FILE.fullmatch(path.name):
                path.unlink()

    def counts(self) -> dict[str, Any]:
        """The counts of the finished split; rejects are counted by the stage that failed."""
        stages = Counter(pq.read_table(self.folder / REJECTS, columns=["stage"])["stage"].to_pylist())
        return dict(read_dataset_json(self.folder)["counts"]) | ({"rejected": dict(stages)} if stages else {})
