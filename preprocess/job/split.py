"""Job of one split: compares it with the files on disk, keeps its records, finishes and verifies it."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from maskstream.preprocess.executors.base import Executor
from maskstream.preprocess.raw.file_state import FileState
from maskstream.preprocess.raw.files import LOCAL, is_same
from maskstream.preprocess.source import Source
from maskstream.shards.config import differences
from maskstream.shards.errors import DatasetError, ResumeError, ShardError, UnfinishedError
from maskstream.shards.format.checked_file import read_checked
from maskstream.shards.format.columns import FORMAT
from maskstream.shards.format.dataset import (
    DATASET_JSON,
    FOREIGN,
    VERSIONS,
    finish_split,
    is_index,
    list_versions,
    read_description,
)
from maskstream.shards.format.part_writer import encode_parquet
from maskstream.shards.format.records import READERS, RECORDS, Records, ShardRecord
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.sample import DatasetInfo, Reject
from maskstream.shards.format.tokenizer import TOKENIZER, TOKENIZER_JSON
from maskstream.shards.format.writer import mended
from maskstream.shards.named import list_few
from maskstream.shards.progress import Progress
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.local_files import is_maybe_running, this_run
from maskstream.shards.stores.output import Location, Sizes, open_output

from .ledger import libraries
from .options import JobOptions
from .plan import ShardTask
from .report import Effort, check_rejects, make_report
from .task import WrittenShard, read_recorded_rejects, read_recorded_sources, read_recorded_unkept, shard_files
from .verification import about, verify_split

UNKEPT_LIST = "unkept.parquet"
"""File of a split that lists the samples left out by a rule."""
log = logging.getLogger(__name__)

_SHARD_FILE = re.compile(rf"([^/]+)-\d{{6}}(?:\.e\d+)?\.(tar|idx|{SUMS[1:]})")
"""How many sources a message names."""


class SplitJob:
    """Writes one split into `folder`, a path or URL, and is the ledger of its tasks.

    The options edit the records before the run (`JobOptions`): `overwrite` deletes all, `retry_rejects` and `repair`
    choose which ones count, and `part` selects the tasks of this run. A record that does not count is replaced only
    when its shard is rewritten, so a killed run loses no record.

    Args:
        folder: Path or URL of the split.
        info: Description with the settings.
        tasks: All tasks of the split.
        missing: Sources that the dataset's lists name but whose files do not exist.
        attached: Further files next to dataset.json.
        options: Options of the job.
    """

    def __init__(
        self,
        folder: Location,
        info: DatasetInfo,
        tasks: list[ShardTask],
        missing: list[Reject],
        attached: Mapping[str, bytes],
        options: JobOptions,
    ) -> None:
        self.folder = folder
        self.output = open_output(folder)
        self.info = info
        self.tasks = tasks
        self.own = tasks if options.own is None else options.own.of(tasks)
        """Tasks of this run."""
        self.written = 0
        """Number of shards that this run has written."""
        self.n_sources = 0
        """Number of sources that this run has encoded."""
        self._missing = missing
        self._files = tasks[0].files if tasks else LOCAL
        self._options = options
        self._attached = attached
        self._records = Records(self.output, WrittenShard)
        self._efforts: dict[str, Effort] = {}
        self._rejects: Sequence[Reject] = ()
        self._sizes: Sizes = self.output
        """Sizes of the files that an earlier run wrote."""

    def is_finished(self) -> bool:
        """Return whether the split is on disk, verified, made from these sources and settings, and needs no retry.

        It also returns False if its index (dataset.json, manifest, rejects) is damaged, if its records can replace it.

        Raises:
            ResumeError: Its settings or sources differ.
            DatasetError: It has too many rejects.
        """
        if not self._has_index():
            return False
        try:
            written = read_description(self.output.store)
            rejects = read_rejects(self.output.store, written)
            for part in written["parts"]:
                read_checked(self.output.store, part["name"], written["files"])
        except ShardError:
            if self._records.job() is None:
                raise
            return False  # the index is damaged and is rebuilt from the records
        saved = {"dataset": written["dataset"], **written["settings"]}
        wanted = {"dataset": self.info.dataset, **self.info.settings}
        if changes := "; ".join(differences(saved, wanted)):
            raise ResumeError(
                f"{self.folder} was written with different settings ({changes}); choose a different output folder, or "
                "start over with overwrite"
            )
        job = self._records.job()
        if job is None:
            raise ResumeError(
                f"{self.folder} contains a split without {RECORDS}, so its sources cannot be compared with the "
                "current ones. It can still be read; to write it again, choose a different output folder, or start "
                "over with overwrite"
            )
        found = list(self._records.firsts(self.tasks))
        if (
            self._options.repair
            or not job.verified
            or None in found
            or any(
                self.output.whole(name, len(data)) != data
                for name, data in self._attached.items()
                if not (name == TOKENIZER_JSON and TOKENIZER in written)
            )
            or (self._options.retry_rejects and any(read and read["rejects"] for read in found))
        ):
            return False
        self._check_sources()
        check_rejects(self.folder, rejects, self._n_listed, self._options.max_rejects)
        return True

    @property
    def _n_listed(self) -> int:
        return sum(task.units for task in self.tasks) + len(self._missing)

    def begin(self) -> None:
        """Edit the records as the options request, and create or continue them.

        A part, and a run without locks to exclude others, leaves valid records unchanged, since other processes may be
        writing the same ones.

        Raises:
            ResumeError: The records have other settings or sources.
            DatasetError: The folder contains tars of another program.
        """
        if self._options.overwrite:
            self._clear()
        self._check_versions()
        self._check_strange({task.file for task in self.tasks})
        self._records.check(self._settings())
        self._check_sources()
        is_alone = self.output.is_locked and self._options.part is None
        begin = self._records.begin if is_alone else self._records.join
        begin(self._settings())
        self._records.describe(about(self.info, self._missing))
        if is_alone:
            self.output.remove_leftovers()
        self._sizes = self.output.sizes()
        if self._options.repair:
            self.own = [replace(task, sha256=self._sha256(task)) for task in self.own]
        elif is_alone or (self._has_index() and not all(self._find_standing(self.own))):
            self._records.unverified()
            self.output.remove([DATASET_JSON])  # the shards that it describes may be replaced from now on
        if not self.output.is_locked and self._options.part is None:
            self._take_split()

    def _has_index(self) -> bool:
        return self.output.size(DATASET_JSON) is not None

    def _sha256(self, task: ShardTask) -> str | None:
        """Return the checksum of the tar that an earlier run wrote; None without a record."""
        found = self._records.read(task)
        return None if found is None or found.shard is None else found.shard.sha256

    def _check_versions(self) -> None:
        """Raise ResumeError if the split has later versions, which an index built from the records would undo."""
        if (versions := list_versions(self.output.store)) and versions[-1] > 1:
            raise ResumeError(
                f"{self.folder} has {versions[-1]} versions (samples were removed, appended, held out), and its index "
                f"would be written as version 1 again; if {DATASET_JSON} is damaged, copy "
                f"{VERSIONS}/{versions[-1]}.json to it; otherwise choose a different output folder, or start over "
                "with overwrite"
            )

    def _take_split(self) -> None:
        """Claim the split for this run in case other runs can write to it, and delete a damaged index."""
        if self._has_index():
            try:
                read_description(self.output.store)
            except ShardError:
                self.output.remove([DATASET_JSON])
        other = self._records.claim(this_run())
        if other and is_maybe_running(other):
            log.warning(
                "%s was started by %s and is unfinished; if that run is still active, both write the same bytes, "
                "and one of them is redundant",
                self.folder,
                other,
            )

    def check_written(self) -> None:
        """Raise UnfinishedError if shards are missing or their records are not valid."""
        self._sizes = self.output.sizes()
        missing = [
            task.name for task, stands in zip(self.tasks, self._find_standing(self.tasks), strict=True) if not stands
        ]
        if missing:
            names = list_few(missing)
            raise UnfinishedError(
                f"{self.folder}: {len(missing)} of {len(self.tasks)} shards are not written yet: {names}; rerun the "
                "parts that were stopped (any --part i/n writes what is missing from its share), then --finish"
            )

    def _find_standing(self, tasks: Sequence[ShardTask]) -> list[bool]:
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda task: self.stands(task) is not None, tasks))

    def _check_strange(self, names: set[str]) -> None:
        found = [name for name in self.output.names() if name.endswith(".tar") and "/" not in name]
        if strange := [name for name in found if name not in names]:
            raise DatasetError(
                f"{self.folder} holds {len(strange)} tars from a different run, such as {strange[0]}; choose a "
                "different output folder"
            )

    def _check_sources(self) -> None:
        """Raise ResumeError if the source of a written shard has changed, OutageError if it cannot be read.

        A reject that will be encoded again may have changed.
        """
        kept: list[str] = []
        retried: list[str] = []
        known: dict[tuple[Path, FileState], bool] = {}
        for source, was_rejected, files in self._list_written_sources():
            if not is_same(source, files, self._files, known):
                (retried if was_rejected else kept).append(source.id)
        if not kept and (self._options.retry_rejects or not retried):
            return
        changed = kept if self._options.retry_rejects else [*kept, *retried]
        names = list_few(changed, repr)
        retry = "" if kept else "all of them were rejects: encode them again with retry_rejects (--retry-rejects), "
        raise ResumeError(
            f"{self.folder}: {len(changed)} of {self._n_listed} sources changed after they were encoded: {names}; "
            f"{retry}choose a different output folder, or start over with overwrite (--overwrite)"
        )

    def _list_written_sources(self) -> Iterator[tuple[Source, bool, tuple[FileState, ...]]]:
        """Yield each source of the written shards, whether it was rejected, and the states of its files at that
        time.
        """
        for task, read in zip(self.own, self._records.firsts(self.own), strict=True):
            if read is not None:
                rejected = {reject.source for reject in read_recorded_rejects(read)}
                states = dict(zip((source.id for source in task.sources), read_recorded_sources(read), strict=False))
                for source in task.sources:
                    yield source, source.id in rejected, states.get(source.id, ())

    def _settings(self) -> dict[str, Any]:
        names = {"format": FORMAT, "dataset": self.info.dataset, "split": self.info.split}
        return {**names, **self.info.settings, "libraries": libraries(self.info.modality)}

    def stands(self, task: ShardTask) -> WrittenShard | None:
        """Return the record of a shard that an earlier run wrote, if it is valid for this run; None otherwise."""
        repair = self._options.repair
        found = self._records.read(task) if repair else self._records.stands(task, self._sizes)
        if found is None or (self._options.retry_rejects and found.rejects):
            return None
        is_damaged = repair and found.shard is not None and mended(self.output, found.shard) is None
        return None if is_damaged else found

    def record(self, task: ShardTask, done: WrittenShard, restarts: int) -> None:
        """Record a shard written by this run, after `restarts` processes died running its task."""
        if done.effort is not None:
            effort = self._efforts[task.name] = replace(done.effort, restarts=restarts)
            done = replace(done, effort=effort)
        if done.shard is None:
            self.output.remove(shard_files(task.file))
        self._records.record(task, done)
        if done.rejects and self._options.progress is not None:
            self._options.progress.tally("rejects", len(done.rejects))
        self.written += 1
        self.n_sources += task.units

    def finish(self) -> None:
        """Write manifest, rejects and dataset.json from the records, in this order.

        Raises:
            DatasetError: Too many sources were rejected.
            UnfinishedError: A record is missing.
        """
        rejects, unkept = [*self._missing], list[Reject]()
        for read in self._records.firsts(self.tasks):
            if read is not None:
                rejects += read_recorded_rejects(read)
                unkept += read_recorded_unkept(read)
        if unkept and len(rejects) + len(unkept) == self._n_listed:
            raise DatasetError(f"{self.folder}: none of {self._n_listed} sources was kept: {unkept[0].reason}")
        if len(rejects) == self._n_listed:
            common = Counter(f"{reject.stage}: {reject.reason}" for reject in rejects).most_common(3)
            reasons = "; ".join(f"{reason} ({count})" for reason, count in common)
            raise DatasetError(f"{self.folder}: none of {len(rejects)} sources can be used. {reasons}")
        check_rejects(self.folder, rejects, self._n_listed, self._options.max_rejects)
        self.output.remove_leftovers()  # left by processes killed in this run
        for name, data in self._attached.items():
            self.output.publish(name, data)
        self._list_unkept(unkept)
        finish_split(self.output, self.info, self._written(), rejects)
        self._rejects = rejects

    def _list_unkept(self, unkept: Sequence[Reject]) -> None:
        """Write the list of sources that a rule left out, with the reasons."""
        if self._options.keep is None:
            return
        ordered = sorted(unkept, key=lambda one: one.source)
        columns = {"source": [one.source for one in ordered], "reason": [one.reason for one in ordered]}
        schema = pa.schema([("source", pa.string()), ("reason", pa.string())])
        self.output.publish(UNKEPT_LIST, encode_parquet(pa.table(columns, schema=schema)))

    def _written(self) -> Iterator[ShardRecord]:
        """Yield the records of the shards in the order of their names; only a few are in memory at a time."""
        sizes = self.output.sizes()
        with ThreadPoolExecutor(READERS) as pool:
            for begin in range(0, len(self.tasks), READERS):
                some = self.tasks[begin : begin + READERS]
                for task, found in zip(some, pool.map(lambda one: self._records.stands(one, sizes), some), strict=True):
                    if found is None:
                        raise UnfinishedError(
                            f"{self.folder}: the record of {task.name} is missing; run the same command again"
                        )
                    if found.effort is not None:
                        self._efforts.setdefault(task.name, found.effort)
                    if found.shard is not None:
                        yield found.shard

    def verify(self, executor: Executor, progress: Progress) -> None:
        """Read everything back and compare it, then mark the split as verified. Raises ShardError with the problems."""
        report = verify_split(self.folder, executor=executor, progress=progress)
        if not report.ok:
            problems = "; ".join(report.problems[:3])
            raise ShardError(
                f"{self.folder}: {len(report.problems)} problems right after writing ({problems}). Check the disk and "
                "the memory of this machine, and start over with overwrite"
            )
        self._records.report(self._report())
        self._records.verified()

    def _report(self) -> dict[str, Any]:
        counts = read_description(self.output.store)["counts"]
        efforts = [self._efforts[task.name] for task in self.tasks if task.name in self._efforts]
        return make_report(self.info, counts, efforts, self._rejects, libraries(self.info.modality))

    def _clear(self) -> None:
        """Delete all files that a run wrote into the folder, of every dataset recorded there."""
        names = {self.info.dataset, *self._read_datasets()}
        there = self.output.names()
        found = [(name, _SHARD_FILE.fullmatch(name)) for name in there]
        ours = [name for name, match in found if match and match[1] in names]
        self._check_strange(set(ours))
        self.output.remove([DATASET_JSON])
        self.output.remove([*ours, *(name for name in there if is_index(name) or name == UNKEPT_LIST)])
        self._records.discard()
        self.output.remove_leftovers()

    def _read_datasets(self) -> Iterator[str]:
        """Yield the datasets whose shards the folder may contain. Raises DatasetError if it has an index of foreign
        tars.
        """
        try:
            written = read_description(self.output.store)
        except ShardError:
            written = {}
        if written.get("profile") == FOREIGN:
            raise DatasetError(
                f"{self.folder} contains an index of tars from other programs; choose a different output folder"
            )
        if "dataset" in written:
            yield written["dataset"]
        try:
            job = self._records.job()
        except ResumeError:
            return
        if job is not None and "dataset" in job.settings:
            yield job.settings["dataset"]

    def counts(self) -> dict[str, Any]:
        """Counts of the finished split; rejects are counted by the stage that failed."""
        info = read_description(self.output.store)
        stages = Counter(reject.stage for reject in read_rejects(self.output.store, info))
        return dict(info["counts"]) | ({"rejected": dict(stages)} if stages else {})
