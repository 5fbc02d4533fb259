"""Flow as colours: hue is the direction of motion, saturation its length, white is rest."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
UInt8 = npt.NDArray[np.uint8]

NICE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
MIN_SCALE_PX = 1.0
UNKNOWN = 128


def flow_to_image(vectors: Float, valid: Bool | None = None, *, scale_px: float | None = None) -> UInt8:
    """Backward flow (..., h, w, 2), x then y, as RGB uint8 (..., h, w, 3) of where things moved, which is `-vectors`.

    valid: bool (..., h, w); cells where it is False are grey. scale_px: the length in pixels that is drawn in full
    colour; by default `flow_scale` of all vectors. `batch.flow.vectors[i].cpu().numpy()` is such a field.
    """
    if vectors.shape[-1:] != (2,):
        raise ValueError(f"flow has x and y in its last axis, (..., h, w, 2), got the shape {vectors.shape}")
    good = usable(vectors, np.ones(vectors.shape[:-1], dtype=np.bool_) if valid is None else valid)
    scale = flow_scale(vectors, good) if scale_px is None else scale_px
    colours = motion_colours(np.where(good[..., None], -vectors, 0.0).astype(np.float32), scale)
    return np.where(good[..., None], colours, np.uint8(UNKNOWN))


def usable(vectors: Float, valid: Bool) -> Bool:
    """Where `vectors` (..., 2) hold a finite vector that the source really had."""
    return valid & np.isfinite(vectors).all(-1)


def flow_scale(vectors: Float, valid: Bool) -> float:
    """The length in pixels that is drawn in full colour.

    It is the 99th percentile of the usable vectors' lengths, rounded up to a round number, and at least 1 px, so that
    noise in a still clip stays pale.
    """
    lengths = np.linalg.norm(vectors[usable(vectors, valid)].astype(np.float64), axis=-1)
    top = max(float(np.percentile(lengths, 99)) if lengths.size else 0.0, MIN_SCALE_PX)
    power = 10.0 ** math.floor(math.log10(top))
    return next(s for s in NICE_STEPS if s * power >= top * (1 - 1e-9)) * power


def motion_colours(motion: Float, scale_px: float) -> UInt8:
    """Motion (..., 2), x then y (downwards) in pixels, as RGB (..., 3).

    Right is red, down is yellow-green, left is cyan, up is violet; `scale_px` and longer has full saturation.
    """
    x, y = motion[..., 0].astype(np.float64), motion[..., 1].astype(np.float64)
    hue = np.arctan2(y, x) / (2 * math.pi) % 1.0 * 6.0
    saturation = np.minimum(np.hypot(x, y) / scale_px, 1.0)
    # Each channel falls from 1 by the share of the hue's distance to it: HSV with value 1.
    distance = np.stack([np.abs((hue - offset + 3.0) % 6.0 - 3.0) for offset in (0.0, 2.0, 4.0)], axis=-1)
    channel = np.clip(2.0 - distance, 0.0, 1.0)
    return np.rint(255.0 * (1.0 - saturation[..., None] * (1.0 - channel))).astype(np.uint8)
