"""Write the progress of a long job to a file, for a monitoring system."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from maskstream.shards.progress import Progress

EVERY_S = 5.0
"""Seconds between updates of a progress file."""


class ProgressFile(Progress):
    """Context manager that also writes the progress of a job to a Prometheus file.

    The file is for a node exporter's textfile collector. It is replaced as a whole, also at the end. `job` is the label
    of all metrics.

    Raises:
        ValueError: prometheus_client is not installed.
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

    def phase(self, name: str, total: int | None = None, done: int = 0, unit: str = "sources") -> None:
        self._phase = name, unit
        self._total.labels(self._job, name, unit).set(total or 0)
        self._done.labels(self._job, name, unit).set(done)
        self._write()
        self._shown.phase(name, total, done, unit)

    def advance(self, units: float) -> None:
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
