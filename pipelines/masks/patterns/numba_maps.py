"""The backend of motion-guided masks on a CPU: compiled loops, clip by clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .map_backend import Floats, MotionDraws
from .maps import all_but_highest, token_sums
from .warp import carry


class NumbaMaps:
    """`MapBackend` for lists of arrays."""

    def carry(
        self,
        draws: Sequence[MotionDraws],
        flow: list[Floats],
        *,
        cell: tuple[float, float],
        fill: bool,
        compat: bool,
    ) -> list[Floats]:
        """The start maps carried along the flow."""
        pairs = zip(draws, flow, strict=True)
        return [carry(own.start, field, own.base, cell=cell, fill=fill, compat=compat) for own, field in pairs]

    def token_sums(self, maps: list[Floats], tubelet: int, cells: int) -> list[Floats]:
        """The sums over tokens."""
        return [token_sums(own, tubelet, cells) for own in maps]

    def disturbed(self, scores: list[Floats], draws: Sequence[MotionDraws], scale: float) -> list[Floats]:
        """The scores times `scale`, plus the noise."""
        for own, drawn in zip(scores, draws, strict=True):
            own *= np.float32(scale)
            if drawn.noise is not None:
                own[drawn.noise[0]] += drawn.noise[1]
        return scores

    def all_but_highest(
        self, scores: list[Floats], draws: Sequence[MotionDraws], *, whole: bool
    ) -> list[npt.NDArray[np.bool_]]:
        """The maps of hidden tokens."""
        return [
            all_but_highest(own.reshape(1, -1) if whole else own, drawn.visible, drawn.order).reshape(-1)
            for own, drawn in zip(scores, draws, strict=True)
        ]
