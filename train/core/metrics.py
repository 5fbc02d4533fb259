"""metrics.jsonl: one line of JSON per step, in order, without gaps or repetitions after a resume."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import xxhash

from maskstream.shards.errors import ResumeError
from maskstream.shards.progress import Progress
from maskstream.shards.stores.local_files import check_space_for

from .weights import NO_BYTES, FileSum

log = logging.getLogger(__name__)

_LONGEST_LINE = 1 << 20
_TORN = b'{"step": '
_UNKNOWN = ("goodput", "flops", "mfu")
"""The metrics that are None where they are not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """The metrics of one step.

    Attributes:
        step: Number of the step, from 1.
        loss: Loss over the batches of all ranks.
        parts: Mean of each named loss part, not multiplied by its `share`.
        grad_norm: Gradient norm before clipping.
        lr: Learning rate of the step.
        clips_per_s: Samples, views and ranks included, per second of wall time.
        data_wait_share: Fraction of the wall time, in [0, 1], in which this rank waited for its batch.
        goodput: Fraction of the wall time since the run first started, restarts included, that was spent on steps that
            count, without waiting for data; None if unknown.
        flops: Operations of a step on this rank, forward and backward, counted once per process; None if unknown.
        mfu: Operations per second divided by the measured rate of a large matrix product; None if unknown.
        skipped: Whether the weights were left unchanged because the loss or gradient was not finite; these may then be
            NaN.
        val: Scores on held-out samples after the step, by name; empty if it was not validated.
        grad_norms: Gradient norm of each part of the model, by the first word of its parameters' names.
        seconds: Seconds of this rank in each part of the step: waiting for and moving data, forward, backward and
            optimiser; validation and checkpoint are those since the previous step.
        spread: Spread of the features of the step's samples, by name (guard.py); empty if it was not measured.
        peak_bytes: Peak memory of this process in bytes, on the host and the device.
        sources: For each source of a mixture: `samples` read by all ranks since the run started, `epoch` (the samples
            divided by the source's size), and `loss`, the mean loss of its samples in the step, absent if there are
            none.
    """

    step: int
    epoch: int
    loss: float
    parts: dict[str, float]
    lr: float
    grad_norm: float
    clips_per_s: float
    data_wait_share: float
    goodput: float | None = None
    flops: float | None = None
    mfu: float | None = None
    skipped: bool = False
    val: dict[str, float] = field(default_factory=dict)
    grad_norms: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    sources: dict[str, dict[str, float]] = field(default_factory=dict)


_TABLES = [f.name for f in fields(StepMetrics) if f.type.startswith("dict")]


class MetricsLog:
    """Appends metrics to a file while it is entered; each line is written to the file at once.

    It keeps a checksum of its output, so that a checkpoint can record which lines belong to it. Without a path (on
    ranks other than 0) it writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._hash, self._size = xxhash.xxh3_128(), 0

    def begin_after(self, logged: FileSum) -> None:
        """Truncate the file after the bytes described by `logged`; create it if they are none.

        Raises:
            RunFileError: The file does not begin with these bytes.
        """
        if self._path is None:
            return
        if logged == NO_BYTES:
            self._hash, self._size = xxhash.xxh3_128(), 0
            self._path.open("wb").close()
            return
        self._hash, self._size = logged.begun(self._path), logged.size_bytes
        os.truncate(self._path, self._size)

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = FileIO(self._path, "ab")
            if (size := os.fstat(self._file.fileno()).st_size) != self._size:
                self._file.close()
                raise ResumeError(
                    f"{self._path} has {size} bytes instead of {self._size}, so another run has written to this "
                    "folder; create a new Trainer to continue from its last checkpoint"
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, metrics: StepMetrics) -> None:
        """Append the metrics of a step as a line.

        Raises:
            StoreError: The disk is full; the file then ends with the previous line.
        """
        if self._path is None or self._file is None:
            return
        line = json.dumps(_replace_non_finite(asdict(metrics)), allow_nan=False).encode() + b"\n"
        try:
            with check_space_for(self._path):
                left = memoryview(line)
                while left:
                    left = left[self._file.write(left) :]
        except BaseException:
            with suppress(OSError):
                os.truncate(self._path, self._size)
            raise
        self._hash.update(line)
        self._size += len(line)

    def logged(self) -> FileSum:
        """Flush all lines to disk and return their checksum."""
        if self._path is not None and self._file is not None:
            with check_space_for(self._path):
                os.fsync(self._file.fileno())
        return FileSum(size_bytes=self._size, xxh3_128=self._hash.hexdigest())


def read_metrics(path: str | Path) -> list[StepMetrics]:
    """Return the steps of a metrics.jsonl up to the first damaged or out-of-order line, which is logged as a warning.

    An incomplete last line, which is still being written, is ignored without a warning.

    Args:
        path: The file; a missing one has no steps.
    """
    path = Path(path)
    if not path.is_file():
        return []
    rows: list[StepMetrics] = []
    for line in _lines(path):
        row = _parse_row(line)
        if row is None or (rows and row.step != rows[-1].step + 1):
            if not _is_torn(line):
                log.warning("%s is damaged in line %d; the %d steps before it are used", path, len(rows) + 1, len(rows))
            break
        rows.append(row)
    return rows


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines; a line that is too long to be intact is split."""
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            yield line


def _replace_non_finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with None for numbers that JSON cannot represent."""
    made = {name: _replace_non_finite(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in made.items()}


def _parse_row(line: bytes) -> StepMetrics | None:
    """Return the metrics of a line; None if it is incomplete or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = StepMetrics(**_with_nan(json.loads(line)))
        numbers = [row.step, row.epoch, row.lr, row.clips_per_s, row.data_wait_share]
        numbers += [] if row.skipped else [row.loss, row.grad_norm, *row.parts.values()]
        whole = all(map(math.isfinite, numbers)) and all(isinstance(getattr(row, name), dict) for name in _TABLES)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return row if whole else None


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `_replace_non_finite` with NaN instead of None."""
    made = {name: _with_nan(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: math.nan if v is None and name not in _UNKNOWN else v for name, v in made.items()}


def _is_torn(line: bytes) -> bool:
    """Return whether a line looks like the beginning of one that is being written."""
    begins = line.startswith(_TORN) or _TORN.startswith(line)
    return begins and line.isascii() and line.decode().isprintable()


WINDOW = 20


class TrainProgress:
    """Shows step `step` of `steps` with the loss, samples per second and fraction of time spent waiting for data,
    averaged over 20 steps.
    """

    def __init__(self, progress: Progress, name: str, *, step: int, steps: int) -> None:
        self._recent: deque[StepMetrics] = deque(maxlen=WINDOW)
        self._progress, self._name, self._step, self._steps = progress, name, step, steps

    def __enter__(self) -> TrainProgress:
        self._progress.phase(self._name, self._steps, self._step, "steps")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, traceback)

    def update(self, metrics: StepMetrics) -> None:
        """Format the metrics of a step."""
        self._recent.append(metrics)
        if metrics.val:
            self.note(
                f"step {metrics.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.val.items())
            )
        self._progress.note(self._figures())
        self._progress.advance(metrics.step - self._step)  # below 0 where the run went back to a checkpoint
        self._step = metrics.step

    def note(self, text: str) -> None:
        """Print a line."""
        self._progress.say(text)

    def _figures(self) -> str:
        n = len(self._recent)
        loss = sum(m.loss for m in self._recent) / n
        wait = sum(m.data_wait_share for m in self._recent) / n
        pace = n / sum(1 / m.clips_per_s for m in self._recent)
        return f"loss {loss:.4f}; {pace:.1f} samples/s; {wait:.0%} waiting for data"
