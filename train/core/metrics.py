"""metrics.jsonl: one line of JSON per step, in order, with no gap or repetition after a resume."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash
from numpy.lib.stride_tricks import sliding_window_view
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskstream.shards.errors import ResumeError
from maskstream.shards.printable import DataConsole
from maskstream.shards.stores.local_files import space_for

from .export import NO_BYTES, FileSum

log = logging.getLogger(__name__)

_LONGEST_LINE = 1 << 20
_TORN = b'{"step": '
_NUMBERS = ("lr", "clips_per_s", "data_wait_share")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """The metrics of one step, counted from 1. loss: over the batches of all ranks. parts: the mean of each named part
    of the loss, not multiplied by its share. grad_norm: before clipping. lr: the learning rate of the step.

    clips_per_s: clips of all ranks and views per second of wall time. data_wait_share: the share of the wall time, in
    [0, 1], in which this rank waited for its batch. goodput: the share of the wall time since the run first began, over
    restarts, that went into steps that count, without waiting for data. flops: of a step on this rank, forward and
    backward, counted once per process. mfu: these per second, divided by the rate of a large matrix product that was
    measured here. The last three are None where they are not known.

    skipped: no weight was changed, since the loss or the gradient was not finite; both may then be NaN. val: the scores
    of the model after the step on held-out samples, by name; empty where it was not validated.

    grad_norms: of the parts of the model, by the first word of their parameters' names. seconds: of this rank, in the
    parts of the step: waiting for the data and moving them, forward, backward, optimiser; validation and checkpoint are
    those since the step before. spread: how the features of the step's samples differ, by name (guard.py); empty where
    it was not measured. peak_bytes: the most memory that this process has had, of the host and of the device.
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


class MetricsLog:
    """Appends metrics to a file while it is entered; a line reaches the file at once.

    It knows the sum of what it wrote, so that a checkpoint can say which lines belong to it. Without a path (on ranks
    other than 0) it writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._hash, self._size = xxhash.xxh3_128(), 0

    def begin_after(self, logged: FileSum) -> None:
        """Cuts the file after the bytes `logged`; a missing file is made if these are none.

        Raises DamageError if the file does not begin with them.
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
                    f"{self._path} has {size} bytes instead of {self._size}: another run has written into this folder "
                    "since; make a new Trainer, which continues from its last checkpoint"
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, metrics: StepMetrics) -> None:
        """Adds a line. Raises StoreError if the disk is full; the file then ends with the line before."""
        if self._path is None or self._file is None:
            return
        line = json.dumps(_finite(asdict(metrics)), allow_nan=False).encode() + b"\n"
        try:
            with space_for(self._path):
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
        """The sum of all lines, which are then on the disk."""
        if self._path is not None and self._file is not None:
            with space_for(self._path):
                os.fsync(self._file.fileno())
        return FileSum(size_bytes=self._size, xxh3_128=self._hash.hexdigest())


def read_metrics(path: str | Path) -> list[StepMetrics]:
    """Reads the steps of a metrics.jsonl up to the first line that is damaged or out of order; a warning names it.

    A last line that is being written is left out, without a warning.
    """
    path = Path(path)
    if not path.is_file():
        return []
    rows: list[StepMetrics] = []
    for line in _lines(path):
        row = _row(line)
        if row is None or (rows and row.step != rows[-1].step + 1):
            if not _is_torn(line):
                log.warning("%s is damaged in line %d; the %d steps before it are used", path, len(rows) + 1, len(rows))
            break
        rows.append(row)
    return rows


def _lines(path: Path) -> Iterator[bytes]:
    """The lines, of which one that is too long to be whole comes in parts."""
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            yield line


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """The values with None for numbers that JSON has not."""
    made = {name: _finite(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in made.items()}


def _row(line: bytes) -> StepMetrics | None:
    """The metrics of a line, or None if it is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
        skipped = values.pop("skipped", False)
        numbers = {name: float(values.pop(name)) for name in _NUMBERS}
        results = {name: _result(values.pop(name), skipped) for name in ("loss", "grad_norm")}
        parts = {str(name): _result(value, skipped) for name, value in values.pop("parts").items()}
        row = StepMetrics(
            step=int(values.pop("step")),
            epoch=int(values.pop("epoch")),
            parts=parts,
            skipped=bool(skipped),
            goodput=_counted(values.pop("goodput", None)),
            flops=_counted(values.pop("flops", None)),
            mfu=_counted(values.pop("mfu", None)),
            val=_results(values.pop("val", {})),
            grad_norms=_results(values.pop("grad_norms", {})),
            seconds=_results(values.pop("seconds", {})),
            spread=_results(values.pop("spread", {})),
            peak_bytes={str(name): int(value) for name, value in values.pop("peak_bytes", {}).items()},
            **numbers,
            **results,
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    whole = all(math.isfinite(n) for n in (row.lr, row.clips_per_s, row.data_wait_share))
    return row if whole and (row.skipped or math.isfinite(row.loss)) and not values else None


def _result(value: Any, may_lack: bool) -> float:
    return math.nan if value is None and may_lack else float(value)


def _results(values: dict[str, Any]) -> dict[str, float]:
    return {str(name): _result(value, True) for name, value in values.items()}


def _counted(value: Any) -> float | None:
    return None if value is None else float(value)


def _is_torn(line: bytes) -> bool:
    """Whether a line looks like the beginning of one that is being written."""
    begins = line.startswith(_TORN) or _TORN.startswith(line)
    return begins and line.isascii() and line.decode().isprintable()


SAMPLE_LOSSES = "sample_losses.npy"


class SampleLosses:
    """The losses of the samples of each step in the file sample_losses.npy of a run, float32 (steps, samples), in the
    order of `replay`'s batches; a step that is not done is 0. A step that a restart repeats is written again.
    """

    def __init__(self, run: Path, steps: int) -> None:
        self._path, self._steps, self._begins = run / SAMPLE_LOSSES, steps, 0

    def write(self, step: int, losses: npt.NDArray[np.float32]) -> None:
        """Writes a step, counted from 1. Raises StoreError if the disk is full, ResumeError if its size has changed."""
        with space_for(self._path):
            if not self._begins:
                self._begin(losses.size)
            with self._path.open("r+b") as file:
                file.seek(self._begins + (step - 1) * losses.nbytes)
                file.write(losses.tobytes())

    def _begin(self, samples: int) -> None:
        """Makes the file, or makes one of a shorter plan as long as this run's; holes take no space."""
        shape = (self._steps, samples)
        before = np.load(self._path, mmap_mode="r") if self._path.exists() else None
        if before is not None and before.shape[1] != samples:
            raise ResumeError(
                f"{self._path} has {before.shape[1]} samples a step, and the run has {samples}; move the file away, or "
                "leave out --losses"
            )
        if before is None or before.shape != shape:
            begun = self._path.with_suffix(".part")
            made = np.lib.format.open_memmap(begun, mode="w+", dtype=np.float32, shape=shape)
            if before is not None:
                kept = min(len(before), self._steps)
                made[:kept] = before[:kept]
            made.flush()
            begun.replace(self._path)
        self._begins = np.load(self._path, mmap_mode="r").offset


AROUND = 10
"""The steps before and behind a step with whose losses its own are compared."""


def worst_samples(run: Path, count: int) -> list[tuple[int, int, float]]:
    """The `count` samples whose losses are furthest above the median of the steps around theirs: (step from 1, place in
    its batches from 0, loss), the worst first. A loss that is not finite is the worst of all. Empty for a run that
    recorded none.
    """
    path = run / SAMPLE_LOSSES
    if not path.exists() or not count:
        return []
    losses = np.load(path, mmap_mode="r")
    found: list[tuple[float, int, int]] = []
    for first in range(0, len(losses), _BLOCK):  # a run of months does not fit into memory
        begin = max(first - AROUND, 0)
        near = np.array(losses[begin : first + _BLOCK + AROUND])
        done = np.asarray(near.any(axis=1))
        near[~done] = np.nan
        usual = np.full(len(near) + 2 * AROUND, np.nan)
        usual[AROUND:-AROUND] = _median(near)
        usual = np.nan_to_num(_median(sliding_window_view(usual, 2 * AROUND + 1)))
        over = np.where(done[:, None], np.nan_to_num(near, nan=np.inf) - usual[:, None], -np.inf)
        over = over[first - begin : first - begin + _BLOCK]
        best = np.argpartition(over, -min(count, over.size), axis=None)[-count:]
        places = [divmod(int(at), over.shape[1]) for at in best]
        found += [(float(over[at]), first + at[0] + 1, at[1]) for at in places if over[at] > -np.inf]
        found = sorted(found, key=lambda one: (-one[0], one[1:]))[:count]
    return [(step, place, float(losses[step - 1, place])) for _, step, place in found]


_BLOCK = 4096


def _median(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The median of each row without what is NaN; NaN for a row of nothing else."""
    some = ~np.isnan(rows).all(axis=1)
    found = np.full(len(rows), np.nan, np.float32)
    found[some] = np.nanmedian(rows[some], axis=1)
    return found


WINDOW = 20
LINE_EVERY_S = 15.0


class TrainProgress:
    """Loss, samples per second and the share of time spent waiting for data, over the last 20 steps, on stderr."""

    def __init__(self, name: str, *, step: int, steps: int, shown: bool = True) -> None:
        self._recent: deque[StepMetrics] = deque(maxlen=WINDOW)
        self._steps = steps
        self._name = name
        self._shown = shown
        self._begun: tuple[int, float] | None = None
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
        if metrics.val:
            self.note(
                f"step {metrics.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.val.items())
            )
        if self._bar:
            self._progress.update(self._task, completed=metrics.step, figures=self._figures())
        elif self._shown and (time.monotonic() >= self._next_line or metrics.step == self._steps):
            self._next_line = time.monotonic() + LINE_EVERY_S
            line = f"{self._name} step {metrics.step}/{self._steps}  {self._figures()}{self._left(metrics.step)}"
            print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._shown:
            self._progress.console.print(text, highlight=False)

    def _left(self, step: int) -> str:
        """How long the steps to come take at the mean pace since the first line, whose step also started the loader."""
        now = time.monotonic()
        if self._begun is None or step == self._steps:
            self._begun = step, now
            return ""
        first, start = self._begun
        return f"  {timedelta(seconds=round((now - start) * (self._steps - step) / (step - first)))} left"

    def _figures(self) -> str:
        n = len(self._recent)
        loss = sum(m.loss for m in self._recent) / n
        wait = sum(m.data_wait_share for m in self._recent) / n
        pace = n / sum(1 / m.clips_per_s for m in self._recent)
        return f"loss {loss:.4f}  {pace:.1f} samples/s  {wait:.0%} waiting for data"
