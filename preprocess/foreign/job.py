"""The job that indexes tars of other programs, without changing them, into a split that maskstream reads.

The indexed component is `video` or `sound`, and the word `ending` stores the member's suffix, so a loader never has to
choose among containers per sample.

Labels are numbered over all tars, and a key may occur only once among them. Only the rows of one tar are in memory at a
time; the records of the tars are read several times instead. Each sample needs 8 bytes of memory, for the hash of its
key.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from maskstream.preprocess.encode.limits import Limits
from maskstream.preprocess.executors.local import choose_executor
from maskstream.preprocess.job.ledger import libraries, run_splits
from maskstream.preprocess.job.options import IndexOptions
from maskstream.shards.errors import DatasetError, ShardError, StoreError
from maskstream.shards.format.columns import FORMAT
from maskstream.shards.format.dataset import DATASET_JSON, FOREIGN, MAX_JSON_BYTES, finish_split
from maskstream.shards.format.part_writer import Hashes, hash_keys
from maskstream.shards.format.records import Records, Row, ShardRecord
from maskstream.shards.format.sample import DatasetInfo, Reject
from maskstream.shards.format.ustar import format_idx
from maskstream.shards.keywords import takes_fields
from maskstream.shards.media.video_index import name_sidecar
from maskstream.shards.progress import Progress
from maskstream.shards.stores.output import Location, Output, get_last_parts, open_output
from maskstream.shards.stores.url import is_url

from .labels import Label, LabelTable, Numbers
from .tar_file import TarFile, find_tars, index_folder, name_in_split
from .task import IndexedTar, Indexer, TarTask, choose_indexer, index_tar, list_sidecars

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """The records of all tars, combined.

    Attributes:
        tasks: Tasks of the tars.
        records: Their records.
        table: Labels from a table, which take precedence over labels in the tars.
        numbers: Numbers of the labels.
        samples: Number of samples.
        named: Number of samples that the table names.
        empty: Names of the tars without samples.
        rejects: Rejects of all tars, including samples with a key that occurs in an earlier tar.
        twice: Hashes of keys that may occur twice.
        unlabelled: Whether no sample has a label.
    """

    tasks: Sequence[TarTask]
    records: Records[IndexedTar]
    table: LabelTable | None
    numbers: Numbers
    samples: int
    named: int
    empty: tuple[str, ...]
    rejects: list[Reject]
    twice: frozenset[int]
    unlabelled: bool

    @classmethod
    def of(cls, tasks: Sequence[TarTask], records: Records[IndexedTar], table: LabelTable | None = None) -> Self:
        """Read the records of the tars, and again if a key may occur twice.

        Args:
            tasks: Tasks of the tars.
            records: Their records.
            table: Table of labels.

        Raises:
            DatasetError: The table names none of the samples.
            ShardError: A record is damaged or missing.
        """
        hashes: list[Hashes] = []
        named: dict[str, int] = {}
        example = ""
        labels: set[Label] = set()
        rejects: list[Reject] = []
        for tar in _read(tasks, records, table):
            keys = [row.key for row in tar.shard.rows]
            named[tar.shard.name] = _count_named(table, keys)
            example = example or next(iter(keys), "")
            hashes.append(hash_keys(keys))
            labels.update(tar.labels)
            rejects += tar.rejects
        if table is not None and example and not any(named.values()):
            raise DatasetError(
                f"{table.path} does not match any sample: it has names such as {next(iter(table.labels), '')!r}, but "
                f"a sample has the key {example!r}. Choose the column with keys, ids or paths with --match"
            )
        twice = _find_repeated(hashes)
        counts = {task.name: len(some) for task, some in zip(tasks, hashes, strict=True)}
        if twice:
            for tar, kept, refused in _kept(_read(tasks, records, table), twice):
                counts[tar.shard.name] = len(kept)
                named[tar.shard.name] = _count_named(table, [row.key for row, _ in kept])
                rejects += refused
        for tar in _read([task for task in tasks if not counts[task.name]], records, table):
            if not tar.rejects:
                rejects.append(Reject(source=tar.shard.name, stage="tar", reason="contains no sample"))
        return cls(
            tasks=tasks,
            records=records,
            table=table,
            numbers=Numbers.of(labels),
            samples=sum(counts.values()),
            named=sum(named.values()),
            empty=tuple(name for name, count in counts.items() if not count),
            rejects=rejects,
            twice=twice,
            unlabelled=not labels - {None},
        )

    @property
    def label_names(self) -> tuple[str, ...]:
        """Sorted names of the labels; () if all are numbers."""
        return self.numbers.names

    def shards(self, output: Output) -> Iterator[ShardRecord]:
        """Yield the shards with their labels, in the order of their names, and write the idx of each to `output`."""
        for tar, kept, _ in _kept(_read(self.tasks, self.records, self.table), self.twice):
            if not kept:
                continue
            rows = tuple(replace(row, label=self.numbers.of_label(label)) for row, label in kept)
            shard = replace(tar.shard, rows=rows)
            index = format_idx((row.key, row.spans) for row in rows)
            output.publish(name_sidecar(shard.name, ".idx"), index.encode())
            yield shard


def _count_named(table: LabelTable | None, keys: Sequence[str]) -> int:
    return 0 if table is None else sum(map(table.names_one, keys))


def _read(tasks: Sequence[TarTask], records: Records[IndexedTar], table: LabelTable | None) -> Iterator[IndexedTar]:
    """Yield the tars, with the labels of the table for the samples that it names."""
    for task in tasks:
        tar = records.read(task)
        if tar is None:
            raise ShardError(f"the record of {task.name} is damaged or missing; run the same command again")
        if table is not None:
            both = zip(tar.shard.rows, tar.labels, strict=True)
            tar = replace(tar, labels=tuple(table.label(row.key, label) for row, label in both))
        yield tar


def _find_repeated(hashes: Sequence[Hashes]) -> frozenset[int]:
    """Return the hashes that occur more than once."""
    every = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
    return frozenset(every[1:][every[1:] == every[:-1]].tolist())


def _kept(
    tars: Iterator[IndexedTar], twice: frozenset[int]
) -> Iterator[tuple[IndexedTar, list[tuple[Row, Label]], list[Reject]]]:
    """Yield each tar with the rows to keep and their labels, and rejects for rows whose key occurs in an earlier
    tar.
    """
    taken: dict[str, str] = {}
    for tar in tars:
        kept, refused = [], []
        found = hash_keys(row.key for row in tar.shard.rows).tolist() if twice else [None] * len(tar.shard.rows)
        for row, label, number in zip(tar.shard.rows, tar.labels, found, strict=True):
            if number in twice:
                if row.key in taken:
                    reason = f"its key also occurs in {taken[row.key]}; keys must be unique within a split"
                    refused.append(Reject(source=row.source, stage="tar", reason=reason))
                    continue
                taken[row.key] = tar.shard.name
            kept.append((row, label))
        yield tar, kept, refused


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """The result of indexing tars.

    Attributes:
        folder: Folder of the split.
        tars: Number of tars with samples.
        samples: Number of samples.
        rejects: Number of rejects by stage.
        without_label: Number of samples that the table of labels does not name; None without a table.
    """

    folder: Location
    tars: int
    samples: int
    rejects: dict[str, int]
    without_label: int | None = None


@takes_fields(IndexOptions)
def index_tars(
    tars: Sequence[Location],
    out: Location | None = None,
    options: IndexOptions = IndexOptions(),  # noqa: B008  (it is frozen)
) -> IndexReport:
    """Index tars in the WebDataset format, without changing them, so that loaders can read them as a split.

    Writes a manifest, rejects.parquet and dataset.json, and an idx and a packets file for each tar. Samples that cannot
    be used, exceed a limit or crash a worker process twice become rows of rejects.parquet. The result does not depend
    on the executor. A stopped run continues: indexed tars that have not changed are not read again. A tar that cannot
    be read is retried after each of `pauses_s`; then the run ends with OutageError and can be started again.

    Args:
        tars: Tars, or folders of tars, on a disk or at URLs; they are read once and never written.
        out: Folder of the index, by default the folder of the tars. An index in another folder refers to tars at URLs
            by their URLs.
        options: Modality, labels, workers, limits and more; its fields can be passed as keywords.

    Returns:
        The folder and the numbers of tars, samples and rejects.

    Raises:
        ValueError: Tars are missing or compressed, lie in several folders without `out`, share a name, or contain
            several modalities without `modality`; or `out` contains shards of maskstream.
        DatasetError: No tar contains a usable sample.
        OutageError: A tar cannot be read for now.
        ResumeError: A run with other settings was stopped in `out`.
        BusyError: Another run writes to `out`.
    """
    executor = choose_executor(options.executor, options.workers)
    table = None if options.labels is None else LabelTable.read(Path(options.labels), options.match)
    found = find_tars(tars)
    output = open_output(index_folder(found, out))
    with output.sole_writer():
        _check_kind(output)
        index = _Index(output, found, choose_indexer([TarFile(tar) for tar in found], options.modality), options)
        index.begin()
        progress = options.progress or Progress()
        try:
            run_splits(executor, index_tar, index.modality, [index], progress, phase="index", unit="tars")
        finally:
            output.remove_leftovers()  # of processes that were killed in this run
        return index.finish(table)


class _Index:
    """The index that a job writes: the records of its tasks, and the files that turn the folder into a split."""

    def __init__(self, output: Output, tars: Sequence[Location], indexer: Indexer, options: IndexOptions) -> None:
        self._output = output
        self._indexer = indexer
        self._options = options
        limits = options.limits or Limits()
        self._settings = {"fast": options.fast, "limits": limits.to_dict(defaults=True)}
        """Settings that decide which samples are used."""
        self._records = Records(output, IndexedTar)
        self.modality = indexer.name
        self.own = [
            TarTask(
                out=output.location,
                name=name,
                modality=indexer.name,
                check=not options.fast,
                limits=limits,
                pauses_s=tuple(options.pauses_s),
            )
            for name in sorted(name_in_split(tar, output) for tar in tars)
        ]

    def begin(self) -> None:
        """Begin the records, or continue them. Raise ResumeError if they have other settings."""
        names = {"format": FORMAT, "index": self.modality}
        self._records.begin({**names, **self._settings, "libraries": libraries(self.modality)})
        self._output.remove([DATASET_JSON])
        self._output.remove_leftovers()

    def stands(self, task: TarTask) -> IndexedTar | None:
        return self._records.stands(task)

    def record(self, task: TarTask, done: IndexedTar, restarts: int) -> None:
        self._records.record(task, done)

    def finish(self, table: LabelTable | None) -> IndexReport:
        """Write the files of the split. Raise DatasetError if no sample is usable."""
        collected = Collected.of(self.own, self._records, table)
        if collected.samples and collected.unlabelled:
            log.warning(
                "none of the %d samples has a label in `json` or `cls`; add them with --labels train.csv (labels=)",
                collected.samples,
            )
        try:
            report = self._written(collected)
        except DatasetError:
            if table is None:
                self._records.discard()  # another modality may be tried
            raise
        self._records.discard()
        return report

    def _written(self, collected: Collected) -> IndexReport:
        rejects, output = collected.rejects, self._output
        if not collected.samples:
            example = f", for example {rejects[0].source}: {rejects[0].reason}" if rejects else ""
            raise DatasetError(f"{len(collected.tasks)} tars contain no usable {self._indexer.noun}{example}")
        output.remove([name for tar in collected.empty for name in list_sidecars(tar)])
        name = get_last_parts(output.location if is_url(output.location) else Path(output.location).resolve(), 1)
        info = DatasetInfo(
            dataset=name,
            split=name,
            modality=self.modality,
            profile=FOREIGN,
            label_names=collected.label_names,
            settings=self._settings,
        )
        finish_split(output, info, collected.shards(output), rejects)
        return IndexReport(
            folder=output.location if is_url(output.location) else Path(output.location),
            tars=len(collected.tasks) - len(collected.empty),
            samples=collected.samples,
            rejects=dict(sorted(Counter(reject.stage for reject in rejects).items())),
            without_label=None if collected.table is None else collected.samples - collected.named,
        )


def _check_kind(output: Output) -> None:
    """Raise ValueError if the folder contains shards, which an index would replace."""
    try:
        data = output.whole(DATASET_JSON, MAX_JSON_BYTES)
        profile = FOREIGN if data is None else json.loads(data)["profile"]  # every version of the format has it
    except (StoreError, ValueError, KeyError, TypeError):
        profile = "another"
    if profile != FOREIGN:
        raise ValueError(
            f"{output.location} contains shards of the profile {profile!r}, not an index; pass a different --out"
        )
