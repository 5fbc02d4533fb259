"""Showing how far long work is."""

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


class Progress:
    """What a job tells while it works; this one says nothing to nobody."""

    def phase(self, name: str, total: int, done: int = 0, unit: str = "clips") -> None:
        """A phase of `total` units begins, `done` of them from an earlier run."""

    def advance(self, units: int) -> None:
        """So many more units are done (fewer than 0: some must be done again)."""

    def say(self, text: str) -> None:
        """Something happened that a person should know."""


class _Rate(ProgressColumn):
    """Units per second of this run."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


class ProgressBar(Progress):
    """A bar on the terminal with the rate and the time that is left; a context manager."""

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
            console=console or Console(stderr=True),
            speed_estimate_period=120,
        )
        self._current: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def phase(self, name: str, total: int, done: int = 0, unit: str = "clips") -> None:
        self._current = self._bars.add_task(name, total=total, completed=done, unit=unit)

    def advance(self, units: int) -> None:
        if self._current is not None:
            self._bars.advance(self._current, units)

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)
