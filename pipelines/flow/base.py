"""Types of flow for a clip and for a batch, and the flow grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskstream.pipelines.stream.batch import Movable
from maskstream.pipelines.stream.tensors import torch, wrap_tensor
from maskstream.shards.arrays import Bools, Float32s

if TYPE_CHECKING:
    from torch import Tensor

UNIT = 8
"""Side of a unit of the source grid in pixels: the smallest block that H.264 decoders export."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow(Movable):
    """Backward flow between the sampled frames of clips, float32 (B, T-1, h, w, 2).

    Attributes:
        vectors: float32 (B, T-1, h, w, 2), x then y, in pixels of the output clip: content at pixel p of frame t+1 was
            at p + vectors[:, t] in frame t. (h, w) is the flow grid; cell (i, j) covers a 1/h x 1/w part of the frame.
        valid: bool (B, T-1, h, w): False where the source had no vector and `vectors` was interpolated, and everywhere
            at a cut.
        cuts: bool (B, T-1): True if a scene ends between the frames of a pair (cuts.py).
        confidence: float32 (B, T-1, h, w) in [0, 1]: how well the flow explains each cell, 0 where it is not valid
            (source.py); None unless requested from the source.
    """

    vectors: Tensor
    valid: Tensor
    cuts: Tensor
    confidence: Tensor | None = None


class ClipFlow(NamedTuple):
    """Backward flow of one clip, float32 (T-1, h, w, 2): a `Flow` without the batch dimension.

    Attributes:
        vectors: float32 (T-1, h, w, 2), x then y, in pixels of the output clip: content at pixel p of frame t+1 was at
            p + vectors[t] in frame t.
        valid: bool (T-1, h, w): False where `vectors` was interpolated.
        cuts: bool (T-1,): True if a scene ends between the frames of a pair. If a source's `of_clip` omits it, the
            loader adds it.
        confidence: float32 (T-1, h, w) or None.
    """

    vectors: Float32s
    valid: Bools
    cuts: Bools | None = None
    confidence: Float32s | None = None


def with_cuts(flow: ClipFlow, cuts: Bools) -> ClipFlow:
    """Add cuts to a flow; no vector is valid at a cut."""
    if not cuts.any():
        return flow._replace(cuts=cuts)
    uncut = ~cuts[:, None, None]
    confidence = None if flow.confidence is None else flow.confidence * uncut
    return ClipFlow(flow.vectors, flow.valid & uncut, cuts, confidence)


def stack_flow(clips: Sequence[ClipFlow]) -> Flow:
    """Stack the flow of clips into a batch.

    Raises:
        ValueError: Shapes differ between clips.
    """
    if len(shapes := {clip.vectors.shape for clip in clips}) > 1:
        raise ValueError(
            f"the flow of the clips in a batch has different shapes ({', '.join(map(str, sorted(shapes)))}); "
            "use a source with the same grid for all clips and all parts of a mixture"
        )
    known = [clip.confidence for clip in clips if clip.confidence is not None]
    return Flow(
        vectors=wrap_tensor(np.stack([clip.vectors for clip in clips])),
        valid=wrap_tensor(np.stack([clip.valid for clip in clips])),
        cuts=wrap_tensor(np.stack([_find_known_cuts(clip) for clip in clips])),
        confidence=wrap_tensor(np.stack(known)) if len(known) == len(clips) else None,
    )


def _find_known_cuts(clip: ClipFlow) -> Bools:
    return np.zeros(len(clip.vectors), dtype=np.bool_) if clip.cuts is None else clip.cuts


@cache
def compute_pixel_places(height: int, width: int, device: torch.device) -> Tensor:
    """Return the x and y of each pixel: float32 (2, height, width)."""
    return torch.from_numpy(np.mgrid[:height, :width][::-1].astype(np.float32)).to(device)


def grid_shape(height: int, width: int, cell: int) -> tuple[int, int]:
    """Return the rows and columns of the flow grid for a frame of height x width pixels, in cells of about `cell`
    pixels.
    """
    if cell < 1:
        raise ValueError(f"cell (the side of a flow cell in pixels) must be at least 1, got {cell}")
    return max(round(height / cell), 1), max(round(width / cell), 1)
