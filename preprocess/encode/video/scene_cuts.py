"""Finds the scene cuts of a video, so that loaders need not look for them in each clip (shards/media/scene_starts.py).

All frames are at hand here, so neighbours are compared: one scene moves little from frame to frame, and DIS follows it.
Between the frames of 11 videos the correlation along DIS flow is at most 0.65 at a cut and at least 0.79 elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.shards.media.scene_starts import DISTANCE

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
_LEAST_SIDE = 12


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
