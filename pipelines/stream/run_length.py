"""The length of a run in steps, computed from the source and the batch size before the loader is made."""

from __future__ import annotations

from math import ceil

from .sampler import BatchT, DraftT, HostT, RequestT
from .source import Source, Visible
from .token_budget import budget_sizes


def epoch_steps(source: Source[RequestT, DraftT, HostT, BatchT], global_batch: int) -> int:
    """The number of batches of `global_batch` samples (batch_size x world_size) in an epoch."""
    return source.samples.order(global_batch).n_batches


def run_steps(
    source: Source[RequestT, DraftT, HostT, BatchT],
    *,
    epochs: float,
    global_batch: int,
    token_budget: int | None = None,
) -> int:
    """The number of steps of a run of `epochs` epochs.

    With a token budget the batch size depends on the mask's progress and so on the number of steps; the result is the
    smallest number of steps whose batches hold epochs x n_samples samples. Raises ValueError for an impossible budget.
    """
    if token_budget is None:
        return round(epochs * epoch_steps(source, global_batch))
    wanted = ceil(epochs * source.samples.n_samples)
    visible = budgeted(source)
    low, high = 0, max(ceil(wanted / global_batch), 1)
    while high - low > 1:
        middle = (low + high) // 2
        shown = int(budget_sizes(visible(middle), token_budget, global_batch).sum())
        low, high = (low, middle) if shown >= wanted else (middle, high)
    return high


def budgeted(source: Source[RequestT, DraftT, HostT, BatchT]) -> Visible:
    """The source's function of visible tokens; raises ValueError if the source has no mask."""
    if source.visible is None:
        raise ValueError("a token budget counts the visible tokens of a mask, and the source has no mask; give mask=")
    return source.visible
