"""The progress display of a run: a bar on a terminal, elsewhere a line every 15 seconds."""

from __future__ import annotations

import sys
import time
from collections import deque

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...shards.printable import DataConsole
from .metrics import StepMetrics

WINDOW = 20
LINE_EVERY_S = 15.0


class TrainProgress:
    """Loss, samples per second and the share of time spent waiting for data, over the last 20 steps, on stderr."""

    def __init__(self, name: str, *, step: int, steps: int, shown: bool = True) -> None:
        self._recent: deque[StepMetrics] = deque(maxlen=WINDOW)
        self._steps = steps
        self._name = name
        self._shown = shown
        self._next_line = time.monotonic()
        console = DataConsole(file=sys.stderr)
        self._bar = shown and console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._bar,
        )
        self._task = self._progress.add_task(name, total=steps, completed=step, figures="")

    def __enter__(self) -> TrainProgress:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, metrics: StepMetrics) -> None:
        """Shows a step."""
        self._recent.append(metrics)
        if self._bar:
            self._progress.update(self._task, completed=metrics.step, figures=self._figures())
        elif self._shown and (time.monotonic() >= self._next_line or metrics.step == self._steps):
            self._next_line = time.monotonic() + LINE_EVERY_S
            print(f"{self._name} step {metrics.step}/{self._steps}  {self._figures()}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._shown:
            self._progress.console.print(text, highlight=False)

    def _figures(self) -> str:
        n = len(self._recent)
        loss = sum(m.loss for m in self._recent) / n
        wait = sum(m.data_wait_share for m in self._recent) / n
        pace = n / sum(1 / m.clips_per_s for m in self._recent)
        return f"loss {loss:.4f}  {pace:.1f} samples/s  {wait:.0%} waiting for data"
