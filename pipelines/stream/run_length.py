"""The length of a run in steps, computed from the source and the batch size before the loader is made.

With a token budget, batch sizes depend on step / steps, so the smallest number of steps that shows every sample is
searched for.
"""

from __future__ import annotations

from math import ceil
from typing import Protocol

from .samples import Samples
from .source import Visible
from .token_budget import budget_sizes

_FIRST = 1000
"""The number of steps whose samples are counted first."""


class Counted(Protocol):
    """The part of a source that the length of a run depends on; every `Source` has it."""

    @property
    def samples(self) -> Samples: ...

    @property
    def visible(self) -> Visible | None: ...


def epoch_steps(source: Counted, global_batch: int) -> int:
    """The number of batches of `global_batch` samples (batch_size x world_size) in an epoch."""
    return source.samples.order(global_batch).n_batches


def run_steps(source: Counted, *, epochs: float, global_batch: int, token_budget: int | None = None) -> int:
    """The number of steps of a run of `epochs` epochs.

    With a token budget the batch size depends on the mask's progress and so on the number of steps; the result is the
    smallest number of steps whose batches hold epochs x n_samples samples. Raises ValueError for an impossible budget.
    """
    if token_budget is None:
        return round(epochs * epoch_steps(source, global_batch))
    wanted = ceil(epochs * source.samples.n_samples)
    visible = budgeted(source)
    low, high = 0, max(ceil(wanted / global_batch), 1)
    steps = _FIRST
    while high - low > 1:
        steps = min(max(steps, low + 1), high - 1)
        shown = int(budget_sizes(visible(steps), token_budget, global_batch).sum())
        low, high = (low, steps) if shown >= wanted else (steps, high)
        steps = round(steps * wanted / shown)  # the mean size hardly depends on the number of steps
    return high


def budgeted(source: Counted) -> Visible:
    """The source's function of visible tokens; raises ValueError if the source has no mask."""
    if source.visible is None:
        raise ValueError("a token budget counts the visible tokens of a mask, and the source has no mask; give mask=")
    return source.visible
