"""The job that indexes tars of other programs, without changing them, into a split that maskstream reads.

The indexed component is `video` or `sound`, and the word `ending` is the member's ending, so a loader never chooses
among containers per sample.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from maskstream.preprocess.encode.limits import Limits
from maskstream.preprocess.executors.local import executor_of
from maskstream.preprocess.job.ledger import run_splits
from maskstream.preprocess.job.libraries import libraries
from maskstream.preprocess.job.options import RunOptions, RunSettings
from maskstream.preprocess.job.progress import Progress
from maskstream.shards.errors import DatasetError, StoreError
from maskstream.shards.format.columns import FORMAT
from maskstream.shards.format.dataset import DATASET_JSON, FOREIGN, MAX_JSON_BYTES, finish_split
from maskstream.shards.format.records import Records
from maskstream.shards.format.sample import DatasetInfo
from maskstream.shards.stores.output import Location, Output, last_parts, output_at
from maskstream.shards.stores.url import is_url

from .collected import Collected
from .indexer import Indexer, indexer_of
from .labels import LabelTable
from .tar_file import TarFile, found_tars, index_folder, name_in_split
from .task import IndexedTar, TarTask, index_tar, sidecars


class IndexSettings(RunSettings, total=False):
    """The fields of `IndexOptions`, as keyword arguments."""

    modality: str | None
    labels: str | Path | None
    match: str | None
    as_is: bool
    fast: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexOptions(RunOptions):
    """The options of `index_tars`, besides those of every job.

    modality: "video" or "audio", by default that of the first sample. labels: a csv file beside the tars, such as
    Kinetics' train.csv, whose labels come before those in the tars. It has the column `label`, and `match` (by default
    key, id, video_id, youtube_id, path, file, filename or wav), which names a sample by the last part of its key.
    as_is: samples may have no label at all; the tars are not read again then. fast: trust the flags of key frames in
    containers; else every entry point of a video is decoded and compared with a full decode, as those of a sound are.
    """

    modality: str | None = None
    labels: str | Path | None = None
    match: str | None = None
    as_is: bool = False
    fast: bool = False

    def __post_init__(self) -> None:
        if self.match is not None and self.labels is None:
            raise ValueError("match names a column of labels; give both")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What was indexed: the split's folder, the numbers of tars with samples and of samples, and rejects by stage.

    without_label: how many samples the table of labels does not name; None without a table.
    """

    folder: Location
    tars: int
    samples: int
    rejects: dict[str, int]
    without_label: int | None = None


def index_tars(
    tars: Sequence[Location],
    out: Location | None = None,
    options: IndexOptions | None = None,
    **given: Unpack[IndexSettings],
) -> IndexReport:
    """Write a manifest, rejects.parquet and dataset.json, and an idx and a packets file per tar, into `out`.

    tars: files, or folders of them, on a disk or at URLs; they are read once and never written. out: by default the
    folder of the tars; an index in another folder names tars at URLs by these. `given` are fields of `options` (see
    `IndexOptions`): modality, labels, match, as_is, fast, workers, limits, ...

    Samples that cannot be used become rows of rejects.parquet, so do those that pass a limit or crash a worker process
    twice. The result does not depend on the executor. A stopped run continues: indexed tars that have not changed are
    not read again. A tar that cannot be read is tried again after each of `pauses_s`; then OutageError ends the run,
    which continues when it is started again.

    Raises ValueError if tars are missing or compressed, are in several folders without `out`, share a name, or hold
    several modalities without `modality`, and if `out` holds shards of maskstream; DatasetError if no tar holds a
    usable sample, or no sample has a label; OutageError if a tar cannot be read; ResumeError if a run with other
    settings was stopped in `out`; BusyError if another run writes to it.
    """
    options = replace(options or IndexOptions(), **given)
    executor = executor_of(options.executor, options.workers)
    table = None if options.labels is None else LabelTable.read(Path(options.labels), options.match)
    found = found_tars(tars)
    output = output_at(index_folder(found, out))
    with output.sole_writer():
        _check_kind(output)
        index = _Index(output, found, indexer_of([TarFile(tar) for tar in found], options.modality), options)
        index.begin()
        progress = options.progress or Progress()
        try:
            run_splits(executor, index_tar, index.modality, [index], progress, phase="index", unit="tars")
        finally:
            output.remove_leftovers()  # of processes that were killed in this run
        return index.finish(table)


class _Index:
    """The index of tars that a job writes: the ledger of their tasks, and the files that make the folder a split."""

    def __init__(self, output: Output, tars: Sequence[Location], indexer: Indexer, options: IndexOptions) -> None:
        self._output = output
        self._indexer = indexer
        self._options = options
        limits = options.limits or Limits()
        self._settings = {"fast": options.fast, "limits": limits.to_dict(defaults=True)}
        """What decides which samples are used."""
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
        """Begin the records, or continue them. Raises ResumeError if they have other settings."""
        names = {"format": FORMAT, "index": self.modality}
        self._records.begin({**names, **self._settings, "libraries": libraries(self.modality)})
        self._output.remove([DATASET_JSON])
        self._output.remove_leftovers()

    def stands(self, task: TarTask) -> IndexedTar | None:
        return self._records.stands(task)

    def record(self, task: TarTask, done: IndexedTar, restarts: int) -> None:
        self._records.record(task, done)

    def finish(self, table: LabelTable | None) -> IndexReport:
        """Write the files of the split. Raises DatasetError if no sample is usable, or none has a label."""
        collected = Collected.of(self.own, self._records, table)
        if collected.samples and collected.unlabelled and not self._options.as_is:
            raise DatasetError(
                f"none of the {collected.samples} samples has a label, in `json` or `cls`; give the list that has them "
                "with --labels train.csv (labels=). If this is meant, add --as-is (as_is=True)"
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
            raise DatasetError(f"{len(collected.tasks)} tars hold no usable {self._indexer.noun}{example}")
        output.remove([name for tar in collected.empty for name in sidecars(tar)])
        name = last_parts(output.location if is_url(output.location) else Path(output.location).resolve(), 1)
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
    """Raise ValueError if the folder holds shards, which an index would replace."""
    try:
        data = output.whole(DATASET_JSON, MAX_JSON_BYTES)
        profile = FOREIGN if data is None else json.loads(data)["profile"]  # every version of the format has it
    except (StoreError, ValueError, KeyError, TypeError):
        profile = "another"
    if profile != FOREIGN:
        raise ValueError(f"{output.location} holds shards of the profile {profile!r}, not an index; give another --out")
