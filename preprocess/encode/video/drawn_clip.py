"""Writes drawn frames as a small video without loss, so that they become clips like those of filmed videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from .profile import BLOCK

UInt8s = npt.NDArray[np.uint8]

BACKGROUND = 128
"""The grey level behind transparent pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnClip:
    """Frames uint8 (H, W, 3) or (H, W, 4), RGB or RGBA of any sizes, `fps` a second."""

    frames: Sequence[UInt8s]
    fps: int


def write_clip(frames: Sequence[UInt8s], path: Path, *, fps: int) -> Path:
    """Writes frames uint8 (H, W, 3) or (H, W, 4), RGB or RGBA of any sizes, centred on one canvas whose sides are
    multiples of BLOCK, as FFV1 in Matroska; returns `path`.

    The file appears only when it is complete. An existing file is kept.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (-(-max(frame.shape[axis] for frame in frames) // BLOCK) * BLOCK for axis in (0, 1))
    partial = path.with_name(f".{path.stem}.{os.getpid()}.mkv")
    try:
        with av.open(str(partial), "w", format="matroska", options={"fflags": "+bitexact"}) as out:
            stream = out.add_stream("ffv1", rate=fps)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1
            to_yuv = VideoReformatter()
            for number, frame in enumerate(frames):
                picture = to_yuv.reformat(  # one of all frames: a frame's own sets the scaler up anew, in threads
                    VideoFrame.from_ndarray(on_canvas(frame, height, width), format="rgb24"),
                    format="yuv420p",
                    dst_colorspace=Colorspace.ITU601,
                    dst_color_range=ColorRange.MPEG,
                    threads=1,
                )
                picture.pts, picture.time_base = number, Fraction(1, fps)
                out.mux(stream.encode(picture))
            out.mux(stream.encode(None))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def on_canvas(frame: UInt8s, height: int, width: int) -> UInt8s:
    """The frame uint8 (H, W, 3) or (H, W, 4) in the middle of a grey canvas, uint8 (height, width, 3), RGB."""
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    top, left = (height - frame.shape[0]) // 2, (width - frame.shape[1]) // 2
    alpha = frame[:, :, 3:].astype(np.uint32) if frame.shape[2] == 4 else 255
    colours = frame[:, :, :3].astype(np.uint32) * alpha + BACKGROUND * (255 - alpha)
    canvas[top : top + frame.shape[0], left : left + frame.shape[1]] = (colours + 127) // 255
    return canvas
