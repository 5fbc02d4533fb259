"""The flow that leads back from the first frame of a GOP to the frame DISTANCE before it, beside the GOP's packets.

A frame that starts a GOP has no motion vectors, so preprocessing computes them. They are a `uuid` box (ISO 14496-12,
sec. 4.2) between the `moof` and the `mdat` of the GOP, which players and demuxers pass over: a clip reads it with the
GOP, and no request is its own. Its payload, big-endian, after 16 bytes that identify it:

    version u8 = 1   distance u8   rows u16   columns u16   frame u32
    x    int8 (rows, columns)    in quarters of a pixel of the video, what is at p was at p + (x, y)
    y    int8 (rows, columns)
    kept uint8 (rows, columns)   0 to 255: how well the earlier frame, moved along it, explains the cell

Cells have CELL x CELL pixels, and those at the right and lower border may exceed the frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..anchors import ANCHOR_STRIDE
from .mp4 import Mp4Error, boxes

CELL = 16
DISTANCE = ANCHOR_STRIDE
QUARTERS = 4
LIMIT = 127
"""The longest component, in quarters of a pixel."""
_ID = bytes.fromhex("6d61736b73747265616d206b65792066")  # "maskstream key f"
_HEAD = struct.Struct(">16sBBHHI")
_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFlow:
    """Backward flow of frame number `frame` to the one `distance` before it.

    vectors: int8 (2, rows, columns), x and y in quarters of a pixel. kept: uint8 (rows, columns), 255 where the earlier
    frame explains the later one, 0 where it does not.
    """

    frame: int
    vectors: npt.NDArray[np.int8]
    kept: npt.NDArray[np.uint8]
    distance: int = DISTANCE


def grid_of(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the cells of a frame."""
    return -(-height // CELL), -(-width // CELL)


def key_flow_box(flow: KeyFlow) -> bytes:
    """The flow as a box."""
    rows, columns = flow.kept.shape
    body = _HEAD.pack(_ID, _VERSION, flow.distance, rows, columns, flow.frame)
    body += flow.vectors.tobytes() + flow.kept.tobytes()
    return struct.pack(">I4s", 8 + len(body), b"uuid") + body


def key_flows(data: memoryview, width: int, height: int, whole: int | None = None) -> dict[int, KeyFlow]:
    """The flows in a run of whole fragments of a video of width x height pixels, by frame number.

    whole: the size of the run in bytes, where `data` is only its beginning, as for `read_fragments`. Boxes of another
    kind are passed over. Raises Mp4Error for a flow that does not fit the video.
    """
    found: dict[int, KeyFlow] = {}
    try:
        for kind, _, start, end in boxes(data, 0, len(data) if whole is None else whole):
            if kind == b"uuid" and data[start : start + len(_ID)] == _ID:
                flow = _parsed(data[start:end], grid_of(width, height))
                found[flow.frame] = flow
    except struct.error as error:
        raise Mp4Error(f"a fragment is truncated ({error})") from error
    return found


def with_box(fragment: bytes, box: bytes) -> bytes:
    """A fragment (moof mdat) with a box between the two; the offsets of its packets grow by the size of the box."""
    (_, _, start, end), *_ = boxes(memoryview(fragment), 0, len(fragment))
    head = bytearray(fragment[:end])
    for at in _track_runs(memoryview(fragment), start, end):
        (flags,) = struct.unpack_from(">I", head, at)
        if not flags & 0x1:
            raise Mp4Error("a run of packets has no offset of its own, so no box can stand before them")
        struct.pack_into(">i", head, at + 8, struct.unpack_from(">i", head, at + 8)[0] + len(box))
    return bytes(head) + box + fragment[end:]


def _track_runs(data: memoryview, start: int, end: int) -> Iterator[int]:
    """Where the payloads of the `trun` boxes of a `moof` start."""
    for kind, _, inner, stop in boxes(data, start, end):
        if kind == b"traf":
            yield from (at for name, _, at, _ in boxes(data, inner, stop) if name == b"trun")


def _parsed(body: memoryview, grid: tuple[int, int]) -> KeyFlow:
    if len(body) < _HEAD.size:
        raise Mp4Error(f"the flow of a GOP has {len(body)} bytes, less than its {_HEAD.size} bytes of header")
    _, version, distance, rows, columns, frame = _HEAD.unpack_from(body)
    cells = rows * columns
    if version != _VERSION or distance != DISTANCE or (rows, columns) != grid or len(body) != _HEAD.size + 3 * cells:
        raise Mp4Error(
            f"the flow of a GOP has version {version}, distance {distance}, {rows} x {columns} cells and {len(body)} "
            f"bytes; version {_VERSION}, distance {DISTANCE} and {grid[0]} x {grid[1]} cells fit the video"
        )
    planes = np.frombuffer(body, dtype=np.int8, offset=_HEAD.size).reshape(3, rows, columns)
    return KeyFlow(frame=frame, vectors=planes[:2], kept=planes[2].view(np.uint8), distance=distance)
