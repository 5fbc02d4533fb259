"""Batches whose size follows the mask ratio, so that all hold about the same number of visible tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .order import GlobalBatch, Int64Array
from .samples import Stream


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
        return budget_sizes(self.visible, self.budget, self.global_batch)

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


def budget_sizes(visible: Int64Array, budget: int, global_batch: int) -> Int64Array:
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
