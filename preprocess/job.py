"""Raw data to verified splits of shards.

1. A dataset's function lists its sources (`datasets/`).
2. `plan` deals them to shards, a pure function of the list and the settings.
3. Processes (`executors/`) encode the sources of a shard and write its tar (`shard_task`).
4. The journal of each split (`split`) notes what is written, so an interrupted run goes on where it stopped.
5. Manifest, rejects and dataset.json are written, everything is read back and compared, and the journal is discarded.

The bytes are the same at any number of workers, and after any number of interruptions.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..shards.errors import MaskstreamError, ResumeError, ShardError
from ..shards.format.sample import DatasetInfo
from ..shards.stores.sole_writer import sole_writer
from .datasets import DATASETS, Dataset
from .encode.encoder import Encoder
from .encode.encoders import encoder_of
from .encode.video.profile import VideoProfile
from .executors.local import Finished, Restarted, run_local
from .plan import ShardTask, default_samples_per_shard, plan, settings_of
from .progress import Progress
from .shard_task import write_task
from .split import SplitJob


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """A split after a run: `state` is "written", "continued" or "already finished"; `counts` as in its dataset.json."""

    folder: Path
    state: str
    counts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobReport:
    """What a run did: its splits by name, the clips that it worked on, and the seconds that it took."""

    dataset: str
    profile: str
    splits: dict[str, SplitReport]
    clips: int
    wall_s: float


def make_shards(
    dataset: str,
    root: str | Path,
    out: str | Path,
    *,
    profile: VideoProfile | None = None,
    workers: int | None = None,
    samples_per_shard: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> JobReport:
    """Turn the raw data of `dataset` (a name in `DATASETS`) below `root` into shards, one folder per split below `out`.

    `profile` is for datasets of video, by default `train`.
    `workers` processes (default: the cores; 0 works in this process); `samples_per_shard` counts sources and by default
    depends on how many there are. A run that was stopped goes on; one that is finished with the same settings does
    nothing; other settings raise ResumeError, unless `overwrite`, which deletes the split's files first. Raises
    ValueError for arguments, DatasetError for raw data that is not as its publishers lay it out or of which nothing can
    be used, BusyError where another run writes to the same folder, ShardError where what was written does not read back
    the same.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset {dataset!r} is not one of {', '.join(DATASETS)}")
    if (workers is not None and workers < 0) or (samples_per_shard is not None and samples_per_shard < 1):
        raise ValueError(f"{workers=} must be at least 0, {samples_per_shard=} at least 1")
    start_s = time.monotonic()
    progress = progress or Progress()
    raw = DATASETS[dataset](Path(root))
    encoder = encoder_of(raw.modality, profile)
    splits = _splits(raw, Path(out), encoder, samples_per_shard)
    with ExitStack() as stack:
        todo = _todo(splits, stack, overwrite=overwrite)
        n_clips = _write(todo, _cores() if workers is None else workers, progress, overwrite=overwrite)
        for name, split in todo.items():
            split.finish()
            _verify(name, split, progress)
    return JobReport(
        dataset=dataset,
        profile=encoder.profile,
        splits={name: _report(split, written=name in todo) for name, split in splits.items()},
        clips=n_clips,
        wall_s=time.monotonic() - start_s,
    )


def _splits(raw: Dataset, out: Path, encoder: Encoder, samples_per_shard: int | None) -> dict[str, SplitJob]:
    splits = {}
    for name, sources in raw.splits.items():
        size = samples_per_shard or default_samples_per_shard(len(sources))
        info = DatasetInfo(
            dataset=raw.name,
            split=name,
            modality=raw.modality,
            profile=encoder.profile,
            label_names=raw.label_names,
            settings=settings_of(sources, encoder, size),
        )
        tasks = plan(raw.name, out / name, sources, encoder, size)
        splits[name] = SplitJob(out / name, info, tasks, raw.missing.get(name, []))
    return splits


def _todo(splits: dict[str, SplitJob], stack: ExitStack, *, overwrite: bool) -> dict[str, SplitJob]:
    """The splits that are not finished, each of them locked and, with what it holds open, let go by `stack`."""
    todo = {}
    for name, split in splits.items():
        if _is_finished(split, overwrite=overwrite):
            continue
        stack.enter_context(sole_writer(split.folder))
        stack.callback(split.close)
        if not _is_finished(split, overwrite=overwrite):
            todo[name] = split
    return todo


def _is_finished(split: SplitJob, *, overwrite: bool) -> bool:
    """ResumeError or ShardError where the folder holds something else that is not to be overwritten."""
    try:
        return split.is_finished()
    except MaskstreamError:
        if not overwrite:
            raise
        return False


def _write(splits: dict[str, SplitJob], workers: int, progress: Progress, *, overwrite: bool) -> int:
    """Do the tasks of all splits side by side; returns how many clips were worked on."""
    owner: dict[Path, SplitJob] = {}
    tasks: list[ShardTask] = []
    for split in splits.values():
        for task in _begin(split, overwrite=overwrite):
            owner[task.path] = split
            tasks.append(task)
    n_all = sum(len(task.sources) for split in splits.values() for task in split.tasks)
    n_todo = sum(len(task.sources) for task in tasks)
    if n_todo:
        progress.phase("encode", n_all, n_all - n_todo)
    counted: Counter[Path] = Counter()
    with closing(run_local(write_task, tasks, workers=workers)) as events:
        for event in events:
            path = event.task.path
            if isinstance(event, Finished):
                owner[path].done(*event.result)
            elif isinstance(event, Restarted):
                progress.say(f"{event.task}: {event.reason}; it begins again")
                progress.advance(-counted.pop(path, 0))
            elif not event.note:
                counted[path] += 1
                progress.advance(1)
    return n_todo


def _begin(split: SplitJob, *, overwrite: bool) -> list[ShardTask]:
    if not overwrite:
        return split.begin()
    try:
        split.is_finished()
        return split.begin()
    except (ResumeError, ShardError):
        split.clear()
        return split.begin()


def _verify(name: str, split: SplitJob, progress: Progress) -> None:
    seen = 0

    def advance(done_bytes: int, total_bytes: int) -> None:
        nonlocal seen
        if not seen:
            progress.phase(f"verify {name}", total_bytes // 1000, unit="kB")
        progress.advance(done_bytes // 1000 - seen // 1000)
        seen = done_bytes

    split.verify(advance)


def _report(split: SplitJob, *, written: bool) -> SplitReport:
    state = ("continued" if split.continued else "written") if written else "already finished"
    return SplitReport(folder=split.folder, state=state, counts=split.counts())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
