"""The executor protocol: an executor runs a work function on tasks, anywhere, and yields what happens as events."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Report = Callable[[str], None]
"""The work calls it with a note on what it does, and with "" when a unit of its task is done."""


class Task(Protocol):
    """A part of a job that publishes one file. It can be pickled and repeated with the same result."""

    @property
    def name(self) -> str:
        """The file that the task publishes; names are unique within a job."""

    @property
    def units(self) -> int:
        """The task's share of the job's progress."""


TaskT = TypeVar("TaskT", bound=Task)
RecordT = TypeVar("RecordT")
TaskT_contra = TypeVar("TaskT_contra", bound=Task, contravariant=True)
RecordT_co = TypeVar("RecordT_co", covariant=True)


class Work(Protocol[TaskT_contra, RecordT_co]):
    """A function that runs a task, publishes its file and returns a small record. Work and record must be picklable."""

    def __call__(self, task: TaskT_contra, report: Report, /) -> RecordT_co: ...


@dataclass(frozen=True, slots=True)
class Progressed(Generic[TaskT]):
    """A task reported `note` ("" for a finished unit)."""

    task: TaskT
    note: str


@dataclass(frozen=True, slots=True)
class Restarted(Generic[TaskT]):
    """The worker process of a task died, as `reason` says; the task starts again in another process."""

    task: TaskT
    reason: str


@dataclass(frozen=True, slots=True)
class Finished(Generic[TaskT, RecordT]):
    """A task has published its file; `record` describes the file."""

    task: TaskT
    record: RecordT


Event = Progressed[TaskT] | Restarted[TaskT] | Finished[TaskT, RecordT]


class Executor(Protocol):
    """Runs tasks, in parallel or one by one. The published files depend on the tasks alone."""

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen; closing the generator stops the running tasks.

        Re-raises an exception of `work`. Raises WorkerDiedError if the processes of one task die repeatedly.
        """
