"""Flow as colours, and in file formats of benchmarks: Middlebury's .flo and KITTI's 16-bit PNG.

In colours, hue is the direction of motion, saturation its length, and white is rest. Both formats hold one field (h, w,
2), x then y, in pixels of an image of h x w pixels. A field on a coarser grid may be written too; its vectors are
stored unchanged, in pixels of the clip.
"""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskstream.shards.arrays import Bools, Float32s, UInt8s

NICE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
MIN_SCALE_PX = 1.0
UNKNOWN = 128


def flow_to_image(vectors: Float32s, valid: Bools | None = None, *, scale_px: float | None = None) -> UInt8s:
    """Convert backward flow (..., h, w, 2), x then y, to RGB uint8 (..., h, w, 3) that shows the motion `-vectors`.

    For example, `batch.flow.vectors[i].cpu().numpy()` is such a field.

    Args:
        vectors: float32 (..., h, w, 2).
        valid: bool (..., h, w); cells where it is False are grey.
        scale_px: Length in pixels that is drawn fully saturated; by default `choose_flow_scale` of all vectors.
    """
    if vectors.shape[-1:] != (2,):
        raise ValueError(f"flow must have x and y in its last axis, (..., h, w, 2), got the shape {vectors.shape}")
    good = usable(vectors, np.ones(vectors.shape[:-1], dtype=np.bool_) if valid is None else valid)
    scale = choose_flow_scale(vectors, good) if scale_px is None else scale_px
    colours = paint_motion(np.where(good[..., None], -vectors, 0.0).astype(np.float32), scale)
    return np.where(good[..., None], colours, np.uint8(UNKNOWN))


def usable(vectors: Float32s, valid: Bools) -> Bools:
    """Return where `vectors` (..., 2) are finite and come from the source."""
    return valid & np.isfinite(vectors).all(-1)


def choose_flow_scale(vectors: Float32s, valid: Bools) -> float:
    """Choose the length in pixels that is drawn fully saturated.

    This is the 99th percentile of usable vector lengths, rounded up to a round number, and at least 1 px, so that noise
    in a still clip stays pale.
    """
    lengths = np.linalg.norm(vectors[usable(vectors, valid)].astype(np.float64), axis=-1)
    top = max(float(np.percentile(lengths, 99)) if lengths.size else 0.0, MIN_SCALE_PX)
    power = 10.0 ** math.floor(math.log10(top))
    return next(s for s in NICE_STEPS if s * power >= top * (1 - 1e-9)) * power


def paint_motion(motion: Float32s, scale_px: float) -> UInt8s:
    """Convert motion (..., 2), x then y (downwards) in pixels, to RGB (..., 3).

    Right is red, down is yellow-green, left is cyan, up is violet; `scale_px` and longer is fully saturated.
    """
    x, y = motion[..., 0].astype(np.float64), motion[..., 1].astype(np.float64)
    hue = np.arctan2(y, x) / (2 * math.pi) % 1.0 * 6.0
    saturation = np.minimum(np.hypot(x, y) / scale_px, 1.0)
    # Each channel falls from 1 with the hue's distance to it: HSV with value 1.
    distance = np.stack([np.abs((hue - offset + 3.0) % 6.0 - 3.0) for offset in (0.0, 2.0, 4.0)], axis=-1)
    channel = np.clip(2.0 - distance, 0.0, 1.0)
    return np.rint(255.0 * (1.0 - saturation[..., None] * (1.0 - channel))).astype(np.uint8)


_STEPS, _ZERO = 64.0, 1 << 15
"""KITTI's resolution of 1/64 pixel, and the stored value of 0."""
LIMIT_PX = ((1 << 16) - 1 - _ZERO) / _STEPS
"""Longest component that KITTI's PNG can store."""


def write_flo(path: str | Path, vectors: Float32s) -> None:
    """Write a field (h, w, 2) as .flo, losslessly.

    Raises:
        OSError: The file cannot be written.
    """
    _check(vectors)
    if not cv2.writeOpticalFlow(str(path), np.ascontiguousarray(vectors, dtype=np.float32)):
        raise OSError(f"{path} cannot be written; check its folder")


def read_flo(path: str | Path) -> Float32s:
    """Read a .flo file, float32 (h, w, 2).

    Raises:
        OSError: The file is not a .flo file.
    """
    found: Any = cv2.readOpticalFlow(str(path))
    if found is None or found.ndim != 3:
        raise OSError(f"{path} is not a readable .flo file")
    return np.asarray(found, dtype=np.float32)


def write_kitti(path: str | Path, vectors: Float32s, valid: Bools | None = None) -> None:
    """Write a field (h, w, 2) and its valid cells (h, w) as KITTI's PNG, with a resolution of 1/64 pixel.

    Raises:
        ValueError: A valid vector is longer than LIMIT_PX along an axis.
        OSError: The file cannot be written.
    """
    _check(vectors)
    good = np.ones(vectors.shape[:2], dtype=np.bool_) if valid is None else valid
    steps = np.rint(np.where(good[..., None], vectors, 0.0) * _STEPS) + _ZERO
    if not ((steps >= 0) & (steps < 1 << 16)).all():
        longest = np.abs(np.where(good[..., None], vectors, 0.0)).max()
        raise ValueError(
            f"KITTI's PNG format holds vectors of up to {LIMIT_PX:.1f} pixels along an axis, got "
            f"{longest:.1f}; mark longer vectors as invalid"
        )
    planes = np.dstack([good, steps[..., 1], steps[..., 0]]).astype(np.uint16)  # blue, green, red
    if not (str(path).endswith(".png") and cv2.imwrite(str(path), planes)):
        raise OSError(f"{path} cannot be written; its name must end with .png and its folder must exist")


def read_kitti(path: str | Path) -> tuple[Float32s, Bools]:
    """Read KITTI's PNG: the field, float32 (h, w, 2), and its valid cells, bool (h, w); other cells are 0."""
    planes: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if planes is None or planes.dtype != np.uint16 or planes.ndim != 3:
        raise OSError(f"{path} is not a readable KITTI flow PNG (16 bits, three channels)")
    good = planes[..., 0] > 0
    vectors = (planes[..., :0:-1].astype(np.float32) - _ZERO) / np.float32(_STEPS)
    return np.where(good[..., None], vectors, np.float32(0)), good


def _check(vectors: Float32s) -> None:
    if vectors.ndim != 3 or vectors.shape[2] != 2:
        raise ValueError(f"a file must contain one flow field (h, w, 2), x then y, got the shape {vectors.shape}")
