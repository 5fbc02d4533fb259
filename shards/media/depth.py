"""Decoded depth frames as numbers."""

import numpy as np
from av.video.frame import VideoFrame

from maskstream.shards.arrays import UInt16s
from maskstream.shards.errors import DataError

DEPTH_FORMAT = "gray16le"
"""FFmpeg's name of 16-bit grey; each value is a number of millimetres."""


def read_depth(frame: VideoFrame) -> UInt16s:
    """Return depth in millimetres along the camera's axis, 0 where it is unknown: uint16 (H, W). The array shares the
    frame's memory.

    Raises DataError for a frame of another format.
    """
    if frame.format.name != DEPTH_FORMAT:
        raise DataError(f"has frames in {frame.format.name}; depth must be {DEPTH_FORMAT}")
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), "<u2").reshape(-1, plane.line_size // 2)
    return rows[: frame.height, : frame.width]
