"""What all sources of flow share: the flow of one clip, its grid, and how holes in it are filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..batch import Flow


class ClipFlow(NamedTuple):
    """Backward flow of one clip, as in `Flow` but without the batch.

    vectors: float32 (T-1, h, w, 2), x then y, in pixels of the output clip: what is at pixel p of frame t+1 was at
    p + vectors[t] of frame t. valid: bool (T-1, h, w), False where `vectors` is a substitute.
    """

    vectors: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


def stack_flow(clips: Sequence[ClipFlow]) -> Flow:
    """The Flow of a batch, from the flow of its clips, which all have one shape."""
    return Flow(
        vectors=torch.from_numpy(np.stack([clip.vectors for clip in clips])),
        valid=torch.from_numpy(np.stack([clip.valid for clip in clips])),
    )


def grid_shape(height: int, width: int, cell: int) -> tuple[int, int]:
    """Rows and columns of the flow grid of a frame of height x width pixels, in cells of about `cell` pixels."""
    if cell < 1:
        raise ValueError(f"cell is the side of a flow cell in pixels, at least 1, got {cell}")
    return max(round(height / cell), 1), max(round(width / cell), 1)


def fill_holes(vectors: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """`vectors` (K, h, w, 2) with the cells where `valid` (K, h, w) is False replaced by their neighbours' mean.

    The mean is that of the valid cells in the smallest box around the cell that holds one, of radius 1, 2, 4, ... A
    field without a valid cell becomes 0.
    """
    from .cells import fill

    filled = np.array(vectors, dtype=np.float32, order="C")
    _, height, width = valid.shape
    sums = np.zeros((height + 1, width + 1, 3))
    for field, known in zip(filled, np.require(valid, np.bool_, ["C", "W"]), strict=True):
        fill(field, known, sums)
    return filled
