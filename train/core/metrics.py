"""metrics.jsonl: one line of JSON per step, in order, with no gap or repetition after a resume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from ...shards.stores.publish import publish


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """The metrics of one step, counted from 1. loss: over the batches of all ranks. parts: the mean of each named part
    of the loss, not multiplied by its share. grad_norm: before clipping. lr: the learning rate of the step.

    clips_per_s: clips of all ranks and views per second of wall time. data_wait_share: the share of the wall time, in
    [0, 1], in which this rank waited for its batch.
    """

    step: int
    epoch: int
    loss: float
    parts: dict[str, float]
    lr: float
    grad_norm: float
    clips_per_s: float
    data_wait_share: float


class MetricsLog:
    """Appends metrics to a file, after it has removed a torn last line and the lines of steps later than `step`.

    Without a path (on ranks other than 0) it writes nothing.
    """

    def __init__(self, path: Path | None, *, step: int = 0) -> None:
        self._file: TextIO | None = None
        if path is None:
            return
        kept = [line for line in _whole_lines(path) if line["step"] <= step]
        publish(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - closed by close()

    def write(self, metrics: StepMetrics) -> None:
        """Adds a line; it reaches the file at once."""
        if self._file is not None:
            self._file.write(json.dumps(asdict(metrics)) + "\n")

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def read_metrics(path: str | Path) -> list[StepMetrics]:
    """Reads the steps of a metrics.jsonl; a torn last line is ignored."""
    return [StepMetrics(**line) for line in _whole_lines(Path(path))]


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        yield json.loads(line)
