"""Where scenes begin among the frames of a GOP, beside the GOP's packets.

Preprocessing compares all neighbouring frames, so loaders need not look for cuts in each clip. What it found is a
`uuid` box, as the flow into the GOP is (gop_notes.py). Its payload, big-endian, after 16 bytes that identify it:

    version u8 = 1   distance u8   frames u16   first u32
    starts  u8 (ceil(frames / 8))   the n-th bit, from the lowest on, is that of frame `first` + n * distance: whether a
                                    scene begins between it and the frame `distance` before
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from .mp4 import Mp4Error

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
