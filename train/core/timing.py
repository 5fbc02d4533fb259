"""Where a step's time goes, how much memory was taken, and a trace of some steps."""

import gzip
import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import torch
from torch.profiler import ProfilerActivity, profile

from maskstream.shards.stores.local_files import publish

PARTS = ("data", "forward", "backward", "optimiser", "guard", "probe", "validation", "checkpoint")
"""The parts of a step's time, in their order; the last four are those since the step before."""


class StepClock:
    """The times of the parts of a step. On a CUDA device they are those of the device, which need not be waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._laps: list[tuple[str, float | torch.cuda.Event]] = [("", self._now())]

    def lap(self, name: str) -> None:
        """What was done since the last lap is of the part `name`."""
        self._laps.append((name, self._now()))

    def seconds(self) -> dict[str, float]:
        """The seconds of each part; the device must have done them."""
        found: dict[str, float] = {}
        for (_, start), (name, end) in pairwise(self._laps):
            found[name] = found.get(name, 0.0) + _passed(start, end)
        return found

    def _now(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _passed(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return float(start.elapsed_time(end)) / 1000
    return cast(float, end) - cast(float, start)


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most bytes that this process has had so far, in the memory of the host and in that of a CUDA device."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device)
    return found


class StepProfile:
    """Writes a trace of the steps `first` to `last`, counted from 1, into the folder `profile` of a run, for Perfetto
    or chrome://tracing; without a run it writes nothing. A run that ends meanwhile writes what it has.
    """

    def __init__(self, run: Path | None, steps: tuple[int, int], device: torch.device) -> None:
        self._run, self._steps = run, steps
        self._activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        self._running: profile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._write()

    def begin(self, step: int) -> None:
        """Says that `step` begins."""
        if self._run is not None and step == self._steps[0]:
            self._running = profile(activities=self._activities, record_shapes=True)
            self._running.start()

    def end(self, step: int) -> None:
        """Says that `step` is done."""
        if step == self._steps[1]:
            self._write()

    def _write(self) -> None:
        running, self._running = self._running, None
        if running is None or self._run is None:
            return
        running.stop()
        folder = self._run / "profile"
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "trace.json"
            running.export_chrome_trace(str(path))
            publish(folder / f"steps-{self._steps[0]}-{self._steps[1]}.json.gz", gzip.compress(path.read_bytes()))
