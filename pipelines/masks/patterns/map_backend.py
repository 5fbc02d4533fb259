"""What a backend of motion-guided masks computes: numba for single clips on a CPU, torch for batches on any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Numbers = TypeVar("Numbers")
"""Floats of B clips: a list of arrays, or one tensor."""
Hidden = TypeVar("Hidden", covariant=True)
"""The same for bools."""


@dataclass(frozen=True, slots=True)
class MotionDraws:
    """All random numbers of the mask of one view, which are drawn before its flow is known.

    start: float32 (H, W), the map of frame `base`. noise: the time step whose scores get it, and float64 (h * w,); None
    without exposure. visible: how many tokens stay visible in each row of scores. order: int64 (N,), a permutation of
    the tokens of a row, which decides between equal scores. ratio: the share of hidden tokens.
    """

    start: Floats
    base: int
    noise: tuple[int, npt.NDArray[np.float64]] | None
    visible: int
    order: npt.NDArray[np.int64]
    ratio: float


class MapBackend(Protocol[Numbers, Hidden]):
    """The steps of the rule for B clips. Backends agree in every bit, so nothing depends on which one computed a mask.

    All arithmetic is in float32, operation by operation, in the order that the kernels of maps.py have.
    """

    def carry(
        self,
        draws: Sequence[MotionDraws],
        flow: Numbers,
        *,
        cell: tuple[float, float],
        fill: bool,
        compat: bool,
    ) -> Numbers:
        """The start maps carried along the flow, (T-1, h, w, 2) of each clip, to (T, H, W); see `warp.carry`."""

    def token_sums(self, maps: Numbers, tubelet: int, cells: int) -> Numbers:
        """The sums over tokens, (t, h * w) of each clip; see `maps.token_sums`."""

    def disturbed(self, scores: Numbers, draws: Sequence[MotionDraws], scale: float) -> Numbers:
        """The scores times `scale`, plus the noise of each draw."""

    def all_but_highest(self, scores: Numbers, draws: Sequence[MotionDraws], *, whole: bool) -> Hidden:
        """The map that hides all but the highest tokens of each row, or of the `whole` clip: bool (t * h * w,)."""
