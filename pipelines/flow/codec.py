"""Flow that costs nothing to compute: the motion vectors of the video stream.

They are backward flow between two sampled frames where each sampled frame is predicted from the one sampled before it:
in the `train` profile (x264, ref=1, 3 B-frames, which are never referenced) the P-frame at t is predicted from t-4, so
this holds for clips of stride 4 that start at a multiple of 4 (`codec_flow_fits`). Frames that start a GOP and blocks
coded without prediction have no vectors; what stands in for them is marked as not valid.

    ask_for_vectors(codec_context)                       # before the first packet is decoded
    vectors = [motion_vectors(frame) for frame in sampled]
    flow = codec_flow(vectors, crop, source=(340, 256), size=224, clip=clip)
"""

from __future__ import annotations

from collections.abc import Sequence

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags2
from av.sidedata.sidedata import SideDataContainer

from ..augment.crop import Crop
from .base import ClipFlow, fill_holes, grid_shape
from .dis import dis_flow

Vectors = npt.NDArray[np.void]
"""FFmpeg's AVMotionVector as a structured array (K,): source, w, h, dst_x, dst_y, motion_x, motion_y, motion_scale."""

ANCHOR_STRIDE = 4
"""In the `train` profile every 4th frame is predicted from the one 4 before it."""

UNIT = 8
"""The side in pixels of the smallest block that H.264 decoders export, and of a cell of the source grid here."""


def codec_flow_fits(frames: npt.NDArray[np.int64]) -> bool:
    """Whether motion vectors of the `train` profile are the flow between these frame numbers (T,) of a video.

    They have to be multiples of 4 in steps of 4; a frame may be repeated.
    """
    steps = frames[1:] - frames[:-1]
    return bool((frames % ANCHOR_STRIDE == 0).all() and ((steps == ANCHOR_STRIDE) | (steps == 0)).all())


def ask_for_vectors(context: av.VideoCodecContext) -> None:
    """Makes a decoder export motion vectors; to be called before its first packet."""
    context.flags2 |= Flags2.export_mvs


def motion_vectors(frame: av.VideoFrame) -> Vectors | None:
    """The vectors that came with a decoded frame, or None; a copy, which does not keep the frame alive."""
    # Not frame.side_data: it is kept in the frame and refers to it, a cycle that only a full garbage collection frees.
    data = SideDataContainer(frame).get("MOTION_VECTORS")  # type: ignore[call-arg]
    if data is None:
        return None
    vectors: Vectors = data.to_ndarray()
    copied: Vectors = vectors.view(np.uint8).copy().view(vectors.dtype)
    return copied


def codec_flow(
    vectors: Sequence[Vectors | None],
    crop: Crop,
    *,
    source: tuple[int, int],
    size: int,
    cell: int = 8,
    frames: npt.NDArray[np.int64] | None = None,
    clip: npt.NDArray[np.uint8] | None = None,
) -> ClipFlow:
    """The backward flow of a clip of size x size pixels, in cells of about `cell` x `cell` pixels.

    `vectors`: what `motion_vectors` gave for each of the T sampled frames (the first one's are not used). `crop`: what
    the clip shows of frames of `source` = (width, height) pixels; the vectors are cropped, scaled and mirrored with it.
    `frames`: the T frame numbers; a frame that repeats the one before it has flow 0. `clip`: the clip's pixels, uint8
    (T, size, size, 3); with them a pair without any vector takes its flow from the pixels (DIS), without them from the
    pair before it. Raises ValueError where a vector lies outside `source`, where the crop does, or where shapes differ.
    """
    width, height = source
    if crop.x < 0 or crop.y < 0 or crop.x + crop.width > width or crop.y + crop.height > height:
        raise ValueError(f"{crop} reaches out of a frame of {width} x {height} pixels")
    if clip is not None and clip.shape[:3] != (len(vectors), size, size):
        raise ValueError(f"clip is uint8 ({len(vectors)}, {size}, {size}, 3) for these vectors, got {clip.shape}")
    rows, columns = grid_shape(size, size, cell)
    points = cell_centres(rows, columns, crop)
    sampled = np.empty((len(vectors) - 1, rows, columns, 3), dtype=np.float32)
    for pair, blocks in enumerate(block_grids(vectors[1:], width, height)):
        cv2.remap(blocks, points, None, cv2.INTER_LINEAR, sampled[pair], cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    share = sampled[..., 2]
    scale = size / np.maximum(share, 1e-6)
    flow = np.empty((*share.shape, 2), dtype=np.float32)
    np.multiply(sampled[..., 0], scale * np.float32((-1 if crop.flip else 1) / crop.width), out=flow[..., 0])
    np.multiply(sampled[..., 1], scale * np.float32(1 / crop.height), out=flow[..., 1])
    valid = share >= 0.5
    if frames is not None:
        still = np.flatnonzero(frames[1:] == frames[:-1])
        flow[still], valid[still] = 0.0, True
    return ClipFlow(with_substitutes(fill_holes(flow, valid), valid, cell, clip), valid)


def block_grids(frames: Sequence[Vectors | None], width: int, height: int) -> npt.NDArray[np.float32]:
    """The vectors of K frames on the grid of their 8 x 8 units: float32 (K, rows, columns, 3), (x, y, 1) or (0, 0, 0).

    x and y are pixels of the source, towards the earlier frame. The grid covers whole macroblocks of 16 x 16 pixels,
    also where the frame does not. Vectors to a later frame are left out.
    """
    rows, columns = 2 * -(-height // 16), 2 * -(-width // 16)
    owner = np.zeros(len(frames) * rows * columns, dtype=np.int64)
    given = [(number, vectors) for number, vectors in enumerate(frames) if vectors is not None and len(vectors)]
    if not given:
        return np.zeros((len(frames), rows, columns, 3), dtype=np.float32)
    # As bytes: numpy would copy structs field by field.
    raw = np.concatenate([np.ascontiguousarray(vectors).view(np.uint8) for _, vectors in given])
    joined = raw.view(given[0][1].dtype)
    first = np.repeat([number * rows * columns for number, _ in given], [len(vectors) for _, vectors in given])
    source, w, h = joined["source"], joined["w"], joined["h"]
    column = (joined["dst_x"] - (w >> 1)) >> 3  # in units
    row = ((joined["dst_y"] - (h >> 1)) >> 3).astype(np.int64)  # int16 would overflow in `place`
    if column.min() < 0 or row.min() < 0 or column.max() >= columns or row.max() >= rows:
        raise ValueError(f"motion vectors lie outside a frame of {width} x {height} pixels; is `source` its size?")
    place, number = first + row * columns + column, np.arange(1, len(joined) + 1)
    earlier, wide, tall = source < 0, w > UNIT, h > UNIT
    for step, chosen in (
        (0, earlier),
        (1, earlier & wide),
        (columns, earlier & tall),
        (columns + 1, earlier & wide & tall),
    ):
        owner[place[chosen] + step] = number[chosen]
    values = np.zeros((len(joined) + 1, 3), dtype=np.float32)
    values[1:, 0] = joined["motion_x"] / joined["motion_scale"]
    values[1:, 1] = joined["motion_y"] / joined["motion_scale"]
    values[1:, 2] = 1
    return values.take(owner, axis=0).reshape(len(frames), rows, columns, 3)


def cell_centres(rows: int, columns: int, crop: Crop) -> npt.NDArray[np.float32]:
    """Where the centres of the output's cells lie on the source's grid of 8 x 8 units: float32 (rows, columns, 2)."""
    x = (crop.x + (np.arange(columns) + 0.5) * (crop.width / columns)) / UNIT - 0.5
    y = (crop.y + (np.arange(rows) + 0.5) * (crop.height / rows)) / UNIT - 0.5
    points = np.empty((rows, columns, 2), dtype=np.float32)
    points[..., 0] = x[::-1] if crop.flip else x
    points[..., 1] = y[:, None]
    return points


def with_substitutes(
    flow: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_], cell: int, clip: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.float32]:
    """`flow` with the pairs that have no valid cell computed from the pixels, or else taken from the pair before.

    Without pixels, pairs at the clip's start take the flow of the first pair that has some.
    """
    known = np.asarray(valid.any(axis=(1, 2)))
    if clip is not None:
        for pair in np.flatnonzero(~known):
            flow[pair] = dis_flow(clip[pair : pair + 2], cell=cell).vectors[0]
        return flow
    if not known.any():
        return flow
    latest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
    return flow[np.where(latest < 0, known.argmax(), latest)]
