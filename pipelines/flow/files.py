"""Flow in the files of others: Middlebury's .flo, and the 16-bit PNG of KITTI.

Both hold one field (h, w, 2), x then y, in pixels of a picture of h x w pixels. A field on a coarser grid may be
written too; its vectors are as they are, in pixels of the clip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

_STEPS, _ZERO = 64.0, 1 << 15
"""KITTI's steps of 1/64 pixel, and the value of 0."""
LIMIT_PX = ((1 << 16) - 1 - _ZERO) / _STEPS
"""The longest component that KITTI's PNG holds."""


def write_flo(path: str | Path, vectors: Float) -> None:
    """Writes a field (h, w, 2) as .flo, exactly. Raises OSError if it cannot be written."""
    _check(vectors)
    if not cv2.writeOpticalFlow(str(path), np.ascontiguousarray(vectors, dtype=np.float32)):
        raise OSError(f"{path} cannot be written; check its folder")


def read_flo(path: str | Path) -> Float:
    """The field of a .flo, float32 (h, w, 2). Raises OSError if it is none."""
    found: Any = cv2.readOpticalFlow(str(path))
    if found is None or found.ndim != 3:
        raise OSError(f"{path} is no .flo that can be read")
    return np.asarray(found, dtype=np.float32)


def write_kitti(path: str | Path, vectors: Float, valid: Bool | None = None) -> None:
    """Writes a field (h, w, 2) and its valid cells (h, w) as KITTI's PNG, in steps of 1/64 pixel.

    Raises ValueError for a valid vector longer than LIMIT_PX along an axis, OSError if the file cannot be written.
    """
    _check(vectors)
    good = np.ones(vectors.shape[:2], dtype=np.bool_) if valid is None else valid
    steps = np.rint(np.where(good[..., None], vectors, 0.0) * _STEPS) + _ZERO
    if not ((steps >= 0) & (steps < 1 << 16)).all():
        longest = np.abs(np.where(good[..., None], vectors, 0.0)).max()
        raise ValueError(
            f"KITTI's PNG holds up to {LIMIT_PX:.1f} pixels along an axis, got {longest:.1f}; mark longer vectors as "
            "not valid"
        )
    planes = np.dstack([good, steps[..., 1], steps[..., 0]]).astype(np.uint16)  # blue, green, red
    if not (str(path).endswith(".png") and cv2.imwrite(str(path), planes)):
        raise OSError(f"{path} cannot be written; its name ends with .png and its folder exists")


def read_kitti(path: str | Path) -> tuple[Float, Bool]:
    """The field of KITTI's PNG, float32 (h, w, 2), and its valid cells, bool (h, w); others are 0."""
    planes: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if planes is None or planes.dtype != np.uint16 or planes.ndim != 3:
        raise OSError(f"{path} is no PNG of KITTI's flow that can be read, with 16 bits and three channels")
    good = planes[..., 0] > 0
    vectors = (planes[..., :0:-1].astype(np.float32) - _ZERO) / np.float32(_STEPS)
    return np.where(good[..., None], vectors, np.float32(0)), good


def _check(vectors: Float) -> None:
    if vectors.ndim != 3 or vectors.shape[2] != 2:
        raise ValueError(f"a file holds one field (h, w, 2), x then y, got the shape {vectors.shape}")
