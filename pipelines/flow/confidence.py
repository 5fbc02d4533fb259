"""How far the flow of a clip can be trusted, cell by cell."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

CONTRAST = 8.0
"""Levels by which an error is compared in a flat cell, besides the cell's contrast."""


def confidence(
    clip: npt.NDArray[np.uint8], vectors: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """How well the earlier frame, fetched along the flow, explains each cell: float32 (T-1, h, w) in [0, 1].

    clip: uint8 (T, H, W, 3), RGB; vectors and valid as in `ClipFlow`. It is 1 minus the mean difference in grey, as a
    share of the cell's contrast, and 0 where the source had no vector.
    """
    height, width = clip.shape[1:3]
    rows, columns = valid.shape[1:]
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]).astype(np.float32)
    y, x = np.indices((height, width), dtype=np.float32)
    found = np.empty(valid.shape, dtype=np.float32)
    for pair, field in enumerate(vectors):
        dense: Any = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
        moved = cv2.remap(
            grey[pair], x + dense[..., 0], y + dense[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        now = grey[pair + 1]
        mean = cv2.resize(cv2.resize(now, (columns, rows), interpolation=cv2.INTER_AREA), (width, height))
        error, contrast = (
            cv2.resize(np.abs(now - other), (columns, rows), interpolation=cv2.INTER_AREA) for other in (moved, mean)
        )
        found[pair] = np.clip(1 - error / (contrast + CONTRAST), 0, 1) * valid[pair]
    return found
