"""What runs the tasks of a job, wherever: an executor takes a work and its tasks, and tells what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ...shards.errors import MaskstreamError

Report = Callable[[str], None]
"""What a work calls with a word on where it is, and with an empty word when a unit of its task is done."""


class Task(Protocol):
    """A share of a job that publishes one file; it can be pickled and done again, with the same result."""

    @property
    def name(self) -> str:
        """The file that the task publishes; no other task of the job has this name."""

    @property
    def units(self) -> int:
        """How much of the job's progress it is."""


TaskT = TypeVar("TaskT", bound=Task)
RecordT = TypeVar("RecordT")
TaskT_contra = TypeVar("TaskT_contra", bound=Task, contravariant=True)
RecordT_co = TypeVar("RecordT_co", covariant=True)


class Work(Protocol[TaskT_contra, RecordT_co]):
    """A function that does a task, publishes its file and returns a small record of it; work and record are pickled."""

    def __call__(self, task: TaskT_contra, report: Report, /) -> RecordT_co: ...


class WorkerDiedError(MaskstreamError):
    """The processes that worked on one task died again and again."""


@dataclass(frozen=True, slots=True)
class Progressed(Generic[TaskT]):
    """A task reported `note`."""

    task: TaskT
    note: str


@dataclass(frozen=True, slots=True)
class Restarted(Generic[TaskT]):
    """The process of a task died, `reason` says how; the task begins again in another one."""

    task: TaskT
    reason: str


@dataclass(frozen=True, slots=True)
class Finished(Generic[TaskT, RecordT]):
    """A task has published its file; `record` says what is in it."""

    task: TaskT
    record: RecordT


Event = Progressed[TaskT] | Restarted[TaskT] | Finished[TaskT, RecordT]


class Executor(Protocol):
    """Runs tasks side by side or one after the other. What a task publishes depends on the task alone."""

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """The events of all tasks as they happen; closing the generator ends what runs.

        An exception of `work` is raised here; WorkerDiedError for a task whose processes die again and again.
        """
