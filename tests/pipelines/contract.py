"""What a loader of any settings promises of its order: the same batches on other ranks, after a stop and by workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

from maskstream.pipelines.stream.loader import Loader

from .small_media import sample_rows

Rows = Callable[[Any], Sequence[Any]]


def join_ranks(loaders: Sequence[Loader[Any]], batches: int, rows: Rows = sample_rows) -> list[list[Any]]:
    """The rows of each global batch: what the ranks give in a step, one after the other."""
    steps = zip(*(islice(loader.repeat(), batches) for loader in loaders), strict=True)
    return [list(chain.from_iterable(map(rows, step))) for step in steps]


def check_relay(
    opened: Callable[..., Loader[Any]],
    rows: Rows = sample_rows,
    *,
    batch_size: int,
    legs: Sequence[tuple[int, int, int]],
    size: str = "batch_size",
    wanted: list[list[Any]] | None = None,
) -> dict[str, Any]:
    """Runs leg after leg, each on other ranks and from the saved state of the one before: the batches of one rank.

    Args:
        opened: Opens the loader with `batch_size=`, `rank=`, `world_size=` and `workers=`.
        rows: The comparable values of each sample of a batch.
        batch_size: Samples of a global batch.
        legs: The ranks of each leg, worker processes of rank 0, and the batch at which it ends.
        size: The keyword argument of the batch size.
        wanted: The batches of one rank without a stop; None makes them.

    Returns:
        The saved state at the end, for tests of what refuses it.
    """
    if wanted is None:
        wanted = join_ranks([opened(**{size: batch_size})], legs[-1][2], rows)
    got: list[list[Any]] = []
    state: dict[str, Any] = {}
    for ranks, workers, end in legs:
        own = {size: batch_size // ranks, "world_size": ranks}
        loaders = [opened(**own, rank=rank, workers=0 if rank else workers) for rank in range(ranks)]
        for loader in loaders:
            if state:
                loader.load_state_dict(state)
        got += join_ranks(loaders, end - len(got), rows)
        assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1
        state = json.loads(json.dumps(loaders[0].state_dict()))
        assert loaders[0].stats().get("sources") == state.get("positions")
        for loader in loaders:
            loader.close()
    assert got == wanted
    assert len({str(batch) for batch in wanted}) == len(wanted) > 1, "batches differ"
    return state


def check_order(
    opened: Callable[..., Loader[Any]],
    rows: Rows = sample_rows,
    *,
    batch_size: int,
    ranks: int = 2,
    workers: int = 0,
    steps: int = 0,
) -> dict[str, Any]:
    """Stops in the middle of a run and continues it on `ranks`, the first of which has worker processes.

    steps: Batches of the run; 0 takes two epochs. The others are those of `check_relay`.
    """
    steps = steps or 2 * len(opened(batch_size=batch_size))
    legs = ((1, 0, steps // 2), (ranks, workers, steps))
    return check_relay(opened, rows, batch_size=batch_size, legs=legs)
