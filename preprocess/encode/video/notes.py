"""Makes the notes of each GOP from the decoded frames of a video (shards/media/gop_notes.py).

A GOP's first frame has no motion vectors, so the flow into it is computed (shards/media/gop_notes.py). Scene cuts are
found so that loaders need not look for them in each clip (shards/media/gop_notes.py). All frames are at hand here,
so neighbours are compared: one scene moves little from frame to frame, and DIS follows it. Between the frames of 11
videos the correlation along DIS flow is at most 0.65 at a cut and at least 0.79 elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from maskstream.shards.media.gop_notes import (
    CELL,
    DISTANCE,
    LIMIT,
    QUARTERS,
    KeyFlow,
    flow_grid,
    flow_payload,
    note_box,
    starts_payload,
    with_box,
)

from .fragments import Fragments, parse_fragments


class Notes:
    """The flow into the GOPs of a video that start with the frames `first`, and its scene cuts.

    `add` is given the frames in display order.
    """

    def __init__(self, first: list[int]) -> None:
        self.first = first
        self.flows, self.cuts = KeyFlows(frozenset(first)), SceneCuts()

    def add(self, number: int, frame: VideoFrame) -> None:
        """The next frame."""
        luma = luma_plane(frame)
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


def luma_plane(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """A frame's Y plane, uint8 (H, W), in the frame's memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]


Plane = npt.NDArray[Any]
_LEAST_SIDE = 12
"""The least side of a half-size plane that DIS takes."""
_CONTRAST = 8.0
"""Levels by which an error is compared in a flat cell, besides the cell's contrast."""


@dataclass(slots=True)
class KeyFlows:
    """The flows of a video, from its frames in display order.

    first: the numbers of the frames that start a GOP. Each is compared with the frame DISTANCE before, both at
    half size. Searching the whole would be a quarter more exact (0.21 instead of 0.28 px on known motion) and cost ten
    times as much: half as much as encoding the video.
    """

    first: frozenset[int]
    found: dict[int, KeyFlow] = field(default_factory=dict)
    _earlier: dict[int, Plane] = field(default_factory=dict)

    def add(self, number: int, luma: Plane) -> None:
        """The next frame's Y plane, uint8 (H, W)."""
        if min(luma.shape) < 2 * _LEAST_SIDE:
            return
        if number in self.first and (earlier := self._earlier.pop(number - DISTANCE, None)) is not None:
            self.found[number] = key_flow(number, halved(luma), earlier)
        if number + DISTANCE in self.first:
            self._earlier[number] = halved(luma)


def key_flow(number: int, later: Plane, earlier: Plane) -> KeyFlow:
    """The flow of half-size luma uint8 (H, W) `later`, frame `number`, back to `earlier`."""
    dense = _search(later, earlier)
    y, x = np.indices(later.shape, dtype=np.float32)
    moved = cv2.remap(earlier, x + dense[..., 0], y + dense[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    now = later.astype(np.float32)
    mean = cv2.resize(_on_cells(now), later.shape[::-1], interpolation=cv2.INTER_LINEAR)
    error, contrast = (_on_cells(np.abs(now - other)) for other in (moved, mean))
    kept = np.clip(1 - error / (contrast + _CONTRAST), 0, 1)
    vectors = np.rint(2 * QUARTERS * _on_cells(dense).transpose(2, 0, 1))
    kept = np.where((np.abs(vectors) <= LIMIT).all(0), kept, 0)
    return KeyFlow(
        frame=number,
        vectors=np.clip(vectors, -LIMIT, LIMIT).astype(np.int8),
        kept=np.rint(255 * kept).astype(np.uint8),
    )


def _search(later: Plane, earlier: Plane) -> Plane:
    """The flow float32 (H, W, 2) of a plane uint8 (H, W), by OpenCV's DIS.

    The settings are those of its preset `medium` with a patch on every 5th pixel, 6 steps a patch and 2 rounds of
    refinement: as exact on the scenes of benchmarks/flow_scenes.py (0.28 px), at two fifths of the cost.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setPatchStride(5)
    search.setGradientDescentIterations(6)
    search.setVariationalRefinementIterations(2)
    return np.asarray(search.calc(later, earlier, None))  # type: ignore[call-overload]


def _on_cells(plane: Plane) -> Plane:
    """The mean of each cell of a half-size plane (H, W) or (H, W, 2), whose border is repeated to whole cells."""
    height, width = plane.shape[:2]
    rows, columns = flow_grid(2 * width, 2 * height)
    down, across = rows * CELL // 2 - height, columns * CELL // 2 - width
    whole = cv2.copyMakeBorder(plane, 0, down, 0, across, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA))


Luma = npt.NDArray[np.uint8]
SIDE = 64
"""The shorter side of the pictures that are compared."""
LIKE = 0.75
"""The correlation, as they are or along DIS flow, from which on two frames DISTANCE apart show one scene, whatever
flashes between them.
"""
LEAST_UNMOVED, LEAST_MOVED = 0.45, 0.7
"""At a cut neighbours correlate less, as they are and along DIS flow. Fast pans of few frames a second are kept apart
by the first.
"""


@dataclass(slots=True)
class SceneCuts:
    """The scene cuts of a video, from its frames in display order.

    starts: the numbers of the frames, of every DISTANCE-th, between which and the one DISTANCE before a scene begins.
    seen: the numbers of those that were compared; 0 is among them.
    """

    starts: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    _since: list[Luma] = field(default_factory=list)
    _last: Luma | None = None

    def add(self, number: int, luma: Luma) -> None:
        """The next frame's Y plane, uint8 (H, W)."""
        if min(luma.shape) < _LEAST_SIDE:
            return
        self._since.append(luma)
        if number % DISTANCE:
            return
        self.seen.add(number)
        picture = halved(shrunk(luma))
        if self._last is not None and likeness(self._last, picture) < LIKE and has_cut(list(map(shrunk, self._since))):
            self.starts.add(number)
        self._since, self._last = self._since[-1:], picture


def has_cut(pictures: list[Luma]) -> bool:
    """Whether a scene ends among pictures of consecutive frames, and the last shows nothing of the first."""
    ends = any(
        likeness(halved(before), halved(now)) < LEAST_UNMOVED and moved_likeness(before, now) < LEAST_MOVED
        for before, now in pairwise(pictures)
    )
    return ends and moved_likeness(pictures[0], pictures[-1]) < LIKE


def moved_likeness(before: Luma, now: Luma) -> float:
    """The correlation of `now` with `before`, fetched along DIS flow, where it is fetched from inside the picture."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    search.setFinestScale(0)
    dense: Any = search.calc(now, before, None)  # type: ignore[call-overload]
    y, x = np.indices(now.shape, dtype=np.float32)
    x, y = x + dense[..., 0], y + dense[..., 1]
    fetched = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (x > -1) & (x < now.shape[1]) & (y > -1) & (y < now.shape[0])
    return seen_likeness(halved(fetched), halved(now), halved(inside.astype(np.float32)))


def likeness(before: Luma, now: Luma) -> float:
    """The correlation of two pictures, -1 to 1, and 1 of two without contrast."""
    one, other = (picture.astype(np.float32).ravel() for picture in (before, now))
    one, other = one - one.mean(), other - other.mean()
    product, first, second = (float(a @ b) / len(one) for a, b in ((one, other), (one, one), (other, other)))
    return (product + 1) / float(np.sqrt((first + 1) * (second + 1)))


def seen_likeness(before: Luma, now: Luma, weights: npt.NDArray[np.float32]) -> float:
    """The same with a weight for each pixel; less where little has weight."""
    one, other = before.astype(np.float32), now.astype(np.float32)
    total = max(float(weights.sum()), 1e-6)
    one, other = (plane - float((plane * weights).sum()) / total for plane in (one, other))
    product, first, second = (
        float((a * b * weights).sum()) / total for a, b in ((one, other), (one, one), (other, other))
    )
    return min(4 * total / one.size, 1.0) * (product + 1) / float(np.sqrt((first + 1) * (second + 1)))


def shrunk(luma: Luma) -> Luma:
    """The picture with a shorter side of about SIDE pixels."""
    times = max(min(luma.shape) // SIDE, 1)
    size = (luma.shape[1] // times, luma.shape[0] // times)
    return np.asarray(
        cv2.resize(luma[: size[1] * times, : size[0] * times], size, interpolation=cv2.INTER_AREA), np.uint8
    )


def halved(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The plane at half its size."""
    return np.asarray(cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA))
