"""The job that turns raw data into verified splits of shards.

1. A dataset's function lists the sources (`datasets/`).
2. `plan` assigns the sources to shards. It is a pure function of the list and the settings.
3. An executor (`executors/`) runs one task per shard: it encodes the sources and writes the tar (`task`).
4. The driver (`ledger`) adds a record of each written shard and its sources to the split (`split`), so an interrupted
   run continues where it stopped, and a changed source is noticed.
5. The job writes manifest, rejects and dataset.json, reads everything back and compares it.

The bytes are the same for any number of workers, parts and machines, and after any number of interruptions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from maskstream.preprocess.datasets import Dataset
from maskstream.preprocess.encode.encoder import Encoder, attached_to, prepared
from maskstream.preprocess.encode.limits import Limits
from maskstream.preprocess.executors.local import executor_of
from maskstream.preprocess.raw.files import RawFiles
from maskstream.shards.errors import OutageError
from maskstream.shards.format.sample import DatasetInfo
from maskstream.shards.stores.output import Location, output_at, within

from .ledger import run_splits
from .listing import listed
from .options import JobOptions, JobSettings
from .plan import JobPart, default_samples_per_shard, plan, settings_of
from .progress import Progress
from .split import SplitJob
from .task import write_task


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """A split after a run. `state` is "written", "continued" or "already finished"; `counts` as in dataset.json. After
    a part, it is "part I/N written", and `counts` has the number of its shards and how many of them this run wrote.
    """

    folder: Location
    state: str
    counts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobReport:
    """What a run did: its splits by name, the number of sources it encoded, and its duration in seconds."""

    dataset: str
    profile: str
    splits: dict[str, SplitReport]
    n_sources: int
    wall_s: float


def make_shards(
    dataset: str | Callable[[Path], Dataset],
    root: str | Path,
    out: Location,
    options: JobOptions | None = None,
    **given: Unpack[JobSettings],
) -> JobReport:
    """Turn the raw data of `dataset` below `root` into shards, one folder per split below `out`. Both are paths, or the
    URLs of folders in object stores (docs/scaling.md); `root` may also be that of one on a web server.

    `dataset` is a name in `DATASETS`, a dataset function, or the `package.module:name` of one. `given` are fields of
    `options` (see `JobOptions`): profile, settings, workers, samples_per_shard, limits, max_rejects, overwrite, ...

    A stopped run continues. A finished split with the same settings is left as it is. Other settings, and sources that
    changed, raise ResumeError. If more than the share `max_rejects` of the listed sources is rejected or missing, the
    split is not finished, and the run ends with DatasetError; a run with a larger share then uses what is written.

    A source that passes a limit, or crashes a worker process twice, is a reject. Processes are needed for that: with
    `workers=0` nothing limits time and memory, and a crash ends this process. A source that cannot be read is no
    reject: it is tried again after each of `pauses_s`; then OutageError ends the run, which continues when it is
    started again.

    Several machines share a job in parts, which run at the same time and in any order; the next runs may have another
    number of parts. `finish` then writes manifest, rejects and dataset.json and verifies; it encodes nothing, and
    raises UnfinishedError if shards are missing. A run of neither kind does what is left of the job by itself.

    Every process must have the job's libraries (`libraries.py`); one with others raises ResumeError and writes nothing.

    Raises ValueError for wrong arguments; DatasetError if the raw data do not have the published layout, a split is
    listed of which no file is there (unless others are named), splits or labels are doubtful, an archive is damaged, or
    sources are not below `root`; BusyError if another run writes to the same folder, and ShardError if the shards do
    not read back as they were written.
    """
    options = replace(options or JobOptions(), **given)
    output_at(out)  # raises ValueError before any work
    executor = executor_of(options.executor, options.workers)
    progress = options.progress or Progress()
    start_s = time.monotonic()
    with ExitStack() as stack, _memory_is_no_bug():
        raw, files = stack.enter_context(listed(dataset, root, options))
        encoder = prepared(raw.encoder, raw.splits)
        jobs = {name: _split_job(raw, name, within(out, name), encoder, files, options) for name in raw.splits}
        todo = _todo(jobs, stack, options)
        for split in todo.values() if options.finish else ():
            split.check_written()
        for split in todo.values():
            split.begin()
        if not options.finish:
            run_splits(executor, write_task, raw.modality, [*todo.values()], progress, phase="encode", unit="sources")
        for split in todo.values() if options.part is None else ():
            split.finish()
            split.verify(executor, progress)
    return JobReport(
        dataset=raw.name,
        profile=encoder.profile,
        splits={name: _report(split, options.own, written=name in todo) for name, split in jobs.items()},
        n_sources=sum(split.n_sources for split in jobs.values()),
        wall_s=time.monotonic() - start_s,
    )


def largest_split(dataset: str, root: str | Path, options: JobOptions) -> int:
    """How many shards the largest of the chosen splits has; more parts than that have nothing to do. Raises as
    `make_shards`.
    """
    with listed(dataset, root, options) as (raw, _):
        sizes = [len(sources) for sources in raw.splits.values()]
    return max(
        (-(-size // (options.samples_per_shard or default_samples_per_shard(size))) for size in sizes), default=0
    )


def _split_job(
    raw: Dataset, name: str, folder: Location, encoder: Encoder, files: RawFiles, options: JobOptions
) -> SplitJob:
    """The job of the split `name`: its description and its tasks."""
    sources, limits = raw.splits[name], options.limits or Limits()
    size = options.samples_per_shard or default_samples_per_shard(len(sources))
    info = DatasetInfo(
        dataset=raw.name,
        split=name,
        modality=raw.modality,
        profile=encoder.profile,
        label_names=raw.label_names,
        settings=settings_of(sources, encoder, size, limits),
    )
    tasks = plan(raw.name, folder, sources, encoder, size, limits, options.pauses_s, files)
    return SplitJob(folder, info, tasks, raw.missing.get(name, []), attached_to(encoder), options)


@contextmanager
def _memory_is_no_bug() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise OutageError(
            f"memory ran out ({error or 'no more could be had'}); free some, use fewer workers, and run the same "
            "command again, which continues (leave out --overwrite)"
        ) from error


def _todo(splits: dict[str, SplitJob], stack: ExitStack, options: JobOptions) -> dict[str, SplitJob]:
    """The splits that are not finished, or all with `overwrite`. Each is locked until `stack` releases the locks; that
    of a part jointly with the runs of other parts, whose temporary files stay.
    """
    todo = {}
    for name, split in splits.items():
        if not options.overwrite and split.is_finished():
            continue
        stack.enter_context(split.output.joint_writer() if options.part else split.output.sole_writer())
        if options.overwrite or not split.output.is_locked or not split.is_finished():  # it may be now
            todo[name] = split
    return todo


def _report(split: SplitJob, part: JobPart | None, *, written: bool) -> SplitReport:
    if part is not None and written:
        counts = {"shards": len(split.own), "shards_written": split.written}
        return SplitReport(folder=split.folder, state=f"part {part} written", counts=counts)
    state = ("continued" if split.written < len(split.tasks) else "written") if written else "already finished"
    return SplitReport(folder=split.folder, state=state, counts=split.counts())
