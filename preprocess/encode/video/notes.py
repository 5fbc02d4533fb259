"""Makes the notes of each GOP from the decoded frames of a video (shards/media/gop_notes.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from maskstream.shards.media.gop_notes import note_box, with_box
from maskstream.shards.media.key_flow import flow_payload
from maskstream.shards.media.scene_starts import DISTANCE, starts_payload

from .fragments import Fragments, parse_fragments
from .key_flow import KeyFlows
from .scene_cuts import SceneCuts


class Notes:
    """The flow into the GOPs of a video that start with the frames `first`, and its scene cuts.

    `add` is given the frames in display order.
    """

    def __init__(self, first: list[int]) -> None:
        self.first = first
        self.flows, self.cuts = KeyFlows(frozenset(first)), SceneCuts()

    def add(self, number: int, frame: VideoFrame) -> None:
        """The next frame."""
        luma = luma_of(frame)
        self.cuts.add(number, luma)
        self.flows.add(number, luma)

    def written(self, parsed: Fragments) -> Fragments:
        """The video with the notes of each GOP."""
        parts = [parsed.data[: parsed.start[0]]]
        for fragment, (first, stop) in enumerate(pairwise([*self.first, len(parsed.pts)])):
            data = parsed.data[parsed.start[fragment] : parsed.start[fragment + 1]]
            notes = b""
            if first in self.flows.found:
                notes += note_box(flow_payload(self.flows.found[first]))
            anchors = range(-(-first // DISTANCE) * DISTANCE, stop, DISTANCE)
            if len(anchors) and self.cuts.seen.issuperset(anchors):
                notes += note_box(starts_payload(anchors[0], [number in self.cuts.starts for number in anchors]))
            parts.append(with_box(data, notes) if notes else data)
        return parse_fragments(b"".join(parts))


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV without its threads, which would spin beside the encoder while they wait."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def luma_of(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """A frame's Y plane, uint8 (H, W), in the frame's memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]
