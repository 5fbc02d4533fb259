"""Computes the flow into the first frame of each GOP, which has no motion vectors (shards/media/key_flow.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.shards.media.key_flow import CELL, DISTANCE, LIMIT, QUARTERS, KeyFlow, grid_of

from .scene_cuts import halved

Plane = npt.NDArray[Any]
_LEAST_SIDE = 12
"""The least side of a half-size plane that DIS takes."""
_CONTRAST = 8.0
"""Levels by which an error is compared in a flat cell, besides the cell's contrast."""


@dataclass(slots=True)
class KeyFlows:
    """The flows of a video, from its frames in display order.

    first: the numbers of the frames that start a GOP. Each is compared with the frame DISTANCE before it, both at half
    size. Searching the whole would be a quarter more exact (0.21 instead of 0.28 px on known motion) and cost ten times
    as much: half as much as encoding the video.
    """

    first: frozenset[int]
    found: dict[int, KeyFlow] = field(default_factory=dict)
    _earlier: dict[int, Plane] = field(default_factory=dict)

    def add(self, number: int, luma: Plane) -> None:
        """The next frame's Y plane, uint8 (H, W)."""
        if min(luma.shape) < 2 * _LEAST_SIDE:
            return
        if number in self.first and (earlier := self._earlier.pop(number - DISTANCE, None)) is not None:
            self.found[number] = key_flow(number, halved(luma), earlier)
        if number + DISTANCE in self.first:
            self._earlier[number] = halved(luma)


def key_flow(number: int, later: Plane, earlier: Plane) -> KeyFlow:
    """The flow of half-size luma uint8 (H, W) `later`, frame `number`, back to `earlier`."""
    dense = _search(later, earlier)
    y, x = np.indices(later.shape, dtype=np.float32)
    moved = cv2.remap(earlier, x + dense[..., 0], y + dense[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    now = later.astype(np.float32)
    mean = cv2.resize(_on_cells(now), later.shape[::-1], interpolation=cv2.INTER_LINEAR)
    error, contrast = (_on_cells(np.abs(now - other)) for other in (moved, mean))
    kept = np.clip(1 - error / (contrast + _CONTRAST), 0, 1)
    vectors = np.rint(2 * QUARTERS * _on_cells(dense).transpose(2, 0, 1))
    kept = np.where((np.abs(vectors) <= LIMIT).all(0), kept, 0)
    return KeyFlow(
        frame=number,
        vectors=np.clip(vectors, -LIMIT, LIMIT).astype(np.int8),
        kept=np.rint(255 * kept).astype(np.uint8),
    )


def _search(later: Plane, earlier: Plane) -> Plane:
    """The flow float32 (H, W, 2) of a plane uint8 (H, W), by OpenCV's DIS.

    The settings are those of its preset `medium` with a patch on every 5th pixel, 6 steps a patch and 2 rounds of
    refinement: as exact on the scenes of benchmarks/flow_scenes.py (0.28 px), at two fifths of the cost.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setPatchStride(5)
    search.setGradientDescentIterations(6)
    search.setVariationalRefinementIterations(2)
    return np.asarray(search.calc(later, earlier, None))  # type: ignore[call-overload]


def _on_cells(plane: Plane) -> Plane:
    """The mean of each cell of a half-size plane (H, W) or (H, W, 2), whose border is repeated to whole cells."""
    height, width = plane.shape[:2]
    rows, columns = grid_of(2 * width, 2 * height)
    down, across = rows * CELL // 2 - height, columns * CELL // 2 - width
    whole = cv2.copyMakeBorder(plane, 0, down, 0, across, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA))
