"""What preprocessing found out about the frames of a GOP: a run of `uuid` boxes beside the GOP's packets.

They stand between the `moof` and the `mdat` of the GOP (ISO 14496-12, sec. 4.2), where players and demuxers pass over
them: a clip reads them with the GOP, and no request is their own. key_flow.py and scene_starts.py have their contents.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from .key_flow import ID as FLOW_ID
from .key_flow import KeyFlow, grid_of, parsed_flow
from .mp4 import Mp4Error, boxes
from .scene_starts import ID as SCENES_ID
from .scene_starts import parsed_starts

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
