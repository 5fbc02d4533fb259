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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...shards.errors import OutageError
from ...shards.format.sample import DatasetInfo
from ...shards.stores.output import Location, output_at, within
from ..datasets import Dataset, chosen_dataset
from ..encode.encoder import KEEP, Encoder, attached_to, damage_settings, in_profile, prepared, with_settings
from ..encode.limits import Limits
from ..encode.video.profile import VideoProfile
from ..executors.base import Executor
from ..executors.local import executor_of
from ..raw.files import RawFiles
from ..raw.tree import raw_tree
from .judge import PAUSES_S
from .ledger import run_tasks
from .libraries import InEnvironment, libraries
from .listing import listed
from .plan import Part, ShardTask, default_samples_per_shard, plan, settings_of
from .progress import Progress
from .report import MAX_REJECTS
from .split import SplitJob
from .task import WrittenShard, write_task


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
    *,
    profile: VideoProfile | None = None,
    settings: Sequence[str] = (),
    workers: int | None = None,
    executor: Executor | None = None,
    samples_per_shard: int | None = None,
    overwrite: bool = False,
    limits: Limits | None = None,
    max_rejects: float = MAX_REJECTS,
    retry_rejects: bool = False,
    repair: bool = False,
    pauses_s: Sequence[float] = PAUSES_S,
    part: tuple[int, int] | None = None,
    finish: bool = False,
    splits: Sequence[str] = (),
    as_is: bool = False,
    outside_root: bool = False,
    damage: str | None = None,
    progress: Progress | None = None,
) -> JobReport:
    """Turn the raw data of `dataset` below `root` into shards, one folder per split below `out`. Both are paths, or the
    URLs of folders in object stores (docs/scaling.md); `root` may also be that of one on a web server.

    `dataset` is a name in `DATASETS`, a dataset function, or the `package.module:name` of one. `profile` says how
    video is stored (default: `train`), `settings` change settings of the dataset, such as "fold=2" of esc50, and fields
    of its encoder, such as "tokenizer=train:bpe:4000". The tasks run in `executor`, by default
    `LocalExecutor(workers)`, which starts `workers` processes on this machine (default: one per core; 0 runs the tasks
    in this process). A shard holds `samples_per_shard` sources; the default depends on their number.

    `limits` says what a source may cost (pixels, frames, time, memory); one that costs more is a reject. So is one that
    crashes a worker process twice. Processes are needed for that: with `workers=0` nothing limits time and memory, and
    a crash ends this process.

    A source that cannot be read is no reject: it is tried again after each of `pauses_s` (seconds); then OutageError
    ends the run, which continues when it is started again.

    A stopped run continues. A finished split with the same settings is left as it is. Other settings, and sources that
    changed, raise ResumeError. `overwrite` deletes what a run wrote and starts over, whatever it is. `retry_rejects`
    encodes the shards with rejects again and leaves the others. If more than the share `max_rejects` of the listed
    sources is rejected or missing, the split is not finished, and the run ends with DatasetError; a run with a larger
    share then uses what is written.

    `repair` reads every shard, and writes again what is damaged: idx and sums files, the index, and shards, which are
    encoded from their sources. A shard that would have other bytes than before is left as it is, with ShardError.

    Several machines share a job in parts. `part=(i, n)`, 1 <= i <= n, writes the shards i - 1, i - 1 + n, ... of each
    split and their records, and stops. Parts run at the same time and in any order; the next runs may have another n.
    `finish` then writes manifest, rejects and dataset.json and verifies; it encodes nothing, and raises UnfinishedError
    if shards are missing. A run of neither kind does what is left of the job by itself.

    `splits` names the splits to make, by default all. One that is listed, but of which no file is below `root`, is an
    error, unless others are named.

    What makes splits or labels doubtful is an error, unless `as_is` says that it is meant: folders named like splits,
    such as `train_256`, lists of splits that are not read, no label at all, or one for everything.

    A list or a link that leads to files outside of `root` is an error, unless `outside_root` says that it may. An
    absolute path below `root` is none.

    `damage` says what to do with what is damaged or cut off: "reject", "trim" or "keep" a video, as the field `damage`
    of its encoder says; with "keep", archives too are read as far as they can be, with a reject that names each.
    Without it, one that is damaged is an error.

    Every process must have the job's libraries (`libraries.py`); one with others raises ResumeError and writes nothing.

    Raises ValueError for wrong arguments, DatasetError also if the raw data do not have the published layout, BusyError
    if another run writes to the same folder, and ShardError if the shards do not read back as they were written.
    """
    if not 0 <= max_rejects <= 1:
        raise ValueError(f"{max_rejects=} must be a share of the sources, from 0 to 1")
    if overwrite and retry_rejects:
        raise ValueError("overwrite and retry_rejects exclude each other: overwrite encodes every source again")
    if finish and (part or overwrite or retry_rejects or repair):
        raise ValueError("finish writes no shards; part, overwrite, retry_rejects and repair belong to runs that do")
    if repair and (part or overwrite or retry_rejects):
        raise ValueError("repair makes what was there; part, overwrite and retry_rejects belong to other runs")
    if part and overwrite:
        raise ValueError("a part cannot overwrite what other parts write; delete the output folder to start over")
    own = None if part is None else Part(*part)
    output_at(out)  # raises ValueError before any work
    if samples_per_shard is not None and samples_per_shard < 1:
        raise ValueError(f"{samples_per_shard=} must be at least 1")
    sources_of, settings = chosen_dataset(dataset, settings)
    executor = executor_of(executor, workers)
    start_s = time.monotonic()
    progress = progress or Progress()
    with ExitStack() as stack, _memory_is_no_bug():
        tree = stack.enter_context(raw_tree(root, outside_root=outside_root, damaged=damage == KEEP))
        raw = listed(sources_of, tree, splits=splits, as_is=as_is)
        words = [*settings, *damage_settings(raw.encoder, damage)]
        encoder = prepared(
            with_settings(in_profile(raw.encoder, profile), words),
            raw.splits,
        )
        limits = limits or Limits()
        jobs = {
            name: SplitJob(
                within(out, name),
                *_planned(raw, name, within(out, name), encoder, samples_per_shard, limits, pauses_s, tree.files),
                raw.missing.get(name, []),
                max_rejects=max_rejects,
                retry_rejects=retry_rejects,
                part=own,
                repair=repair,
                attached=attached_to(encoder),
            )
            for name in raw.splits
        }
        todo = _todo(jobs, stack, overwrite=overwrite, jointly=own is not None)
        for split in todo.values() if finish else ():
            split.check_written()
        for split in todo.values():
            split.join() if own else split.begin(overwrite=overwrite)
        if not finish:
            _write(todo, executor, progress)
        for split in todo.values() if own is None else ():
            split.finish()
            split.verify(executor, progress)
    return JobReport(
        dataset=raw.name,
        profile=encoder.profile,
        splits={
            name: _report(split, own if name in todo else None, written=name in todo) for name, split in jobs.items()
        },
        n_sources=sum(split.n_sources for split in jobs.values()),
        wall_s=time.monotonic() - start_s,
    )


def largest_split(
    dataset: str,
    root: str | Path,
    samples_per_shard: int | None = None,
    *,
    settings: Sequence[str] = (),
    splits: Sequence[str] = (),
    as_is: bool = False,
    outside_root: bool = False,
    damage: str | None = None,
) -> int:
    """How many shards the largest of the chosen splits has; more parts than that have nothing to do. Raises as
    `make_shards`.
    """
    with raw_tree(root, outside_root=outside_root, damaged=damage == KEEP) as tree:
        raw = listed(chosen_dataset(dataset, settings)[0], tree, splits=splits, as_is=as_is)
    return max(
        (-(-len(one) // (samples_per_shard or default_samples_per_shard(len(one)))) for one in raw.splits.values()),
        default=0,
    )


def _planned(
    raw: Dataset,
    name: str,
    folder: Location,
    encoder: Encoder,
    samples_per_shard: int | None,
    limits: Limits,
    pauses_s: Sequence[float],
    files: RawFiles,
) -> tuple[DatasetInfo, list[ShardTask]]:
    """The description and the tasks of the split `name`."""
    sources = raw.splits[name]
    size = samples_per_shard or default_samples_per_shard(len(sources))
    info = DatasetInfo(
        dataset=raw.name,
        split=name,
        modality=raw.modality,
        profile=encoder.profile,
        label_names=raw.label_names,
        settings=settings_of(sources, encoder, size, limits),
    )
    return info, plan(raw.name, folder, sources, encoder, size, limits, pauses_s, files)


@contextmanager
def _memory_is_no_bug() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise OutageError(
            f"memory ran out ({error or 'no more could be had'}); free some, use fewer workers, and run the same "
            "command again, which continues (leave out --overwrite)"
        ) from error


def _todo(splits: dict[str, SplitJob], stack: ExitStack, *, overwrite: bool, jointly: bool) -> dict[str, SplitJob]:
    """The splits that are not finished, or all with `overwrite`. Each is locked until `stack` releases the locks,
    `jointly` with the runs of other parts, whose temporary files stay.
    """
    todo = {}
    for name, split in splits.items():
        if not overwrite and split.is_finished():
            continue
        stack.enter_context(split.output.joint_writer() if jointly else split.output.sole_writer())
        if overwrite or not split.output.is_locked or not split.is_finished():  # it may be now
            todo[name] = split
    return todo


@dataclass(frozen=True, slots=True)
class _Splits:
    """The ledger of several splits: it asks the split that a task belongs to. `restarts` counts the deaths of tasks."""

    owner: dict[str, SplitJob]
    progress: Progress
    restarts: Counter[str] = field(default_factory=Counter)

    def stands(self, task: ShardTask) -> WrittenShard | None:
        return self.owner[task.name].stands(task)

    def record(self, task: ShardTask, done: WrittenShard) -> None:
        self.owner[task.name].record(task, done, self.restarts[task.name])
        if done.rejects:
            self.progress.tally("rejects", len(done.rejects))

    def restarted(self, task: ShardTask) -> None:
        self.restarts[task.name] += 1


def _write(splits: dict[str, SplitJob], executor: Executor, progress: Progress) -> None:
    """Run this run's tasks of all splits in parallel."""
    owner = {task.name: split for split in splits.values() for task in split.own}
    tasks = [task for split in splits.values() for task in split.own]
    if not tasks:
        return
    modality = next(iter(splits.values())).info.modality
    work = InEnvironment(write_task, modality, libraries(modality))
    run_tasks(executor, work, tasks, _Splits(owner, progress), progress, phase="encode", unit="sources")


def _report(split: SplitJob, part: Part | None, *, written: bool) -> SplitReport:
    if part is not None and written:
        counts = {"shards": len(split.own), "shards_written": split.written}
        return SplitReport(folder=split.folder, state=f"part {part} written", counts=counts)
    state = ("continued" if split.written < len(split.tasks) else "written") if written else "already finished"
    return SplitReport(folder=split.folder, state=state, counts=split.counts())
