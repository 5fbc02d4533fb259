"""The flow that leads back from the first frame of a GOP to the frame DISTANCE before it, beside the GOP's packets.

A frame that starts a GOP has no motion vectors, so preprocessing computes them. They are a box (gop_notes.py). Its
payload, big-endian, after 16 bytes that identify it:

    version u8 = 1   distance u8   rows u16   columns u16   frame u32
    x    int8 (rows, columns)    in quarters of a pixel of the video, what is at p was at p + (x, y)
    y    int8 (rows, columns)
    kept uint8 (rows, columns)   0 to 255: how well the earlier frame, moved along it, explains the cell

Cells have CELL x CELL pixels, and those at the right and lower border may exceed the frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.scene_starts import ANCHOR_STRIDE

from .mp4 import Mp4Error

CELL = 16
DISTANCE = ANCHOR_STRIDE
QUARTERS = 4
LIMIT = 127
"""The longest component, in quarters of a pixel."""
ID = bytes.fromhex("6d61736b73747265616d206b65792066")  # "maskstream key f"
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

    @property
    def planes(self) -> npt.NDArray[np.int8]:
        """vectors and the bytes of kept, int8 (3, rows, columns)."""
        return np.concatenate([self.vectors, self.kept.view(np.int8)[None]])


def grid_of(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the cells of a frame."""
    return -(-height // CELL), -(-width // CELL)


def flow_payload(flow: KeyFlow) -> bytes:
    """The flow as the payload of a box."""
    rows, columns = flow.kept.shape
    return _HEAD.pack(ID, _VERSION, flow.distance, rows, columns, flow.frame) + flow.planes.tobytes()


def parsed_flow(body: memoryview, grid: tuple[int, int]) -> KeyFlow:
    """The flow of a payload; raises Mp4Error for one that does not fit a video of so many rows and columns of cells."""
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
