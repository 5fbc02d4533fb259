"""A cloud as a file has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Cloud:
    """Points float64 (N, columns), x, y, z first; `columns` names them; `n_dropped` were noise.

    Coordinates of a survey, millions of metres from their origin, lose their last centimetres in float32 (points.py
    moves them first).
    """

    points: npt.NDArray[np.float64]
    columns: tuple[str, ...]
    n_dropped: int = 0
