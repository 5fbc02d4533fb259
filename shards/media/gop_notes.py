"""What preprocessing found out about the frames of a GOP: a run of `uuid` boxes beside the GOP's packets.

They stand between the `moof` and the `mdat` of the GOP (ISO 14496-12, sec. 4.2), where players and demuxers pass over
them: a clip reads them with the GOP, and no request is their own. key_flow.py and scene_starts.py have their contents.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
import numpy as np
from .mp4 import Mp4Error
from dataclasses import dataclass
import numpy.typing as npt
from collections.abc import Iterator
from dataclasses import dataclass, field
from .mp4 import Mp4Error, boxes

ANCHOR_STRIDE = 4
"""In the profiles ANCHORED every 4th frame is an anchor, I or P; no frame refers to the B-frames between."""
ANCHORED = ("train", "fast")
"""The profiles (`VideoProfile.name`) whose videos have anchors."""


DISTANCE = ANCHOR_STRIDE
ID = bytes.fromhex("6d61736b73747265616d207363656e65")  # "maskstream scene"
_HEAD = struct.Struct(">BBHI")
_VERSION = 1


def starts_payload(first: int, starts: Sequence[bool]) -> bytes:
    """Whether a scene begins before each of the frames first, first + DISTANCE, ..."""
    return (
        ID
        + _HEAD.pack(_VERSION, DISTANCE, len(starts), first)
        + np.packbits(np.asarray(starts, dtype=np.bool_), bitorder="little").tobytes()
    )


def parsed_starts(body: memoryview) -> dict[int, bool]:
    """By frame number, whether a scene begins before it. Raises Mp4Error for a payload of another form."""
    if len(body) < len(ID) + _HEAD.size:
        raise Mp4Error(
            f"the scenes of a GOP have {len(body)} bytes, less than the {len(ID) + _HEAD.size} of their header"
        )
    version, distance, frames, first = _HEAD.unpack_from(body, len(ID))
    bits = body[len(ID) + _HEAD.size :]
    if version != _VERSION or distance != DISTANCE or len(bits) != -(-frames // 8):
        raise Mp4Error(
            f"the scenes of a GOP have version {version}, distance {distance} and {len(bits)} bytes for {frames} "
            f"frames; version {_VERSION}, distance {DISTANCE} and {-(-frames // 8)} bytes are known"
        )
    return {first + n * distance: bool(bits[n >> 3] >> (n & 7) & 1) for n in range(frames)}


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


_ID_SIZE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class GopNotes:
    """What is known of the frames of some GOPs.

    flows: by frame number, the flow from the first frame of a GOP to the one DISTANCE before it. starts: by frame
    number, whether a scene begins between the frame and the one DISTANCE before it.
    """

    flows: dict[int, KeyFlow] = field(default_factory=dict)
    starts: dict[int, bool] = field(default_factory=dict)


def gop_notes(data: memoryview, width: int, height: int, whole: int | None = None) -> GopNotes:
    """The notes in a run of whole fragments of a video of width x height pixels.

    whole: the size of the run in bytes, where `data` is only its beginning, as for `read_fragments`. Boxes of another
    kind are passed over. Raises Mp4Error for notes that do not fit the video.
    """
    found = GopNotes()
    try:
        for kind, _, start, end in boxes(data, 0, len(data) if whole is None else whole):
            if kind != b"uuid":
                continue
            name = data[start : start + _ID_SIZE]
            if name == FLOW_ID:
                flow = parsed_flow(data[start:end], grid_of(width, height))
                found.flows[flow.frame] = flow
            elif name == SCENES_ID:
                found.starts.update(parsed_starts(data[start:end]))
    except struct.error as error:
        raise Mp4Error(f"a fragment is truncated ({error})") from error
    return found


def note_box(payload: bytes) -> bytes:
    """A note as a box."""
    return struct.pack(">I4s", 8 + len(payload), b"uuid") + payload


def with_box(fragment: bytes, box: bytes) -> bytes:
    """A fragment (moof mdat) with boxes between the two; the offsets of its packets grow by the size of the boxes."""
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
