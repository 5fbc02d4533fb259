"""Notes that preprocessing stores on the frames of a GOP, as `uuid` boxes next to the GOP's packets.

The boxes lie between the `moof` and the `mdat` of the GOP (ISO 14496-12, sec. 4.2), where players and demuxers skip
them. A clip reads them together with the GOP, without an extra request. A note is a `uuid` box with a big-endian
payload that begins with a 16-byte identifier.

Scene starts: preprocessing compares all neighbouring frames, so loaders need not search each clip for cuts.

    version u8 = 1   distance u8   frames u16   first u32
    starts  u8 (ceil(frames / 8))   bit n, counted from the lowest, belongs to frame `first` + n * distance: whether a
                                    scene begins between it and the frame `distance` before

Backward flow from the first frame of a GOP to the frame DISTANCE before it: a frame that starts a GOP has no motion
vectors, so preprocessing computes them. Cells have CELL x CELL pixels; cells at the right and bottom edges may extend
beyond the frame.

    version u8 = 1   distance u8   rows u16   columns u16   frame u32
    x    int8 (rows, columns)    in quarter pixels of the video: the content at p was at p + (x, y)
    y    int8 (rows, columns)
    kept uint8 (rows, columns)   0 to 255: how well the earlier frame, warped by this flow, explains the cell

Cell energy of every DISTANCE-th frame, if the profile requests it (`VideoProfile.energy`): the squared difference, in
grey levels, from the frame DISTANCE before, warped along the vectors, summed over the cell beyond a dead zone. Frame 0
has no energy.

    version u8 = 1   distance u8   frames u16   rows u16   columns u16   first u32
    codes zlib of uint8 (frames, rows, columns)   `encode_energy`; for the frames first, first + DISTANCE, ...
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from maskstream.shards.arrays import Int8s, Int64s, UInt8s

from .mp4 import Mp4Error, boxes

ANCHOR_STRIDE = 4
"""In the profiles ANCHORED every 4th frame is an anchor, I or P; no frame refers to the B-frames between."""
ANCHORED = ("train", "fast")
"""The profiles (`VideoProfile.name`) whose videos have anchors."""


DISTANCE = ANCHOR_STRIDE
SCENES_ID = bytes.fromhex("6d61736b73747265616d207363656e65")  # "maskstream scene"
_SCENES_HEAD = struct.Struct(">BBHI")
_SCENES_VERSION = 1


def pack_starts(first: int, starts: Sequence[bool]) -> bytes:
    """Whether a scene begins before each of the frames first, first + DISTANCE, ..."""
    return (
        SCENES_ID
        + _SCENES_HEAD.pack(_SCENES_VERSION, DISTANCE, len(starts), first)
        + np.packbits(np.asarray(starts, dtype=np.bool_), bitorder="little").tobytes()
    )


def parse_starts(body: memoryview) -> dict[int, bool]:
    """Return, by frame number, whether a scene begins before it. Raises Mp4Error for a payload of another form."""
    head = len(SCENES_ID) + _SCENES_HEAD.size
    if len(body) < head:
        raise Mp4Error(f"the scenes of a GOP have {len(body)} bytes, but their header alone has {head}")
    version, distance, frames, first = _SCENES_HEAD.unpack_from(body, len(SCENES_ID))
    bits = body[head:]
    if version != _SCENES_VERSION or distance != DISTANCE or len(bits) != -(-frames // 8):
        raise Mp4Error(
            f"the scenes of a GOP have version {version}, distance {distance} and {len(bits)} bytes for "
            f"{frames} frames; version {_SCENES_VERSION}, distance {DISTANCE} and {-(-frames // 8)} bytes are "
            "supported"
        )
    return {first + n * distance: bool(bits[n >> 3] >> (n & 7) & 1) for n in range(frames)}


CELL = 16
QUARTERS = 4
LIMIT = 127
"""Largest component, in quarters of a pixel."""
FLOW_ID = bytes.fromhex("6d61736b73747265616d206b65792066")  # "maskstream key f"
_FLOW_HEAD = struct.Struct(">16sBBHHI")
_FLOW_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFlow:
    """Backward flow from frame number `frame` to the frame `distance` before it.

    planes: int8 (3, rows, columns): x, y and, as bytes, `kept`.
    """

    frame: int
    planes: Int8s
    distance: int = DISTANCE

    @property
    def vectors(self) -> Int8s:
        """x and y in quarters of a pixel, int8 (2, rows, columns)."""
        return self.planes[:2]

    @property
    def kept(self) -> UInt8s:
        """255 where the earlier frame explains the later one, 0 where it does not: uint8 (rows, columns)."""
        kept: UInt8s = self.planes[2].view(np.uint8)
        return kept


def compute_flow_grid(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the cells of a frame."""
    return -(-height // CELL), -(-width // CELL)


def pack_flow(flow: KeyFlow) -> bytes:
    """Return the flow as the payload of a box."""
    _, rows, columns = flow.planes.shape
    return _FLOW_HEAD.pack(FLOW_ID, _FLOW_VERSION, flow.distance, rows, columns, flow.frame) + flow.planes.tobytes()


def parse_flow(body: memoryview, grid: tuple[int, int]) -> KeyFlow:
    """Parse the flow of a payload. Raise Mp4Error if it does not fit a video with this grid of rows and columns of
    cells.
    """
    if len(body) < _FLOW_HEAD.size:
        raise Mp4Error(f"the flow of a GOP has {len(body)} bytes, but its header alone has {_FLOW_HEAD.size}")
    _, version, distance, rows, columns, frame = _FLOW_HEAD.unpack_from(body)
    whole = len(body) == _FLOW_HEAD.size + 3 * rows * columns
    if version != _FLOW_VERSION or distance != DISTANCE or (rows, columns) != grid or not whole:
        raise Mp4Error(
            f"the flow of a GOP has version {version}, distance {distance}, {rows} x {columns} cells and {len(body)} "
            f"bytes; the video needs version {_FLOW_VERSION}, distance {DISTANCE} and {grid[0]} x {grid[1]} cells"
        )
    planes = np.frombuffer(body, dtype=np.int8, offset=_FLOW_HEAD.size).reshape(3, rows, columns)
    return KeyFlow(frame=frame, planes=planes, distance=distance)


ENERGY_ID = bytes.fromhex("6d61736b73747265616d20656e657267")  # "maskstream energ"
_ENERGY_HEAD = struct.Struct(">16sBBHHHI")
_ENERGY_VERSION = 1
_STEPS = 8
"""Number of codes from one power of two to the next: a code is off by at most 1/16 of an energy."""


def encode_energy(energy: Int64s) -> UInt8s:
    """Encode energies from 0 to below 2 ** 31 as unsigned 8-bit floats: values below 16 are exact, others keep the
    three bits after their highest bit.
    """
    # `frexp` gives the number of bits, of which the highest four are kept: the first is implied by the shift, and the
    # other three number the _STEPS codes of an octave.
    shift = np.maximum(np.frexp(energy)[1] - 4, 0)
    return np.asarray(_STEPS * shift + (energy >> shift), dtype=np.uint8)


def energies_of_codes() -> Int64s:
    """The energy that each code stands for, the middle of its range: int64 (256,)."""
    codes = np.arange(256, dtype=np.int64)
    shift = np.maximum(codes // _STEPS - 1, 0)
    return np.asarray((codes - _STEPS * shift << shift) + (1 << shift >> 1), dtype=np.int64)


def pack_energy(first: int, codes: Sequence[UInt8s]) -> bytes:
    """Codes uint8 (rows, columns) of the frames first, first + DISTANCE, ..., one or more."""
    maps = np.stack(codes)
    head = _ENERGY_HEAD.pack(ENERGY_ID, _ENERGY_VERSION, DISTANCE, *maps.shape, first)
    return head + zlib.compress(maps.tobytes(), 9)


def parse_energy(body: memoryview, grid: tuple[int, int]) -> dict[int, UInt8s]:
    """Parse the energy of a payload: the codes of its cells, uint8 (rows, columns), by frame number. Raise Mp4Error if
    it does not fit a video with this grid of rows and columns of cells.
    """
    if len(body) < _ENERGY_HEAD.size:
        raise Mp4Error(f"the energy of a GOP has {len(body)} bytes, but its header alone has {_ENERGY_HEAD.size}")
    _, version, distance, frames, rows, columns, first = _ENERGY_HEAD.unpack_from(body)
    if version != _ENERGY_VERSION or distance != DISTANCE or (rows, columns) != grid:
        raise Mp4Error(
            f"the energy of a GOP has version {version}, distance {distance} and {rows} x {columns} cells; version "
            f"{_ENERGY_VERSION}, distance {DISTANCE} and {grid[0]} x {grid[1]} cells fit the video"
        )
    try:
        codes = zlib.decompressobj().decompress(body[_ENERGY_HEAD.size :], frames * rows * columns + 1)
    except zlib.error as error:
        raise Mp4Error(f"the energy of a GOP is damaged ({error})") from error
    if len(codes) != frames * rows * columns:
        raise Mp4Error(
            f"the energy of a GOP has at least {len(codes)} codes, too many for {frames} frames of {rows} x {columns}"
        )
    maps = np.frombuffer(codes, dtype=np.uint8).reshape(frames, rows, columns)
    return {first + n * distance: one for n, one in enumerate(maps)}


_ID_SIZE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class GopNotes:
    """The notes on the frames of some GOPs.

    flows: By frame number, the flow from the first frame of a GOP to the one DISTANCE before it. starts: By frame
    number, whether a scene begins between the frame and the one DISTANCE before it. energy: By frame number, the codes
    of the energy of its cells, uint8 (rows, columns).
    """

    flows: dict[int, KeyFlow] = field(default_factory=dict)
    starts: dict[int, bool] = field(default_factory=dict)
    energy: dict[int, UInt8s] = field(default_factory=dict)


def gop_notes(data: memoryview, width: int, height: int, whole: int | None = None) -> GopNotes:
    """Return the notes in a run of whole fragments of a video of width x height pixels.

    whole: Size of the run in bytes if `data` is only its beginning, as for `read_fragments`. Other boxes are skipped.
    Raises Mp4Error for notes that do not fit the video.
    """
    found = GopNotes()
    try:
        for kind, _, start, end in boxes(data, 0, len(data) if whole is None else whole):
            if kind != b"uuid":
                continue
            name = data[start : start + _ID_SIZE]
            if name == FLOW_ID:
                flow = parse_flow(data[start:end], compute_flow_grid(width, height))
                found.flows[flow.frame] = flow
            elif name == SCENES_ID:
                found.starts.update(parse_starts(data[start:end]))
            elif name == ENERGY_ID:
                found.energy.update(parse_energy(data[start:end], compute_flow_grid(width, height)))
    except struct.error as error:
        raise Mp4Error(f"a fragment is truncated ({error})") from error
    return found


def note_box(payload: bytes) -> bytes:
    """Return a note as a box."""
    return struct.pack(">I4s", 8 + len(payload), b"uuid") + payload


def with_box(fragment: bytes, box: bytes) -> bytes:
    """Insert boxes between the moof and mdat of a fragment; its packet offsets grow by the size of the boxes."""
    # Data offsets are relative to the start of the moof, so a box between moof and mdat moves the packets of every run.
    (_, _, start, end), *_ = boxes(memoryview(fragment), 0, len(fragment))
    head = bytearray(fragment[:end])
    for at in _track_runs(memoryview(fragment), start, end):
        (flags,) = struct.unpack_from(">I", head, at)
        if not flags & 0x1:
            raise Mp4Error("a run of packets has no data offset, so boxes cannot be inserted before them")
        struct.pack_into(">i", head, at + 8, struct.unpack_from(">i", head, at + 8)[0] + len(box))
    return bytes(head) + box + fragment[end:]


def _track_runs(data: memoryview, start: int, end: int) -> Iterator[int]:
    """Return where the payloads of the `trun` boxes of a `moof` start."""
    for kind, _, inner, stop in boxes(data, start, end):
        if kind == b"traf":
            yield from (at for name, _, at, _ in boxes(data, inner, stop) if name == b"trun")
