"""Number of visible tokens at each step of a run, for masks whose count depends only on the step."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from maskstream.pipelines.stream.rng import Place, run_progress
from maskstream.shards.arrays import Int64s

from .base import Mask
from .draw import Draw, TokenGrid

_COARSE = 1000  # steps evaluated before bisection


@dataclass(frozen=True, kw_only=True, slots=True)
class VisibleTokens:
    """Count the visible tokens of all parts of a sample."""

    parts: tuple[tuple[Mask | None, TokenGrid], ...]
    """Mask and grid of each part; a None mask means that all tokens are visible."""

    def __call__(self, steps: int) -> Int64s:
        """Return the number of visible tokens of a sample at each step of a run, int64 (steps,).

        The count is evaluated at a thousand steps and refined by bisection where neighbours differ, since schedules are
        smooth.

        Raises:
            ValueError: A mask reads inputs of the sample or draws its count, or no token is visible.
        """
        for mask, _ in self.parts:
            if mask is not None and mask.needs:
                raise ValueError(
                    f"a token budget requires masks that need no inputs, but {mask} needs "
                    f"{', '.join(sorted(mask.needs))}"
                )
        known = {
            int(step): self._count(int(step), steps) for step in np.unique(np.linspace(0, steps - 1, _COARSE).round())
        }
        for low, high in pairwise(sorted(known)):
            _refine(known, low, high, lambda step: self._count(step, steps))
        at = sorted(known)
        return np.repeat([known[step] for step in at], np.diff([*at, steps]))

    def _count(self, step: int, steps: int) -> int:
        place = Place(step=step, progress=run_progress(step, steps))
        one, two = (
            sum(grid.size if mask is None else _count_visible(mask, grid, place, key) for mask, grid in self.parts)
            for key in range(2)
        )
        masks = " and ".join(str(mask) for mask, _ in self.parts if mask is not None)
        if one != two:
            raise ValueError(
                f"a token budget requires the same number of visible tokens per sample, but {masks} draws a random one"
            )
        if one == 0:
            size = sum(grid.size for _, grid in self.parts)
            raise ValueError(f"a token budget requires visible tokens, but {masks} hides all {size}")
        return one


def visible_tokens(*parts: tuple[Mask | None, TokenGrid]) -> VisibleTokens | None:
    """Build the counter for samples with these parts; None if no part has a mask."""
    return None if all(mask is None for mask, _ in parts) else VisibleTokens(parts=parts)


def _count_visible(mask: Mask, grid: TokenGrid, place: Place, key: int) -> int:
    rng = np.random.Generator(np.random.Philox(key=[key, 0]))
    return int((~mask.hide(grid, Draw(rng=rng, place=place))).sum())


def _refine(known: dict[int, int], low: int, high: int, count: Callable[[int], int]) -> None:
    """Evaluate steps between two known ones until neighbours are equal or adjacent."""
    if known[low] == known[high] or high - low < 2:
        return
    middle = (low + high) // 2
    known[middle] = count(middle)
    _refine(known, low, middle, count)
    _refine(known, middle, high, count)
