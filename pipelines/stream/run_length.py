"""Length of a run in steps, computed from the source and the batch size before the loader is created.

With a token budget, batch sizes depend on step / steps, so the smallest number of steps that covers all samples is
found by search.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol

import numpy as np

from maskstream.shards.arrays import Int64s

from .order import GlobalBatch
from .sampler import Visible
from .samples import Samples, Stream


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetOrder:
    """Order whose batch t holds as many samples as fit into `budget` visible tokens at the mask ratio of step t.

    Each size is the largest multiple of `global_batch` within the budget, at least `global_batch`. Samples follow the
    order of `samples` without gaps between epochs; one epoch of this order is the whole run. Source: DiffMAViL
    (adaptive batch size with a masking ratio curriculum).
    """

    samples: Stream
    budget: int
    """Maximum visible tokens per batch over all ranks."""
    global_batch: int
    visible: Int64s
    """int64 (steps,): visible tokens of a sample at each step; the last value applies after the run."""
    starts: Int64s = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", np.concatenate([[0], np.cumsum(self.sizes())]))

    @property
    def n_batches(self) -> int:
        """Number of batches in a run."""
        return len(self.visible)

    @property
    def shuffle(self) -> bool:
        """Always true."""
        return True

    def sizes(self) -> Int64s:
        """Samples of each batch of the run over all ranks, int64 (steps,)."""
        return fit_budget(self.visible, self.budget, self.global_batch)

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """Yield the batches of a run from number `first` on; later epochs continue with batches of the last size."""
        reader = self.samples.reader()
        for step in range(epoch * self.n_batches + first, (epoch + 1) * self.n_batches):
            yield reader.take(self._start(step), self._start(step + 1))

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """Return a random sample, to replace the unusable sample `index`."""
        return self.samples.reserve(index, rng)

    def identity(self) -> dict[str, Any]:
        """JSON-able settings that a saved position depends on."""
        return {**self.samples.identity(), "global_batch": self.global_batch, "token_budget": self.budget}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """Return the position before batch `batch`, with the epoch of the samples at that point."""
        done = self._start(epoch * self.n_batches + batch)
        return {"epoch": epoch, "batch": batch, "sample_epoch": done // self.samples.n_samples}

    def _start(self, step: int) -> int:
        """Return the number of samples before batch `step`."""
        beyond = max(step - self.n_batches, 0)
        return int(self.starts[step - beyond]) + beyond * int(self.starts[-1] - self.starts[-2])


def fit_budget(visible: Int64s, budget: int, global_batch: int) -> Int64s:
    """Return the largest multiple of `global_batch` samples within `budget` tokens at each step, int64 (steps,).

    Raises:
        ValueError: The budget is below the tokens of `global_batch` samples at some step.
    """
    most = int(visible.max())
    if budget < most * global_batch:
        raise ValueError(
            f"a token budget of {budget} is too small for the smallest batch: {global_batch} samples "
            f"(batch_size x world_size) of up to {most} visible tokens; use a budget of at least "
            f"{most * global_batch}, or a smaller batch_size"
        )
    sizes: Int64s = budget // (visible * global_batch) * global_batch
    return sizes


_FIRST = 1000
"""Number of steps used for the first estimate."""


class Counted(Protocol):
    """The part of a source that the length of a run depends on; every `BatchSource` has it."""

    @property
    def samples(self) -> Samples: ...

    @property
    def visible(self) -> Visible | None: ...


def count_epoch_steps(source: Counted, global_batch: int) -> int:
    """Return the number of batches of `global_batch` samples (batch_size x world_size) in an epoch."""
    return source.samples.order(global_batch).n_batches


def run_steps(source: Counted, *, epochs: float, global_batch: int, token_budget: int | None = None) -> int:
    """Return the number of steps in a run of `epochs` epochs.

    With a token budget, batch sizes depend on the mask's progress and so on the number of steps; the result is the
    smallest number of steps whose batches hold epochs x n_samples samples.

    Raises:
        ValueError: The budget is impossible.
    """
    if token_budget is None:
        return round(epochs * count_epoch_steps(source, global_batch))
    wanted = ceil(epochs * source.samples.n_samples)
    visible = check_budget(source)
    low, high = 0, max(ceil(wanted / global_batch), 1)
    steps = _FIRST
    while high - low > 1:
        steps = min(max(steps, low + 1), high - 1)
        shown = int(fit_budget(visible(steps), token_budget, global_batch).sum())
        low, high = (low, steps) if shown >= wanted else (steps, high)
        steps = round(steps * wanted / shown)  # the mean size hardly depends on the number of steps
    return high


def check_budget(source: Counted) -> Visible:
    """Return the source's function of visible tokens.

    Raises:
        ValueError: The source has no mask.
    """
    if source.visible is None:
        raise ValueError("a token budget counts the visible tokens of a mask, but the source has no mask; pass mask=")
    return source.visible
