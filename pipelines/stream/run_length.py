"""The length of a run in steps, computed from the source and the batch size before the loader is made.

With a token budget, batch sizes depend on step / steps, so the smallest number of steps that shows every sample is
searched for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol

import numpy as np

from .order import GlobalBatch, Int64Array
from .sampler import Visible
from .samples import Samples, Stream


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetOrder:
    """An order whose batch t holds as many samples as fit into `budget` visible tokens at the mask ratio of step t.

    Each size is the largest multiple of `global_batch` within the budget, at least `global_batch`. visible: the visible
    tokens of a sample at each step, int64 (steps,); the last value holds after the run. Samples come in the order of
    `samples` without a gap between their epochs; one epoch of this order is the whole run of `steps` batches.
    Source: DiffMAViL (adaptive batch size with a masking ratio curriculum).
    """

    samples: Stream
    budget: int
    global_batch: int
    visible: Int64Array
    starts: Int64Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", np.concatenate([[0], np.cumsum(self.sizes())]))

    @property
    def n_batches(self) -> int:
        """The number of batches in a run."""
        return len(self.visible)

    @property
    def shuffle(self) -> bool:
        """Always True."""
        return True

    def sizes(self) -> Int64Array:
        """Samples of each batch of the run over all ranks, int64 (steps,)."""
        return fit_budget(self.visible, self.budget, self.global_batch)

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """The batches of a run from number `first` on; later epochs continue with batches of the last size."""
        reader = self.samples.reader()
        for step in range(epoch * self.n_batches + first, (epoch + 1) * self.n_batches):
            yield reader.take(self._start(step), self._start(step + 1))

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A random sample, to replace the unusable sample `index`."""
        return self.samples.reserve(index, rng)

    def identity(self) -> dict[str, Any]:
        """The settings that a saved position depends on, JSON-able."""
        return {**self.samples.identity(), "global_batch": self.global_batch, "token_budget": self.budget}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """The position before batch `batch`, with the epoch of the samples at that point."""
        done = self._start(epoch * self.n_batches + batch)
        return {"epoch": epoch, "batch": batch, "sample_epoch": done // self.samples.n_samples}

    def _start(self, step: int) -> int:
        """The number of samples before batch `step`."""
        beyond = max(step - self.n_batches, 0)
        return int(self.starts[step - beyond]) + beyond * int(self.starts[-1] - self.starts[-2])


def fit_budget(visible: Int64Array, budget: int, global_batch: int) -> Int64Array:
    """The largest multiple of `global_batch` samples within `budget` tokens at each step, int64 (steps,).

    Raises ValueError if the budget is below the tokens of `global_batch` samples at any step.
    """
    most = int(visible.max())
    if budget < most * global_batch:
        raise ValueError(
            f"a token budget of {budget} does not hold the smallest batch: {global_batch} samples (batch_size x "
            f"world_size) of up to {most} visible tokens; use a budget of at least {most * global_batch}, or a smaller "
            "batch_size"
        )
    sizes: Int64Array = budget // (visible * global_batch) * global_batch
    return sizes


_FIRST = 1000
"""The number of steps whose samples are counted first."""


class Counted(Protocol):
    """The part of a source that the length of a run depends on; every `Source` has it."""

    @property
    def samples(self) -> Samples: ...

    @property
    def visible(self) -> Visible | None: ...


def count_epoch_steps(source: Counted, global_batch: int) -> int:
    """The number of batches of `global_batch` samples (batch_size x world_size) in an epoch."""
    return source.samples.order(global_batch).n_batches


def run_steps(source: Counted, *, epochs: float, global_batch: int, token_budget: int | None = None) -> int:
    """The number of steps of a run of `epochs` epochs.

    With a token budget the batch size depends on the mask's progress and so on the number of steps; the result is the
    smallest number of steps whose batches hold epochs x n_samples samples. Raises ValueError for an impossible budget.
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
    """The source's function of visible tokens; raises ValueError if the source has no mask."""
    if source.visible is None:
        raise ValueError("a token budget counts the visible tokens of a mask, and the source has no mask; give mask=")
    return source.visible
