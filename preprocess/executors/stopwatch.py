"""Measures an attempt in another process against its limits."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .base import Attempt

TICK_S = 0.25
"""How often attempts are measured."""
_LONGEST_TICK_S = 4 * TICK_S
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Stopwatch:
    """Measures an attempt of the process `pid` from now on.

    Time counts while the process computes, sleeps or waits for a disk. It does not count while the process waits for a
    processor, so a busy machine condemns no unit, nor while this process was stopped (Ctrl-Z).
    """

    def __init__(self, attempt: Attempt, pid: int) -> None:
        self.attempt = attempt
        self._pid = pid
        self._last, self._wall_s = time.monotonic(), 0.0
        self._waited_s = _waited_s(pid)

    def passed(self) -> str | None:
        """Which limit the attempt has passed, in words; None if it has passed none. It must be called at each tick."""
        now = time.monotonic()
        self._wall_s += min(now - self._last, _LONGEST_TICK_S)
        self._last = now
        time_s, memory_bytes = self.attempt.time_s, self.attempt.memory_bytes
        if self._wall_s > time_s and self._wall_s - (_waited_s(self._pid) - self._waited_s) > time_s:
            return f"took longer than {time_s:g} s"
        if memory_bytes is not None and _own_bytes(self._pid) > memory_bytes:
            return f"took more than {memory_bytes / 1e9:g} GB of memory"
        return None


def _waited_s(pid: int) -> float:
    """How long the main thread of a process has waited for a processor; 0 where the system does not tell."""
    numbers = _numbers(pid, "schedstat")
    return numbers[1] / 1e9 if len(numbers) == 3 else 0.0


def _own_bytes(pid: int) -> int:
    """The memory that a process shares with no file and no other process."""
    numbers = _numbers(pid, "statm")
    return (numbers[1] - numbers[2]) * _PAGE_BYTES if len(numbers) > 2 else 0


def _numbers(pid: int, name: str) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/{name}").read_text().split()]
    except (OSError, ValueError):
        return []
