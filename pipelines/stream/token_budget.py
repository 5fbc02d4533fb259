"""Batches whose size follows the masked ratio, so that each holds about as many visible tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..masks.core.base import Mask
from ..masks.core.draw import Draw
from ..masks.core.grid import TokenGrid
from .order import GlobalBatch, Int64Array, Order
from .place import Place, progress_of

_COARSE = 1000  # parts of a run in which a change of the count is looked for


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetOrder:
    """An order whose batch t has as many samples as `budget` visible tokens hold at the ratio of batch t.

    The sizes are the largest multiples of `global_batch` within the budget, at least one; `visible` are the visible
    tokens of a sample at each step of the run, int64 (steps,), and the last of them holds from then on. Samples come in
    the order of `samples`, epoch after epoch without a gap, so a run is one epoch of `steps` batches here.
    Source: DiffMAViL (adaptive batch size with a masking ratio curriculum).
    """

    samples: Order
    budget: int
    global_batch: int
    visible: Int64Array
    starts: Int64Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.budget < int(self.visible.max()) * self.global_batch:
            raise ValueError(
                f"a token budget of {self.budget} does not hold the smallest batch: {self.global_batch} samples "
                f"(batch_size x world_size) of up to {self.visible.max()} visible tokens"
            )
        object.__setattr__(self, "starts", np.concatenate([[0], np.cumsum(self.sizes())]))

    @property
    def n_batches(self) -> int:
        """Batches in a run."""
        return len(self.visible)

    @property
    def shuffle(self) -> bool:
        """It is always shuffled."""
        return True

    def sizes(self) -> Int64Array:
        """Samples of each batch of the run over all ranks, int64 (steps,)."""
        sizes: Int64Array = self.budget // (self.visible * self.global_batch) * self.global_batch
        return sizes

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """The batches of a run from number `first` on; those of a later epoch go on where it ended, at its last
        size.
        """
        loaded: tuple[int, Int64Array] = (-1, np.empty(0, np.int64))
        for step in range(epoch * self.n_batches + first, (epoch + 1) * self.n_batches):
            begin, end = self._start(step), self._start(step + 1)
            indexes, epochs = [], []
            while begin < end:
                number, at = divmod(begin, self.samples.n_batches)
                if loaded[0] != number:
                    loaded = (number, self.samples.epoch(number))
                indexes.append(loaded[1][at : at + end - begin])
                epochs.append(np.full(len(indexes[-1]), number, np.int64))
                begin += len(indexes[-1])
            yield GlobalBatch(indexes=np.concatenate(indexes), epochs=np.concatenate(epochs))

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A sample in place of `index`."""
        return self.samples.reserve(index, rng)

    def identity(self) -> dict[str, Any]:
        """What a saved position depends on, JSON-able."""
        return {**self.samples.identity(), "global_batch": self.global_batch, "token_budget": self.budget}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """The state when a batch begins, and in which epoch of the samples that is."""
        done = self._start(epoch * self.n_batches + batch)
        return {"epoch": epoch, "batch": batch, "sample_epoch": done // self.samples.n_batches}

    def _start(self, step: int) -> int:
        """Samples before batch `step`."""
        beyond = max(step - self.n_batches, 0)
        return int(self.starts[step - beyond]) + beyond * int(self.starts[-1] - self.starts[-2])


def budget_order(
    order: Order, mask: Mask | None, grid: TokenGrid | None, budget: int, steps: int | None
) -> BudgetOrder:
    """The order of `order`'s samples in batches of `budget` visible tokens.

    ValueError where the number of visible tokens is not a function of the progress alone, or the run's length unknown.
    """
    if mask is None or grid is None or steps is None:
        raise ValueError(
            f"a token budget needs mask= and steps=, the length of the run, got mask={mask}, steps={steps}"
        )
    if mask.needs:
        raise ValueError(f"a token budget is for masks without cues, and {mask} needs {', '.join(sorted(mask.needs))}")
    if not order.shuffle or order.lanes > 1:
        raise ValueError("a token budget makes batches of changing size: it needs shuffle=True and lanes=1")
    return BudgetOrder(
        samples=replace(order, global_batch=1),
        budget=budget,
        global_batch=order.global_batch,
        visible=visible_by_step(mask, grid, steps),
    )


def visible_by_step(mask: Mask, grid: TokenGrid, steps: int) -> Int64Array:
    """The visible tokens of a sample at each step of a run, int64 (steps,).

    It is looked up at a thousand steps and between those that differ: a schedule is smooth.
    """

    def count(step: int) -> int:
        place = Place(step=step, progress=progress_of(step, steps))
        rngs = [np.random.Generator(np.random.Philox(key=[k, 0])) for k in range(2)]
        one, two = (int((~mask.hide(grid, Draw(rng=rng, place=place))).sum()) for rng in rngs)
        if one != two:
            raise ValueError(f"a token budget needs as many visible tokens in every sample; {mask} draws how many")
        if one == 0:
            raise ValueError(f"a token budget needs visible tokens, and {mask} hides all {grid.size}")
        return one

    known = {int(step): count(int(step)) for step in np.unique(np.linspace(0, steps - 1, _COARSE).round())}
    changes = sorted(known)
    for low, high in pairwise(changes):
        _refine(known, low, high, count)
    at = sorted(known)
    return np.array([known[at[bisect_right(at, step) - 1]] for step in range(steps)], dtype=np.int64)


def _refine(known: dict[int, int], low: int, high: int, count: Callable[[int], int]) -> None:
    """Looks up the steps between two until neighbours are equal or adjacent."""
    if known[low] == known[high] or high - low < 2:
        return
    middle = (low + high) // 2
    known[middle] = count(middle)
    _refine(known, low, middle, count)
    _refine(known, middle, high, count)
