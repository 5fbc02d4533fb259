"""The stats of a loader: seconds per stage, bytes read, samples made and samples replaced."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SAMPLE_STAGES = ("read", "decode", "convert", "flow", "mask")
"""The stages of one sample; they run in the threads that make samples."""
BATCH_STAGES = ("collate", "copy", "finish")
"""The stages of one batch: joining its samples, starting its copy to the device, and what is made there."""
WAITS = ("wait", "consumer")
""""wait": the consumer waits for a batch. "consumer": the loader waits until the consumer asks for the next."""
STAGES = (*SAMPLE_STAGES, *BATCH_STAGES, *WAITS)


def _zeros() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass(kw_only=True, slots=True)
class Stats:
    """Counts and times of one sample, one batch or one loader; they can be added.

    seconds: wall time per stage, summed over the threads of all workers; "wait" and "consumer" are times of the
    consuming thread. cpu_seconds: the processor time of the same. The two differ where a thread waits for a disk, a
    device, a core or another thread. bad: unusable samples that were replaced. restarts: worker
    processes that died or fell silent and were replaced. cuts: scene cuts that were found in clips. flow_cells,
    valid_cells: cells of flow, and those in which the source had a vector. judged_cells, confidence: the cells whose
    confidence was asked for, and its sum.
    """

    samples: int = 0
    read_bytes: int = 0
    bad: int = 0
    restarts: int = 0
    cuts: int = 0
    flow_cells: int = 0
    valid_cells: int = 0
    judged_cells: int = 0
    confidence: float = 0.0
    seconds: defaultdict[str, float] = field(default_factory=_zeros)
    cpu_seconds: defaultdict[str, float] = field(default_factory=_zeros)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent in the `with` block to the stage."""
        cpu, start = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
            self.cpu_seconds[name] += time.thread_time() - cpu

    def add(self, other: Stats) -> None:
        """Adds another's counts and times to this one's."""
        self.samples += other.samples
        self.read_bytes += other.read_bytes
        self.bad += other.bad
        self.restarts += other.restarts
        self.cuts += other.cuts
        self.flow_cells += other.flow_cells
        self.valid_cells += other.valid_cells
        self.judged_cells += other.judged_cells
        self.confidence += other.confidence
        for mine, theirs in ((self.seconds, other.seconds), (self.cpu_seconds, other.cpu_seconds)):
            for name, value in theirs.items():
                mine[name] += value

    def as_dict(self) -> dict[str, object]:
        """The stats as JSON-able values; the coverage and the confidence of flow are means over cells, or None."""
        return {
            "samples": self.samples,
            "read_bytes": self.read_bytes,
            "bad": self.bad,
            "restarts": self.restarts,
            "cuts": self.cuts,
            "flow_coverage": round(self.valid_cells / self.flow_cells, 6) if self.flow_cells else None,
            "flow_confidence": round(self.confidence / self.judged_cells, 6) if self.judged_cells else None,
            "seconds": {name: round(value, 6) for name, value in sorted(self.seconds.items())},
            "cpu_seconds": {name: round(value, 6) for name, value in sorted(self.cpu_seconds.items())},
        }
