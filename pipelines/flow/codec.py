"""Flow from the motion vectors of the video stream, which the decoder exports at almost no cost.

Motion vectors are backward flow if each sampled frame is predicted from the frame sampled before it. In the `train`
profile (x264, ref=1, 3 B-frames that are never referenced), the P-frame at t is predicted from t-4, so this holds for
clips of stride 4 that start at a multiple of 4. At strides 8 and 12, the vectors of two or three frames are
concatenated: content at p in frame t was at q in frame t-4, and content at q in frame t-4 was at r in frame t-8
(`steps_between`).

A frame that starts a GOP has no vectors, but a stored flow computed by preprocessing (shards/media/gop_notes.py).
Intra-coded blocks have none; the flow filled in there is marked as invalid.

    ask_for_vectors(codec_context)                       # before decoding the first packet
    vectors = [motion_vectors(frame) for frame in sampled]
    flow = codec_flow(vectors, crop, source=(340, 256), size=224, clip=clip)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from types import ModuleType
from typing import TYPE_CHECKING

import av
import numpy as np
from av.codec.context import Flags2
from av.sidedata.motionvectors import MotionVectors
from av.sidedata.sidedata import Type

from maskstream.pipelines.augment.crop import Crop
from maskstream.shards.arrays import Bools, Float32s, Int8s, Int64s, UInt8s
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE, CELL, KeyFlow
from maskstream.shards.media.local_media import find_side_data

from .base import UNIT, ClipFlow, grid_shape
from .dis import dis_flow

if TYPE_CHECKING:
    from .cells import Fields

Vectors = MotionVectors | UInt8s | bytes
"""FFmpeg's AVMotionVector structs: PyAV's object, or their bytes, optionally as an array (K, 40), laid
out as VECTOR.
"""

VECTOR = np.dtype(
    {
        "names": ["source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale"],
        "formats": ["i4", "u1", "u1", "i2", "i2", "i4", "i4", "u2"],
        "offsets": [0, 4, 5, 10, 12, 24, 28, 32],
        "itemsize": 40,
    }
)
"""Fields that are read: sizes and positions in pixels, motion in 1 / motion_scale pixels."""

Motion = Vectors | KeyFlow
"""Motion of a frame relative to the one ANCHOR_STRIDE before it."""

STRIDES = (ANCHOR_STRIDE, 2 * ANCHOR_STRIDE, 3 * ANCHOR_STRIDE)
"""Clip strides supported by motion vectors."""
_CELL_UNITS = CELL // UNIT


VANISHED = 0.3
"""Fraction of cells with a vector below which the frames of a pair may belong to two scenes."""


def steps_between(frames: Int64s) -> int:
    """Return how many vectors of the `train` profile connect consecutive frames of `frames` (T,): 1 to 3, or 0 if none
    do.

    The numbers must be multiples of 4 at one of STRIDES; repeats are allowed.
    """
    numbers = frames.tolist()
    apart = {after - before for before, after in pairwise(numbers)} - {0} or {ANCHOR_STRIDE}
    if len(apart) > 1 or not apart <= set(STRIDES) or any(number % ANCHOR_STRIDE for number in numbers):
        return 0
    return int(apart.pop()) // ANCHOR_STRIDE


def collect_trail(frames: Int64s, vectors: Mapping[int, Motion], steps: int) -> list[Motion | None]:
    """Return the motion of every frame between the first and last of a clip, in the format of `codec_flow`.

    The first entry is None, as are entries of frames that repeat the previous one.
    """
    before_first = ANCHOR_STRIDE * (steps - 1)
    through = (
        vectors.get(number) if now > before else None
        for before, now in pairwise(frames.tolist())
        for number in range(now - before_first, now + 1, ANCHOR_STRIDE)
    )
    return [None, *through]


def ask_for_vectors(context: av.VideoCodecContext) -> None:
    """Configure a decoder to export motion vectors; call it before the first packet."""
    context.flags2 |= Flags2.export_mvs


def motion_vectors(frame: av.VideoFrame) -> MotionVectors | None:
    """Return the motion vectors of a decoded frame, or None. They share the frame's memory and keep it alive."""
    found = find_side_data(frame, Type.MOTION_VECTORS)
    return found if isinstance(found, MotionVectors) else None


def codec_flow(
    vectors: Sequence[Motion | None],
    crop: Crop,
    *,
    source: tuple[int, int],
    size: int | tuple[int, int],
    cell: int = 8,
    steps: int = 1,
    frames: Int64s | None = None,
    clip: UInt8s | None = None,
    cuts: Bools | None = None,
) -> ClipFlow:
    """Compute the backward flow of a clip in cells of about `cell` x `cell` pixels.

    Args:
        vectors: Results of `motion_vectors` or stored flow for each of the T sampled frames (the first is unused). With
            `steps` above 1, for all frames in between as well, `steps` for each pair.
        crop: The clip's crop of frames of `source` pixels; vectors are cropped, scaled and mirrored with it.
        source: Width and height of the source frames.
        size: Height and width of the clip, or one number for a square.
        cell: Side of a cell in pixels.
        steps: Number of frames with motion per pair.
        frames: int64 (T,), frame numbers; a frame that repeats the previous one has flow 0.
        clip: uint8 (T, height, width, 3), pixels, used to compute DIS flow for a pair without any vector. Without
            `clip`, the previous pair's flow is used.
        cuts: bool (T-1,), known scene cuts; none are searched.

    Raises:
        ValueError: A vector or the crop lies outside `source`, or shapes differ.
    """
    numbers = np.arange((len(vectors) - 1) // steps + 1) if frames is None else frames
    (found,) = compute_codec_flows(
        [vectors], [crop], [numbers], [clip], [cuts], source=source, size=size, cell=cell, steps=steps
    )
    return found


def compute_codec_flows(
    vectors: Sequence[Sequence[Motion | None]],
    crops: Sequence[Crop],
    frames: Sequence[Int64s],
    clips: Sequence[UInt8s | None],
    cuts: Sequence[Bools | None],
    *,
    source: tuple[int, int],
    size: int | tuple[int, int],
    cell: int = 8,
    steps: int = 1,
) -> list[ClipFlow]:
    """Compute `codec_flow` for several clips of the same length at once, which is cheaper."""
    width, height = source
    rows, columns = (size, size) if isinstance(size, int) else size
    pairs = (len(vectors[0]) - 1) // steps
    for crop, clip in zip(crops, clips, strict=True):
        if crop.x < 0 or crop.y < 0 or crop.x + crop.width > width or crop.y + crop.height > height:
            raise ValueError(
                f"{crop} extends beyond a frame of {width} x {height} pixels; pass the frame size as source"
            )
        if clip is not None and clip.shape[:3] != (pairs + 1, rows, columns):
            raise ValueError(
                f"for these vectors clip must be uint8 ({pairs + 1}, {rows}, {columns}, 3), got shape {clip.shape}"
            )
    flow = np.empty((len(crops), pairs, *grid_shape(rows, columns, cell), 2), dtype=np.float32)
    valid, known = np.empty(flow.shape[:4], dtype=np.bool_), np.empty(flow.shape[:2], dtype=np.bool_)
    grid = compute_unit_grid(width, height)
    windows = [
        (
            crop.x / UNIT,
            crop.y / UNIT,
            crop.width / UNIT,
            crop.height / UNIT,
            columns / crop.width * (-1 if crop.flip else 1),
            rows / crop.height,
        )
        for crop in crops
    ]
    through = [step for own in vectors for step in own[1:]]
    fields, ends = concatenated([None if isinstance(step, KeyFlow) else step for step in through])
    stored, places = read_stored_planes(through, grid)
    each = (len(crops), pairs * steps)
    if not kernels().compute_cell_flows(
        fields,
        ends.reshape(each),
        stored,
        places.reshape(each),
        np.stack(frames),
        grid,
        np.array(windows),
        flow,
        valid,
        known,
    ):
        raise _make_outside_error(width, height)
    made = []
    for n, left in enumerate((pairs - known.sum(axis=1)).tolist()):
        own, of = flow[n], cuts[n]
        if left and of is not None:
            known[n] |= of
            left = pairs - int(known[n].sum())
        made.append(ClipFlow(with_missing_filled(own, known[n], cell, clips[n]) if left else own, valid[n]))
    return made


def read_stored_planes(steps: Sequence[Motion | None], grid: tuple[int, int]) -> tuple[Int8s, Int64s]:
    """Collect the stored flows among `steps`, int8 (S, 3, rows, columns), at half the resolution of the unit grid, and
    each step's index among them, int64 (K,), or -1.
    """
    cells = (grid[0] // _CELL_UNITS, grid[1] // _CELL_UNITS)
    places = np.full(len(steps), -1, dtype=np.int64)
    planes: list[Int8s] = []
    for number, step in enumerate(steps):
        if isinstance(step, KeyFlow):
            if step.planes.shape[1:] != cells:
                raise ValueError(f"a stored flow has {step.planes.shape[1:]} cells; pass the frame size as source")
            places[number] = len(planes)
            planes.append(step.planes)
    return np.array(planes, dtype=np.int8).reshape(-1, 3, *cells), places


@cache
def kernels() -> ModuleType:
    """Return the module of kernels, imported on first use. The cache saves the import lookup in each call."""
    from . import cells

    return cells


def concatenated(frames: Sequence[Vectors | None]) -> tuple[Fields, Int64s]:
    """Concatenate the vectors of all frames; also returns the end of each frame's vectors, int64 (K,)."""
    parts = [b"" if one is None else one if isinstance(one, bytes) else bytes(one) for one in frames]
    octets = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, VECTOR.itemsize)
    ends = np.array([*accumulate(map(len, parts))], dtype=np.int64) // VECTOR.itemsize
    return (octets.view(np.int32), octets.view(np.int16), octets), ends


def compute_unit_grid(width: int, height: int) -> tuple[int, int]:
    """Return the rows and columns of a frame's grid of 8 x 8 units, which covers whole macroblocks."""
    return 2 * -(-height // 16), 2 * -(-width // 16)


def _make_outside_error(width: int, height: int) -> ValueError:
    return ValueError(
        f"motion vectors lie outside a frame of {width} x {height} pixels; pass the frames' size as source"
    )


def with_missing_filled(flow: Float32s, known: Bools, cell: int, clip: UInt8s | None) -> Float32s:
    """Replace the flow of pairs that are not `known` (K,) by DIS flow, or by the previous pair's flow without pixels.

    Without pixels, pairs at the start of the clip get the flow of the first known pair.
    """
    if clip is not None:
        for pair, has_vectors in enumerate(known.tolist()):
            if not has_vectors:
                flow[pair] = dis_flow(clip[pair : pair + 2], cell=cell).vectors[0]
        return flow
    if not known.any():
        return flow
    latest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
    return flow[np.where(latest < 0, known.argmax(), latest)]
