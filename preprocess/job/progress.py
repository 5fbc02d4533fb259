"""Progress of a long job: the protocol, a bar on the terminal, and lines where there is none, as in the log of a batch
system.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
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

from maskstream.shards.printable import DataConsole


class Progress:
    """Receives the progress of a job. This base class shows nothing."""

    def phase(self, name: str, total: int, done: int = 0, unit: str = "sources") -> None:
        """Start a phase of `total` units; an earlier run finished `done` of them."""

    def advance(self, units: int) -> None:
        """Add finished units. A negative number takes back units that must be done again."""

    def tally(self, what: str, count: int = 1) -> None:
        """Count something that went wrong: "retries", "restarts" or "rejects"."""

    def say(self, text: str) -> None:
        """Show a message."""


class _Rate(ProgressColumn):
    """A column with the units per second of this run."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


_ONE = {"retries": "retry", "restarts": "restart", "rejects": "reject"}


def _counted(number: int, what: str) -> str:
    """`1 reject`, `2 rejects`."""
    return f"{number} {_ONE.get(what, what) if number == 1 else what}"


class ProgressBar(Progress):
    """A bar on the terminal with the rate, the remaining time, and what went wrong, from the first phase on. Where the
    console is no terminal, a line says the same once a minute. It is a context manager.
    """

    def __init__(self, console: Console | None = None, line_s: float = 60.0) -> None:
        self._bars = RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[tallies]}"),
            console=console or DataConsole(stderr=True),
            speed_estimate_period=120,
        )
        self._line_s, self._next_s = line_s, 0.0
        self._tallies: Counter[str] = Counter()
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
        self._tallies.clear()
        self._current = self._bars.add_task(name, total=total, completed=done, unit=unit, tallies="")
        self._next_s = time.monotonic() + self._line_s

    def advance(self, units: int) -> None:
        if self._current is not None:
            self._bars.advance(self._current, units)
            self._line()

    def tally(self, what: str, count: int = 1) -> None:
        self._tallies[what] += count
        if self._current is not None:
            words = ", ".join(_counted(number, name) for name, number in sorted(self._tallies.items()) if number)
            self._bars.update(self._current, tallies=words)

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)

    def _line(self) -> None:
        """Print a line if there is no terminal and the last one is old."""
        if self._bars.console.is_terminal or self._current is None or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + self._line_s
        task = next(task for task in self._bars.tasks if task.id == self._current)
        rate = f"{task.speed:,.1f} {task.fields['unit']}/s" if task.speed else ""
        left = f"{task.time_remaining:,.0f} s left" if task.time_remaining is not None else ""
        count = f"{task.completed:,.0f} of {task.total or 0:,.0f} {task.fields['unit']}"
        self.say(
            "; ".join(word for word in (f"{task.description}: {count}", rate, left, task.fields["tallies"]) if word)
        )


EVERY_S = 5.0
"""How often a file of progress is written."""


class ProgressFile(Progress):
    """The progress of a job in a file as Prometheus reads it, for a node exporter's textfile collector, beside what
    is shown. The file is replaced whole, at the end too. It is a context manager. job: its label in all metrics.

    Raises ValueError without prometheus_client.
    """

    def __init__(self, path: Path, job: str, shown: Progress | None) -> None:
        try:
            from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
        except ImportError as error:
            raise ValueError(
                "prometheus_client is not installed: pip install 'maskstream[prometheus]', or leave out --metrics"
            ) from error
        self._path, self._job, self._shown, self._publish = str(path), job, shown or Progress(), write_to_textfile
        self._registry, self._next_s = CollectorRegistry(), 0.0
        name = "maskstream_job"
        units, kinds = ("job", "phase", "unit"), ("job", "kind")
        self._done = Gauge(f"{name}_done", "Units of a phase that are finished", units, registry=self._registry)
        self._total = Gauge(f"{name}_total", "Units of a phase", units, registry=self._registry)
        self._wrong = Gauge(f"{name}_problems", "Retries, restarts and rejects", kinds, registry=self._registry)
        self._running = Gauge(f"{name}_running", "1 while the job runs, 0 after it", ("job",), registry=self._registry)
        self._phase: tuple[str, str] | None = None

    def __enter__(self) -> ProgressFile:
        self._running.labels(self._job).set(1)
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.labels(self._job).set(0)
        self._write()

    def phase(self, name: str, total: int, done: int = 0, unit: str = "sources") -> None:
        self._phase = name, unit
        self._total.labels(self._job, name, unit).set(total)
        self._done.labels(self._job, name, unit).set(done)
        self._write()
        self._shown.phase(name, total, done, unit)

    def advance(self, units: int) -> None:
        if self._phase is not None:
            self._done.labels(self._job, *self._phase).inc(units)
            if time.monotonic() >= self._next_s:
                self._write()
        self._shown.advance(units)

    def tally(self, what: str, count: int = 1) -> None:
        self._wrong.labels(self._job, what).inc(count)
        self._shown.tally(what, count)

    def say(self, text: str) -> None:
        self._shown.say(text)

    def _write(self) -> None:
        self._publish(self._path, self._registry)
        self._next_s = time.monotonic() + EVERY_S
