"""The executor protocol: an executor runs a work function on tasks, anywhere, and yields what happens as events."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at the unit with this name (not empty). Until the next note, the unit is to blame if it ends the
    process by a fault, works for more than `time_s` seconds, or takes more than `memory_bytes` (None: no limit).
    Another attempt before that changes the limits; the time goes on.
    """

    unit: str
    time_s: float
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The task waits and tries again, as `reason` says."""

    reason: str


Report = Callable[[str | Attempt | Again], None]
"""The work calls it with an attempt, a pause before another try, a note on what it does, or "" when a unit of its task
is done.
"""


class Task(Protocol):
    """A part of a job that publishes one file. It can be pickled and repeated with the same result."""

    @property
    def name(self) -> str:
        """The file that the task publishes; names are unique within a job."""

    @property
    def units(self) -> int:
        """The task's share of the job's progress."""

    def crashed(self, unit: str, reason: str) -> Self:
        """The same task, which knows that an attempt at `unit` ended a process, as `reason` says. If it is told twice
        of a unit, it must leave the unit out.
        """


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
class Retried(Progressed[TaskT]):
    """A task waits and tries again, as `note` says."""


@dataclass(frozen=True, slots=True)
class Restarted(Generic[TaskT]):
    """The worker process of a task died, as `reason` says; the task starts again in another process."""

    task: TaskT
    reason: str


@dataclass(frozen=True, slots=True)
class Crashed(Generic[TaskT]):
    """An attempt at `unit` ended the worker process of a task, as `reason` says. `task` knows it, and starts again in
    another process.
    """

    task: TaskT
    unit: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finished(Generic[TaskT, RecordT]):
    """A task has published its file; `record` describes the file."""

    task: TaskT
    record: RecordT


Event = Progressed[TaskT] | Restarted[TaskT] | Crashed[TaskT] | Finished[TaskT, RecordT]


class Executor(Protocol):
    """Runs tasks, in parallel or one by one. The published files depend on the tasks alone."""

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen; closing the generator stops the running tasks.

        A process that an attempt ends, or that passes the limits of one, gives Crashed. Any other that dies gives
        Restarted. Re-raises an exception of `work`. Raises WorkerDiedError if the processes of one task die repeatedly
        and no unit is to blame.
        """
