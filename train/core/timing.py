"""Time of each part of a step, and peak memory."""

import resource
import sys
import time
from itertools import pairwise
from typing import cast

import torch

PARTS = ("data", "forward", "backward", "optimiser", "guard", "probe", "validation", "checkpoint", "hooks")
"""Parts of a step's time, in order; from the guard's part on, they date from the end of the previous step."""


class StepClock:
    """Times of the parts of a step. On a CUDA device they are device times, so the host need not wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._laps: list[tuple[str, float | torch.cuda.Event]] = [("", self._now())]

    def lap(self, name: str) -> None:
        """Attribute the time since the last lap to the part `name`."""
        self._laps.append((name, self._now()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part; the device must have finished them."""
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


def measure_peak_memory(device: torch.device) -> dict[str, int]:
    """Return the peak memory of this process so far in bytes, on the host and on a CUDA device."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device)
    return found
