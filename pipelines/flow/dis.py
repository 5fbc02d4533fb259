"""Flow computed from the pixels, by OpenCV's dense inverse search."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from .base import ClipFlow, grid_shape

Preset = Literal["ultrafast", "fast", "medium"]

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
_LEAST_SIDE = 12


def dis_flow(
    clip: npt.NDArray[np.uint8], *, cell: int = 8, preset: Preset = "ultrafast", scale: float = 0.5
) -> ClipFlow:
    """Backward flow of `clip` uint8 (T, H, W, 3), RGB, averaged over cells of about `cell` x `cell` pixels.

    It is computed on grey frames of `scale` times the clip's size, which quarters the cost at 0.5 and is less exact
    where motion is small. Every cell is valid. Safe to call from many threads at once. Raises ValueError for another
    preset, for a scale outside (0, 1], and for frames that are too small for the search. Source: Kroeger et al. 2016.
    """
    if preset not in _PRESETS:
        raise ValueError(f"preset is one of {', '.join(_PRESETS)}, got {preset!r}")
    if not 0 < scale <= 1:
        raise ValueError(f"scale is the working size as a share of the clip's, in (0, 1], got {scale}")
    frames, height, width, _ = clip.shape
    work_height, work_width = round(height * scale), round(width * scale)
    if min(work_height, work_width) < _LEAST_SIDE:
        raise ValueError(
            f"frames of {width} x {height} at scale {scale} are less than {_LEAST_SIDE} pixels wide or high; "
            "use a larger scale or larger frames"
        )
    rows, columns = grid_shape(height, width, cell)
    vectors = np.empty((frames - 1, rows, columns, 2), dtype=np.float32)
    search = cv2.DISOpticalFlow.create(_PRESETS[preset])
    before: Any = None
    for t, frame in enumerate(clip):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, (work_width, work_height), interpolation=cv2.INTER_AREA)
        if t:
            dense = search.calc(grey, before, None)  # type: ignore[call-overload]
            vectors[t - 1] = cv2.resize(dense, (columns, rows), interpolation=cv2.INTER_AREA)
        before = grey
    vectors[..., 0] *= width / work_width
    vectors[..., 1] *= height / work_height
    return ClipFlow(vectors, np.ones(vectors.shape[:-1], dtype=np.bool_))
