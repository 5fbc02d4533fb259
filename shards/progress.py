"""Progress of a command or a job: the protocol, a bar on a terminal, and lines elsewhere, for example in the log of a
batch system.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBars
from rich.text import Text

from maskstream.shards.printable import DataConsole


class Progress:
    """Receives the progress of work, phase by phase. This base class displays nothing. It is a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop displaying, until another phase starts."""

    def phase(self, name: str, total: int | None = None, done: int = 0, unit: str = "sources") -> None:
        """Start a phase of `total` units, or None if the number is unknown; an earlier run finished `done` of them."""

    def advance(self, units: float) -> None:
        """Add finished units. A negative number subtracts units that must be repeated."""

    def note(self, text: str) -> None:
        """Show figures next to the count of the phase, such as the loss, replacing earlier ones."""

    def tally(self, what: str, count: int = 1) -> None:
        """Count something that went wrong in this phase: "retries", "restarts" or "rejects"."""

    def say(self, text: str) -> None:
        """Show a message."""


SILENT = Progress()
"""Displays nothing."""


class _Counted(Progress):
    """Calls a function whenever units are finished."""

    def __init__(self, call: Callable[[int, int], object]) -> None:
        self._call, self._done, self._total = call, 0.0, 0

    def phase(self, name: str, total: int | None = None, done: int = 0, unit: str = "sources") -> None:
        self._done, self._total = done, total or 0

    def advance(self, units: float) -> None:
        self._done += units
        self._call(round(self._done), self._total)


def as_progress(shown: Progress | Callable[[int, int], object]) -> Progress:
    """Return the progress itself; for a function, a progress that calls it with the number of finished units of a phase
    and the total (0 if unknown).
    """
    return shown if isinstance(shown, Progress) else _Counted(shown)


_ONE = {"retries": "retry", "restarts": "restart", "rejects": "reject"}


def _format_count(number: int, what: str) -> str:
    """Return a count with its noun, `1 reject` or `2 rejects`."""
    return f"{number} {_ONE.get(what, what) if number == 1 else what}"


def _format_figures(task: Task) -> str:
    """Format the figures of a phase: how much is done, the rate, the remaining time, and its note."""
    unit, words = task.fields["unit"], []
    if task.total is not None:
        words.append(f"{task.completed:,.0f} of {task.total:,.0f} {unit}")
        if speed := task.finished_speed or task.speed:
            words.append(f"{speed:,.1f} {unit}/s" if speed >= 1 else f"{1 / speed:,.1f} s each")
        if task.time_remaining is not None and not task.finished:
            words.append(f"{timedelta(seconds=round(task.time_remaining))} left")
    elif task.elapsed:
        words.append(f"{timedelta(seconds=round(task.elapsed))} elapsed")
    return "; ".join([*words, *([task.fields["note"]] if task.fields["note"] else [])])


class _Figures(ProgressColumn):
    """A column with the figures of a phase."""

    def render(self, task: Task) -> Text:
        return Text(_format_figures(task) if task.total is not None else task.fields["note"])


LINE_S = 10.0
"""Interval in seconds between printed lines without a terminal."""


class ProgressBar(Progress):
    """A bar on the terminal with rate, remaining time and note, from the first phase on.

    If the console is not a terminal, the first phase and phases without a count print a line when they start, phases
    with a count when they end, and a thread prints one every `line_s` seconds, even if nothing advances.
    """

    def __init__(self, console: Console | None = None, line_s: float = LINE_S) -> None:
        console = console or DataConsole(stderr=True)
        self._lines = not console.is_terminal
        self._bars = RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            _Figures(),
            TimeElapsedColumn(),
            console=console,
            speed_estimate_period=120,
            disable=self._lines,
        )
        self._line_s, self._next_s, self._shown = line_s, 0.0, -1.0
        self._tallies: Counter[str] = Counter()
        self._current: TaskID | None = None
        self._ended, self._printer = threading.Event(), threading.Thread()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._current is None:
            return
        self._end_phase()
        self._bars.stop()
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        if self._lines:
            self._ended.set()
            self._printer.join()

    def phase(self, name: str, total: int | None = None, done: int = 0, unit: str = "sources") -> None:
        first = self._current is None
        self._end_phase()
        self._tallies.clear()
        self._current = self._bars.add_task(name, total=total, completed=done, unit=unit, note="")
        if self._lines and (first or total is None) and (task := self._task()) is not None:
            self._print(name, task)
        if not first:
            return
        self._bars.start()
        if self._lines:
            self._ended.clear()
            self._printer = threading.Thread(target=self._print_often, name="maskstream progress", daemon=True)
            self._printer.start()

    def advance(self, units: float) -> None:
        if self._current is not None:
            self._bars.advance(self._current, units)

    def note(self, text: str) -> None:
        if self._current is not None:
            self._bars.update(self._current, note=text)

    def tally(self, what: str, count: int = 1) -> None:
        self._tallies[what] += count
        self.note(", ".join(_format_count(number, name) for name, number in sorted(self._tallies.items()) if number))

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False, soft_wrap=self._lines)

    def _end_phase(self) -> None:
        """Display the last figures of a phase with a count; other phases leave nothing behind."""
        task = self._task()
        self._current = None
        if task is not None and task.total is None:
            self._bars.remove_task(task.id)
        elif task is not None and self._lines and task.completed != self._shown:
            self._print(f"{task.description}: {_format_figures(task)}", task)

    def _task(self) -> Task | None:
        return next((task for task in self._bars.tasks if task.id == self._current), None)

    def _print(self, line: str, task: Task) -> None:
        self._next_s, self._shown = time.monotonic() + self._line_s, task.completed
        self.say(line)

    def _print_often(self) -> None:
        """Print a line whenever the last one is `line_s` seconds old."""
        while not self._ended.wait(max(self._next_s - time.monotonic(), 0.05)):
            if (task := self._task()) is not None and time.monotonic() >= self._next_s:
                self._print(f"{task.description}: {_format_figures(task)}", task)
