"""The ledger of finished tasks, and the driver that runs the others, for all jobs.

A record checks whether it is still valid: a shard by its files, an indexed tar also by its size and time. An executor's
events come from a generator; closing it ends the processes.

A worker reports which unit of its task it attempts, so a crash or an exceeded limit is blamed on that unit, not on its
task. The next process tries the suspect first, alone; if it is blamed twice, it is rejected. SIGKILL comes from outside
and does not count.

Besides the settings of a job, the libraries and the CPU of a process determine the bytes that it writes. They are
recorded in `job.json` and checked by every task, because a node with other wheels would silently write other bytes.
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
"""Packages, besides PyAV, that determine the bytes of a modality."""
_ALL = tuple(sorted({name for names in _PACKAGES.values() for name in names}))
_NONE = "none"


def libraries(modality: str) -> dict[str, str]:
    """Return the versions, by name, that determine the bytes of a split of this modality.

    These are the versions of FFmpeg's libraries, x264, PyAV and other packages, and the CPU architecture. A
    user-defined modality depends on all packages.
    """
    names = ("av", *_PACKAGES.get(modality, _ALL))
    ffmpeg = {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
    return {**ffmpeg, "x264": _x264(), **{name: _version(name) for name in names}, "machine": platform.machine()}


@cache
def _x264() -> str:
    """Return the version that x264 writes into its streams; "none" if FFmpeg has no x264."""
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
    """Runs the work of a job only in processes that have the job's libraries.

    Other versions would silently write other bytes.
    """

    work: Work[TaskT, RecordT]
    modality: str
    wanted: Mapping[str, str]

    def __call__(self, task: TaskT, report: Report, /) -> RecordT:
        """Run the task. Raises ResumeError if this process's libraries differ from the job's."""
        if changes := "; ".join(differences(self.wanted, libraries(self.modality))):
            raise ResumeError(
                f"{task.name} would have different bytes if written on {socket.gethostname()}, whose libraries differ "
                f"from those of the job ({changes}); install the same versions there, and run the same command again"
            )
        return self.work(task, report)


@dataclass(frozen=True, slots=True)
class Crashes:
    """Units that crashed a process, with the reasons, in order.

    After one crash a unit is only a suspect, since an earlier unit may have damaged the process. After two it is
    rejected.
    """

    reasons: tuple[tuple[str, str], ...] = ()

    def plus(self, unit: str, reason: str) -> Crashes:
        """Return the crashes with one more."""
        return Crashes((*self.reasons, (unit, reason)))

    @property
    def suspects(self) -> list[str]:
        """Return the units that are blamed once, latest first."""
        units = [unit for unit, _ in reversed(self.reasons)]
        return [unit for unit in units if units.count(unit) == 1]

    def check(self, unit: str) -> None:
        """Raise RejectError if a unit is blamed twice."""
        found = [reason for crashed, reason in self.reasons if crashed == unit]
        if len(found) > 1:
            raise RejectError("decode", f"{found[-1]}, twice")


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashableTask:
    """A task that records which of its units crashed a process.

    After one crash, the unit is tried first; after two, it is rejected.
    """

    crashes: Crashes = Crashes()

    def crashed(self, unit: str, reason: str) -> Self:
        """Return the same task with a crash of `unit` recorded."""
        return replace(self, crashes=self.crashes.plus(unit, reason))


class Ledger(Protocol[TaskT_contra, RecordT]):
    """Records of finished tasks, which survive a kill."""

    def stands(self, task: TaskT_contra) -> RecordT | None:
        """Return the record of a finished task whose files still exist; None otherwise. It is thread-safe."""

    def record(self, task: TaskT_contra, done: RecordT, restarts: int) -> None:
        """Record a finished task, for which `restarts` processes died in this run."""


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
    """Run the tasks without a record in `ledger`, which then has a record of every task.

    Records are not kept in memory, because all of them together may not fit.

    Args:
        executor: Runs the tasks.
        work: Function that runs a task.
        tasks: All tasks, finished or not.
        ledger: Records of finished tasks.
        progress: Shows a phase that counts units; units that a task does not report are counted at its end.
        phase: Name of the phase.
        unit: Name of a unit.
    """
    # Checking a record reads files, possibly of a remote store, so threads check many at once. Only whether a task is
    # done is kept.
    with ThreadPoolExecutor(READERS) as pool:
        stands = list(pool.map(lambda task: ledger.stands(task) is not None, tasks))
    todo = [task for task, does in zip(tasks, stands, strict=True) if not does]
    if todo:
        n_all, n_todo = (sum(task.units for task in some) for some in (tasks, todo))
        progress.phase(phase, n_all, n_all - n_todo, unit)
    # Progress counts units while a task runs. If its process dies, the task starts over, so the units that it has
    # reported are taken back; when it finishes, the units that it has not reported are added.
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
                progress.say(f"{task.name}: {what}; restarting it")
                progress.advance(-reported.pop(task.name, 0))
            elif isinstance(event, Retried):
                progress.tally("retries")
                progress.say(event.note)
            elif not event.note:
                reported[task.name] += 1
                progress.advance(1)


class SplitLedger(Ledger[TaskT, RecordT], Protocol[TaskT, RecordT]):
    """Ledger of a split, with its tasks."""

    @property
    def own(self) -> Sequence[TaskT]:
        """Tasks of this run. Their names are unique across splits."""


@dataclass(frozen=True, slots=True)
class _Splits(Generic[TaskT, RecordT]):
    """Ledger of several splits, which forwards each call to the split of the task."""

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
    """Run this run's tasks of all splits in parallel, in processes with the job's libraries."""
    owner = {task.name: split for split in splits for task in split.own}
    tasks = [task for split in splits for task in split.own]
    if tasks:
        checked = InEnvironment(work, modality, libraries(modality))
        run_tasks(executor, checked, tasks, _Splits(owner), progress, phase=phase, unit=unit)
