"""Spectrograms as pictures: time to the right, frequency upwards, and what a mask hides of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .pictures import Grid, UInt8, darken, data_uri
from .tokens import MaskRow, outline_path, runs_path

Floats = npt.NDArray[np.float32]

WIDTH_PX, HEIGHT_PX = 1024, 128
"""What a picture is enlarged to where it is smaller, in whole steps."""
_LOUDEST, _FAINTEST = 99.8, 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrogramView:
    """A spectrogram and its mask, as the templates see them: `data:` addresses, and paths over unit cells of columns of
    time and rows of frequency, the highest first. Without a mask the latter are empty and seen is None.
    """

    picture: str
    seen: str | None
    columns: int
    rows: int
    outline: str = ""
    visible: str = ""
    undecoded: str = ""


def spectrogram_view(values: Floats, grid: Grid, mask: MaskRow | None, n_frames: int) -> SpectrogramView:
    """The spectrogram float32 (T, F), of which the first `n_frames` are sound, with its mask over the (time, freq)
    grid; ValueError where the grid does not cover it.
    """
    (columns, rows), (frames, bins) = grid.shape, grid.patch
    if (columns * frames, rows * bins) != values.shape:
        raise ValueError(f"a grid of {grid.shape} tokens of {grid.patch} does not cover a spectrogram {values.shape}")
    image = loudness_colours(values, *loudness_range(values[: max(n_frames, 1)]))
    if mask is None:
        return SpectrogramView(picture=data_uri(enlarged(image)), seen=None, columns=columns, rows=rows)
    upright = mask.masked.reshape(columns, rows).T[::-1]
    undecoded = (mask.masked & ~mask.targeted).reshape(columns, rows).T[::-1]
    pixels = upright.repeat(bins, axis=0).repeat(frames, axis=1)
    return SpectrogramView(
        picture=data_uri(enlarged(image)),
        seen=data_uri(enlarged(darken(image, pixels))),
        columns=columns,
        rows=rows,
        outline=outline_path(~upright),
        visible=runs_path(~upright),
        undecoded=runs_path(undecoded),
    )


def loudness_range(values: Floats) -> tuple[float, float]:
    """What is drawn black and what brightest."""
    low, high = np.percentile(values, (_FAINTEST, _LOUDEST))
    return float(low), float(high)


def loudness_colours(values: Floats, low: float, high: float) -> UInt8:
    """Values (T, F) from `low` to `high` as colours (F, T, 3), the highest frequency first."""
    level = np.clip((values.T[::-1] - low) / max(high - low, 1e-6), 0, 1)
    coloured = cv2.applyColorMap(np.ascontiguousarray(level * 255).astype(np.uint8), cv2.COLORMAP_MAGMA)
    return np.ascontiguousarray(coloured[..., ::-1]).astype(np.uint8)


def enlarged(image: UInt8) -> UInt8:
    """The picture with whole numbers of pixels a value, so that tokens have sharp edges."""
    height, width = image.shape[:2]
    rows, columns = max(1, HEIGHT_PX // height), max(1, WIDTH_PX // width)
    return np.ascontiguousarray(image.repeat(rows, axis=0).repeat(columns, axis=1))
