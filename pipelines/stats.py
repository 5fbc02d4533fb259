"""Where a loader's time goes: seconds per stage, bytes read, and the samples that could not be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class Stats:
    """Counts and times of one sample, one batch or one loader; they add up.

    seconds: per stage ("read", "decode", "convert", "flow", "mask"), summed over threads; "wait" is the consumer's.
    bad: samples replaced by another one.
    """

    samples: int = 0
    read_bytes: int = 0
    bad: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to the stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def add(self, other: Stats) -> None:
        """Adds another's counts and times to this one's."""
        self.samples += other.samples
        self.read_bytes += other.read_bytes
        self.bad += other.bad
        for name, value in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def as_dict(self) -> dict[str, object]:
        """The same as plain, JSON-able values."""
        return {
            "samples": self.samples,
            "read_bytes": self.read_bytes,
            "bad": self.bad,
            "seconds": {name: round(value, 6) for name, value in sorted(self.seconds.items())},
        }
