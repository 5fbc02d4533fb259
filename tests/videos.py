"""Videos of frames that a test has drawn."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt

File = TypeVar("File", Path, io.BytesIO)


def write_frames(
    file: File,
    frames: Iterable[npt.NDArray[np.uint8]],
    codec: str = "libx264",
    *,
    rate: int = 30,
    pixels: str = "yuv420p",
    form: str = "rgb24",
    options: dict[str, str] | None = None,
    muxer: dict[str, Any] | None = None,
) -> File:
    """Encode frames, uint8 (H, W, 3).

    Args:
        file: Where to write; memory needs a format in `muxer`.
        frames: The frames in their order.
        codec: The encoder.
        rate: Frames a second.
        pixels: The format of the encoded pixels.
        form: The format of the frames.
        options: Options of the encoder.
        muxer: Keyword arguments of `av.open`.
    """
    with av.open(str(file) if isinstance(file, Path) else file, "w", **(muxer or {})) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        for number, frame in enumerate(frames):
            if number == 0:
                (stream.height, stream.width), stream.pix_fmt = frame.shape[:2], pixels
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=form)))
        container.mux(stream.encode(None))
    return file
