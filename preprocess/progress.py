"""Progress of a long job: the protocol, and a bar on the terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars
from rich.text import Text

from ..shards.printable import DataConsole


class Progress:
    """Receives the progress of a job. This base class shows nothing."""

    def phase(self, name: str, total: int, done: int = 0, unit: str = "sources") -> None:
        """Start a phase of `total` units; an earlier run finished `done` of them."""

    def advance(self, units: int) -> None:
        """Add finished units. A negative number takes back units that must be done again."""

    def say(self, text: str) -> None:
        """Show a message."""


class _Rate(ProgressColumn):
    """A column with the units per second of this run."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


class ProgressBar(Progress):
    """A bar on the terminal with the rate and the remaining time, from the first phase on. It is a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._bars = RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or DataConsole(stderr=True),
            speed_estimate_period=120,
        )
        self._current: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._current is not None:
            self._bars.stop()

    def phase(self, name: str, total: int, done: int = 0, unit: str = "sources") -> None:
        if self._current is None:
            self._bars.start()
        self._current = self._bars.add_task(name, total=total, completed=done, unit=unit)

    def advance(self, units: int) -> None:
        if self._current is not None:
            self._bars.advance(self._current, units)

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)
