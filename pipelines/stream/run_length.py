"""How long a run is in steps, which the loader has to be told: a function of the source and of the batches' size."""

from __future__ import annotations

from math import ceil

from .sampler import BatchT, DraftT, HostT, RequestT
from .source import Source, Visible
from .token_budget import budget_sizes


def epoch_steps(source: Source[RequestT, DraftT, HostT, BatchT], global_batch: int) -> int:
    """Batches of `global_batch` samples (batch_size x world_size) in an epoch."""
    return source.samples.order(global_batch).n_batches


def run_steps(
    source: Source[RequestT, DraftT, HostT, BatchT],
    *,
    epochs: float,
    global_batch: int,
    token_budget: int | None = None,
) -> int:
    """The steps of a run of `epochs` epochs.

    With a token budget the size of a batch follows from the mask's progress, and so from the number of steps: they are
    the fewest whose batches hold epochs x n_samples samples. ValueError where the budget or the source cannot do that.
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
    """What says how many tokens of a sample are visible; ValueError where the source has no mask."""
    if source.visible is None:
        raise ValueError("a token budget counts the visible tokens of a mask, and there is none; give mask=")
    return source.visible
