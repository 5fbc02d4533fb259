"""Position of a phrase's object in its image: box and segment, adjusted to a crop."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Bools, Float32s
from maskstream.shards.errors import DataError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.npy import read_npy
from maskstream.shards.stores.base import Range

BOXES, SEGMENTS = "boxes.npy", "segments.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacesPlan:
    """Byte ranges of the boxes and segments of a sample's phrases; None if missing or not requested."""

    sample: int
    boxes: Range | None
    segments: Range | None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges to read."""
        return tuple(one for one in (self.boxes, self.segments) if one is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Positions of a sample's n phrases in an image of width x height pixels."""

    boxes: Float32s | None
    """float32 (n, 4): x0, y0, x1, y1 as fractions of the image."""
    segments: Bools | None
    """bool (n, height, width)."""

    def box(self, number: int, crop: Crop, width: int, height: int) -> Float32s | None:
        """Return the box of a phrase as fractions of a crop, clipped to it; None without one.

        Raises:
            DataError: The phrase's box is missing from the data.
        """
        if self.boxes is None:
            return None
        _check(number, len(self.boxes), "boxes")
        return crop_box(self.boxes[number], crop, width, height)

    def segment(self, number: int, crop: Crop, size: int) -> Bools | None:
        """Return the pixels of a phrase's object in a crop resized to size x size, bool; None without them."""
        if self.segments is None:
            return None
        _check(number, len(self.segments), "segments")
        part = self.segments[number, crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        way = cv2.INTER_AREA if min(part.shape) >= size else cv2.INTER_LINEAR
        shown: Bools = np.asarray(cv2.resize(part.astype(np.uint8) * 255, (size, size), interpolation=way) >= 128)
        return shown[:, ::-1] if crop.flip else shown


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceReader:
    """Reads the positions of phrases of a split, with segments if requested."""

    manifest: Manifest
    segments: bool

    def plan(self, sample: int) -> PlacesPlan:
        """Locate the positions of a sample."""
        return PlacesPlan(
            sample=sample,
            boxes=self._range(sample, BOXES),
            segments=self._range(sample, SEGMENTS) if self.segments else None,
        )

    def read(self, plan: PlacesPlan, width: int, height: int, stats: Stats) -> Places:
        """Read the positions in an image of width x height pixels.

        Raises:
            SampleError: They are unusable.
        """
        boxes = self._array(plan.sample, BOXES, plan.boxes, stats)
        segments = self._array(plan.sample, SEGMENTS, plan.segments, stats)
        if boxes is not None:
            with self.manifest.reading(plan.sample, BOXES):
                _check_boxes(boxes)
        if segments is not None:
            with self.manifest.reading(plan.sample, SEGMENTS):
                segments = _unpacked(segments, width, height)
        return Places(boxes=boxes, segments=segments)

    def _range(self, sample: int, name: str) -> Range | None:
        component = self.manifest.components.get(name)
        held = component is not None and bool(component.offset[sample])
        return self.manifest.member(sample, name) if held else None

    def _array(self, sample: int, name: str, where: Range | None, stats: Stats) -> npt.NDArray[Any] | None:
        if where is None:
            return None
        with self.manifest.reading(sample, name):
            with stats.stage("read"):
                (data,) = self.manifest.store.read_many((where,))
            stats.read_bytes += len(data)
            return read_npy(data)


def crop_box(box: Float32s, crop: Crop, width: int, height: int) -> Float32s:
    """Convert a box x0, y0, x1, y1, as fractions of an image of width x height pixels, to fractions of a crop, clipped
    to it.
    """
    x = (box[[0, 2]] * width - crop.x) / crop.width
    y = (box[[1, 3]] * height - crop.y) / crop.height
    if crop.flip:
        x = 1 - x[::-1]
    return np.array([x[0], y[0], x[1], y[1]], np.float32).clip(0, 1)


def _check(number: int, n: int, what: str) -> None:
    if number >= n:
        raise DataError(f"has {n} {what} but none for phrase {number}")


def _check_boxes(boxes: npt.NDArray[Any]) -> None:
    if boxes.dtype != np.float32 or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"contains {boxes.dtype} {boxes.shape}, not float32 (n, 4)")
    if not ((boxes[:, :2] < boxes[:, 2:]).all() and (boxes >= 0).all() and (boxes <= 1).all()):
        raise DataError("has an invalid box: it must have x0 < x1 and y0 < y1, as fractions of the image size")


def _unpacked(segments: npt.NDArray[Any], width: int, height: int) -> Bools:
    if segments.dtype != np.uint8 or segments.ndim != 3 or segments.shape[1:] != (height, -(-width // 8)):
        raise DataError(
            f"contains {segments.dtype} {segments.shape}, not one bit per pixel of {width}x{height}, uint8 "
            f"(n, {height}, {-(-width // 8)})"
        )
    return np.unpackbits(segments, axis=-1, count=width).astype(np.bool_)
