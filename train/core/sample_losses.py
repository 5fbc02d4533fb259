"""sample_losses.npy, which contains the loss of each sample of each step of a run; and the samples that stand out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from maskstream.shards.arrays import Float32s
from maskstream.shards.errors import ResumeError
from maskstream.shards.stores.local_files import check_space_for

from .hook import Hook, StepEvent
from .metrics import StepMetrics

SAMPLE_LOSSES = "sample_losses.npy"


class SampleLosses(Hook):
    """Losses of the samples of each step in the file sample_losses.npy of a run, float32 (steps, samples), in the order
    of `replay`'s batches; 0 for steps that were not done. A step that is repeated after a restart is written again.
    """

    timed = ""

    def __init__(self, run: Path, steps: int) -> None:
        self._path, self._steps, self._begins = run / SAMPLE_LOSSES, steps, 0

    def log(self, event: StepEvent, metrics: StepMetrics) -> None:
        """Write the losses of a step.

        Args:
            event: The step.
            metrics: Metrics of the step, unused.
        """
        if event.report.samples is not None:
            self.write(event.step, event.report.samples.cpu().numpy())

    def write(self, step: int, losses: Float32s) -> None:
        """Write the losses of a step.

        Args:
            step: Number of the step, from 1.
            losses: Losses float32 (samples,).

        Raises:
            StoreError: The disk is full.
            ResumeError: Earlier steps had another number of samples.
        """
        with check_space_for(self._path):
            if not self._begins:
                self._begin(losses.size)
            with self._path.open("r+b") as file:
                file.seek(self._begins + (step - 1) * losses.nbytes)
                file.write(losses.tobytes())

    def _begin(self, samples: int) -> None:
        """Create the file, or extend one of a shorter plan to the run's length; unwritten parts take no space."""
        shape = (self._steps, samples)
        before = np.load(self._path, mmap_mode="r") if self._path.exists() else None
        if before is not None and before.shape[1] != samples:
            raise ResumeError(
                f"{self._path} has {before.shape[1]} samples per step, but the run has {samples}; move the file away, "
                "or leave out --losses"
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
"""Steps before and after a step with whose losses its own are compared."""


def read_step_losses(run: Path, step: int) -> Float32s | None:
    """Return the losses of a step's samples, in the order of `replay`'s batches.

    Args:
        run: Folder of the run.
        step: Number of the step, from 1.

    Returns:
        float32 (samples,); None if none were recorded.
    """
    path = run / SAMPLE_LOSSES
    losses = np.load(path, mmap_mode="r")[step - 1 : step] if path.exists() else np.empty((0, 0), np.float32)
    return np.array(losses[0]) if losses.any() else None


def worst_samples(run: Path, count: int) -> list[tuple[int, int, float]]:
    """Return the samples whose losses are furthest above the median of the steps around them.

    Args:
        run: Folder of the run.
        count: Number of samples to return.

    Returns:
        (step from 1, index in its batches from 0, loss), worst first; a non-finite loss is the worst. Empty if no
            losses were recorded.
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
        usual[AROUND:-AROUND] = _compute_median(near)
        usual = np.nan_to_num(_compute_median(sliding_window_view(usual, 2 * AROUND + 1)))
        over = np.where(done[:, None], np.nan_to_num(near, nan=np.inf) - usual[:, None], -np.inf)
        over = over[first - begin : first - begin + _BLOCK]
        best = np.argpartition(over, -min(count, over.size), axis=None)[-count:]
        places = [divmod(int(at), over.shape[1]) for at in best]
        found += [(float(over[at]), first + at[0] + 1, at[1]) for at in places if over[at] > -np.inf]
        found = sorted(found, key=lambda one: (-one[0], one[1:]))[:count]
    return [(step, place, float(losses[step - 1, place])) for _, step, place in found]


_BLOCK = 4096


def _compute_median(rows: Float32s) -> Float32s:
    """Return the median of each row without NaN values; NaN for a row without others."""
    some = ~np.isnan(rows).all(axis=1)
    found = np.full(len(rows), np.nan, np.float32)
    found[some] = np.nanmedian(rows[some], axis=1)
    return found
