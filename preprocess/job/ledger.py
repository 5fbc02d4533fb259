"""The ledger, which remembers finished tasks, and the driver of all jobs, which runs the others.

A record checks itself whether it still holds: a shard by its files, an indexed tar also by its size and time. An
executor's events are a generator; closing it ends the processes.

A worker reports which unit of its task it attempts, so a fault or a passed limit is blamed on that unit and not on its
task. The next process tries the suspect first, alone; blamed twice, it is a reject. SIGKILL comes from outside and is
no verdict.

What decides the bytes that a job writes, besides its settings, are the libraries and the processor of a process.
`job.json` has it, and every task compares its own process: a node with other wheels would write other bytes and say
nothing.
"""

from __future__ import annotations

import platform
import re
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Generic, Protocol, Self

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from maskstream.preprocess.executors.base import (
    Crashed,
    Executor,
    Finished,
    Progressed,
    RecordT,
    Report,
    Retried,
    TaskT,
    TaskT_contra,
    Work,
)
from maskstream.preprocess.source import RejectError
from maskstream.shards.config import differences
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.records import READERS
from maskstream.shards.progress import Progress

_DICOM = ("pillow", "pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm")
_PACKAGES: dict[str, tuple[str, ...]] = {
    "video": ("numpy", "opencv-python-headless"),
    "audio": ("numpy", "soxr", "torch"),
    "audiovisual": ("numpy", "opencv-python-headless", "soxr", "torch"),
    "image": ("numpy", "opencv-python-headless", *_DICOM),
    "image-text": ("numpy", "opencv-python-headless", "pycocotools", "tokenizers", *_DICOM),
    "points": ("laspy", "numpy", "trimesh"),
    "mesh": ("h5py", "numpy", "scikit-fem", "scipy", "trimesh"),
    "pose": ("numpy",),
    "text": ("numpy", "pyarrow", "tokenizers"),
    "trajectory": ("miniworld", "numpy", "opencv-python-headless", "vizdoom"),
}
"""The packages, besides PyAV, that decide the bytes of a modality."""
_ALL = tuple(sorted({name for names in _PACKAGES.values() for name in names}))
_NONE = "none"


def libraries(modality: str) -> dict[str, str]:
    """What decides the bytes of a split of this modality, by name: the versions of FFmpeg's libraries, x264, PyAV and
    other packages, and the kind of processor. A modality of your own depends on all packages.
    """
    names = ("av", *_PACKAGES.get(modality, _ALL))
    ffmpeg = {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
    return {**ffmpeg, "x264": _x264(), **{name: _version(name) for name in names}, "machine": platform.machine()}


@cache
def _x264() -> str:
    """How x264 names itself in what it encodes; "none" if FFmpeg has no x264."""
    try:
        context = av.CodecContext.create("libx264", "w")
    except (av.FFmpegError, ValueError):
        return _NONE
    assert isinstance(context, VideoCodecContext)
    context.width = context.height = 16
    context.pix_fmt, context.time_base, context.thread_count = "yuv420p", Fraction(1, 25), 1
    frame = VideoFrame(16, 16, "yuv420p")
    frame.pts = 0
    encoded = b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))
    found = re.search(rb"x264 - ([^-]*[^- ]) -", encoded)
    return found[1].decode("ascii", "replace") if found else "unknown"


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _NONE


@dataclass(frozen=True, slots=True)
class InEnvironment(Generic[TaskT, RecordT]):
    """The work of a job of this modality, in processes that have the job's libraries and in no others.

    A process elsewhere may have other versions, which would write other bytes and say nothing.
    """

    work: Work[TaskT, RecordT]
    modality: str
    wanted: Mapping[str, str]

    def __call__(self, task: TaskT, report: Report, /) -> RecordT:
        """Run the task. Raises ResumeError if this process has other libraries than the job."""
        if changes := "; ".join(differences(self.wanted, libraries(self.modality))):
            raise ResumeError(
                f"{task.name} would have other bytes if {socket.gethostname()} wrote it, whose libraries are not those "
                f"of the job ({changes}); install the same versions there, and run the same command again"
            )
        return self.work(task, report)


@dataclass(frozen=True, slots=True)
class Crashes:
    """The units that ended a process while they were worked on, with the reasons, in order.

    A unit that did so once is a suspect: what ran before it may have damaged the process. One that does so again is a
    reject.
    """

    reasons: tuple[tuple[str, str], ...] = ()

    def plus(self, unit: str, reason: str) -> Crashes:
        """These and another one."""
        return Crashes((*self.reasons, (unit, reason)))

    @property
    def suspects(self) -> list[str]:
        """The units that are blamed once, the last one first."""
        units = [unit for unit, _ in reversed(self.reasons)]
        return [unit for unit in units if units.count(unit) == 1]

    def check(self, unit: str) -> None:
        """Raise RejectError if a unit is blamed twice."""
        found = [reason for crashed, reason in self.reasons if crashed == unit]
        if len(found) > 1:
            raise RejectError("decode", f"{found[-1]}, twice")


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashableTask:
    """A task that knows which of its units ended a process. Once, such a unit is tried first; twice, it is a reject."""

    crashes: Crashes = Crashes()

    def crashed(self, unit: str, reason: str) -> Self:
        """The same task after `unit` ended a process."""
        return replace(self, crashes=self.crashes.plus(unit, reason))


class Ledger(Protocol[TaskT_contra, RecordT]):
    """Remembers which tasks are finished. Its records survive a kill."""

    def stands(self, task: TaskT_contra) -> RecordT | None:
        """The record of a finished task whose files still exist; None for any other task. Several threads may ask."""

    def record(self, task: TaskT_contra, done: RecordT, restarts: int) -> None:
        """Record a finished task, of which `restarts` processes died in this run."""


def run_tasks(
    executor: Executor,
    work: Work[TaskT, RecordT],
    tasks: Sequence[TaskT],
    ledger: Ledger[TaskT, RecordT],
    progress: Progress,
    *,
    phase: str,
    unit: str,
) -> None:
    """Run the tasks that `ledger` has no record of; it then has one of each task.

    Records are not kept in memory, because those of all tasks together would not fit. `progress` shows a phase that
    counts the tasks' units. Units that a task does not report one by one are counted when the task finishes.
    """
    with ThreadPoolExecutor(READERS) as pool:
        stands = list(pool.map(lambda task: ledger.stands(task) is not None, tasks))
    todo = [task for task, does in zip(tasks, stands, strict=True) if not does]
    if todo:
        n_all, n_todo = (sum(task.units for task in some) for some in (tasks, todo))
        progress.phase(phase, n_all, n_all - n_todo, unit)
    reported: Counter[str] = Counter()
    restarts: Counter[str] = Counter()
    with closing(executor.run(work, todo)) as events:
        for event in events:
            task = event.task
            if isinstance(event, Finished):
                ledger.record(task, event.record, restarts[task.name])
                units = task.units - reported.pop(task.name, 0)
                if units:
                    progress.advance(units)
            elif not isinstance(event, Progressed):
                what = f"{event.unit} {event.reason}" if isinstance(event, Crashed) else event.reason
                restarts[task.name] += 1
                progress.tally("restarts")
                progress.say(f"{task.name}: {what}; it starts again")
                progress.advance(-reported.pop(task.name, 0))
            elif isinstance(event, Retried):
                progress.tally("retries")
                progress.say(event.note)
            elif not event.note:
                reported[task.name] += 1
                progress.advance(1)


class SplitLedger(Ledger[TaskT, RecordT], Protocol[TaskT, RecordT]):
    """The ledger of a split, with its tasks."""

    @property
    def own(self) -> Sequence[TaskT]:
        """The tasks of this run; their names are unique among all splits."""


@dataclass(frozen=True, slots=True)
class _Splits(Generic[TaskT, RecordT]):
    """The ledger of several splits: it asks the split that a task belongs to."""

    owner: dict[str, SplitLedger[TaskT, RecordT]]

    def stands(self, task: TaskT) -> RecordT | None:
        return self.owner[task.name].stands(task)

    def record(self, task: TaskT, done: RecordT, restarts: int) -> None:
        self.owner[task.name].record(task, done, restarts)


def run_splits(
    executor: Executor,
    work: Work[TaskT, RecordT],
    modality: str,
    splits: Sequence[SplitLedger[TaskT, RecordT]],
    progress: Progress,
    *,
    phase: str,
    unit: str,
) -> None:
    """Run this run's tasks of all splits in parallel, in processes that have the job's libraries."""
    owner = {task.name: split for split in splits for task in split.own}
    tasks = [task for split in splits for task in split.own]
    if tasks:
        checked = InEnvironment(work, modality, libraries(modality))
        run_tasks(executor, checked, tasks, _Splits(owner), progress, phase=phase, unit=unit)
