"""Flow computed from pixels by OpenCV's dense inverse search (DIS)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from maskstream.shards.arrays import UInt8s

from .base import ClipFlow, grid_shape

if TYPE_CHECKING:
    import cv2

Preset = Literal["ultrafast", "fast", "medium"]

_LEAST_SIDE = 12
_USUAL_SIDE = 64
_kept = threading.local()


def dis_flow(clip: UInt8s, *, cell: int = 8, preset: Preset = "ultrafast", scale: float | None = None) -> ClipFlow:
    """Compute the backward flow of a clip, averaged over cells of about `cell` x `cell` pixels. Thread-safe.

    Every cell is valid. Source: Kroeger et al. 2016.

    Args:
        clip: uint8 (T, H, W, 3), RGB.
        cell: Side of a cell in pixels.
        preset: OpenCV's preset.
        scale: Finest search level as a fraction of the clip's size; None is 64 pixels on the shorter side, the best on
            clips with known flow. OpenCV's presets use 0.5 ("medium") or 0.25.

    Raises:
        ValueError: The preset is unknown, the scale is outside (0, 1], or frames are too small for the search.
    """
    import cv2

    check_search(preset, scale)
    frames, height, width, _ = clip.shape
    work = min(_USUAL_SIDE / min(height, width), 1.0) if scale is None else scale
    work_height, work_width = round(height * work), round(width * work)
    if min(work_height, work_width) < _LEAST_SIDE:
        raise ValueError(
            f"frames of {width} x {height} at scale {scale} are less than {_LEAST_SIDE} pixels wide or high; "
            "use a larger scale or larger frames"
        )
    rows, columns = grid_shape(height, width, cell)
    vectors = np.empty((frames - 1, rows, columns, 2), dtype=np.float32)
    search = _keep_search(preset)
    before: Any = None
    for t, frame in enumerate(clip):
        grey = _shrink_frame(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), work_height, work_width)
        if t:
            dense = search.calc(grey, before, None)  # type: ignore[call-overload]
            vectors[t - 1] = cv2.resize(dense, (columns, rows), interpolation=cv2.INTER_AREA)
        before = grey
    vectors[..., 0] *= width / work_width
    vectors[..., 1] *= height / work_height
    return ClipFlow(vectors, np.ones(vectors.shape[:-1], dtype=np.bool_))


def check_search(preset: str, scale: float | None) -> None:
    """Raise ValueError for settings that `dis_flow` does not support."""
    if preset not in (presets := get_args(Preset)):
        raise ValueError(f"preset must be one of {', '.join(presets)}, got {preset!r}")
    if scale is not None and not 0 < scale <= 1:
        raise ValueError(
            f"scale (the finest level, as a fraction of the clip's size) must be in (0, 1] or None, got {scale}"
        )


def _keep_search(preset: Preset) -> cv2.DISOpticalFlow:
    """Return this thread's search with full resolution as its finest level; creating one costs a third of a pair's
    flow.

    OpenCV changes a search's settings only for frames smaller than its finest level.
    """
    search: cv2.DISOpticalFlow | None = getattr(_kept, preset, None)
    if search is None:
        import cv2

        search = cv2.DISOpticalFlow.create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
        search.setFinestScale(0)
        setattr(_kept, preset, search)
    return search


def _shrink_frame(grey: UInt8s, height: int, width: int) -> Any:
    """Downsample a frame by area averaging, starting with exact halvings, which OpenCV does much faster."""
    import cv2

    while grey.shape[0] % 2 == grey.shape[1] % 2 == 0 and grey.shape[0] >= 2 * height and grey.shape[1] >= 2 * width:
        half = (grey.shape[1] // 2, grey.shape[0] // 2)
        grey = cv2.resize(grey, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
