"""Executor protocol: an executor applies a function to tasks, anywhere, and yields its progress as events."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar


@dataclass(frozen=True, slots=True)
class Attempt:
    """Start of an attempt at a unit of a task.

    Until the next report, the unit is blamed if it crashes the process or exceeds a limit. Another attempt before that
    changes the limits, but does not restart the clock.

    Attributes:
        unit: Name of the unit, not empty.
        time_s: Time limit in seconds.
        memory_bytes: Memory limit; None for none.
    """

    unit: str
    time_s: float
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The task waits and retries because of `reason`."""

    reason: str


Report = Callable[[str | Attempt | Again], None]
"""Callback of a work function. It receives an attempt, a pause before a retry, a progress note, or "" when a unit of
the task is finished.
"""


class Task(Protocol):
    """Part of a job that publishes one file. Tasks can be pickled, and repeating one results in the same file."""

    @property
    def name(self) -> str:
        """File that the task publishes, unique within a job."""

    @property
    def units(self) -> int:
        """Number of units that the task adds to the job's progress."""

    def crashed(self, unit: str, reason: str) -> Self:
        """Return the same task, marked with the `reason` why an attempt at `unit` crashed a process.

        After two such marks, the task must skip the unit.
        """


TaskT = TypeVar("TaskT", bound=Task)
RecordT = TypeVar("RecordT")
TaskT_contra = TypeVar("TaskT_contra", bound=Task, contravariant=True)
RecordT_co = TypeVar("RecordT_co", covariant=True)


class Work(Protocol[TaskT_contra, RecordT_co]):
    """Function that runs a task, publishes its file and returns a small record. The function and its record must be
    picklable.
    """

    def __call__(self, task: TaskT_contra, report: Report, /) -> RecordT_co: ...


@dataclass(frozen=True, slots=True)
class Progressed(Generic[TaskT]):
    """A task reported `note` ("" for a finished unit)."""

    task: TaskT
    note: str


@dataclass(frozen=True, slots=True)
class Retried(Progressed[TaskT]):
    """A task waits and retries; `note` is the reason."""


@dataclass(frozen=True, slots=True)
class Restarted(Generic[TaskT]):
    """A task's worker process died for `reason`; the task restarts in another process."""

    task: TaskT
    reason: str


@dataclass(frozen=True, slots=True)
class Crashed(Generic[TaskT]):
    """An attempt at `unit` ended a task's worker process for `reason`.

    `task` is marked with the crash and restarts in another process.
    """

    task: TaskT
    unit: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finished(Generic[TaskT, RecordT]):
    """A task has published its file, which `record` describes."""

    task: TaskT
    record: RecordT


Event = Progressed[TaskT] | Restarted[TaskT] | Crashed[TaskT] | Finished[TaskT, RecordT]


class Executor(Protocol):
    """Runs tasks, in parallel or one by one. The published files depend only on the tasks."""

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen. Closing the generator stops the running tasks.

        An attempt that ends its process or exceeds its limits yields `Crashed`; any other death of a process yields
        `Restarted`. Exceptions of `work` are re-raised.

        Raises:
            WorkerDiedError: A task's processes die repeatedly and no unit is to blame.
        """
