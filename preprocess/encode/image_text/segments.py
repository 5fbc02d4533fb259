"""The segments of phrases, as COCO writes them in instances.json, drawn by COCO's own rules. Needs pycocotools.

    {"phrase": ["the left lion"], "segment": [[[12, 40, 92, 40, 92, 100]]]}

A segment is a list of polygons, each x0, y0, x1, y1, ... in pixels of the first picture, whose union it is; or runs:
{"size": [height, width], "counts": [...]}, lengths of runs of 0 and 1 in turn, down the columns, or the same as a
compressed string.

Source: Lin et al., Microsoft COCO, ECCV 2014, and the COCO API's description of masks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError

SEGMENT = "segment"
_BEYOND = 1.0
"""So many pixels a polygon may lie outside of its picture."""


def mask_module() -> Any:
    """The module `pycocotools.mask`. Raises DatasetError if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise DatasetError("segments of COCO are drawn with pycocotools: pip install 'maskstream[coco]'") from error
    return mask


def segments_of(meta: Mapping[str, Any], phrases: int, width: int, height: int) -> npt.NDArray[np.bool_] | None:
    """The segment of each phrase in a picture of width x height pixels, bool (n, height, width).

    None for a source without segments. RejectError for another number of segments, and for one that is none or does not
    fit the picture. DatasetError if pycocotools is not installed.
    """
    if SEGMENT not in meta:
        return None
    given = meta[SEGMENT]
    if not isinstance(given, Sequence) or len(given) != phrases:
        raise RejectError("check", f"has {len(given)} segments for {phrases} phrases")
    drawn: list[npt.NDArray[np.bool_]] = []
    for n, one in enumerate(given):
        drawn.append(drawn[-1] if n and one is given[n - 1] else drawn_segment(one, width, height))
    return np.stack(drawn) if drawn else np.empty((0, height, width), np.bool_)


def drawn_segment(segment: Any, width: int, height: int) -> npt.NDArray[np.bool_]:
    """One segment, bool (height, width)."""
    mask = mask_module()
    try:
        if isinstance(segment, Mapping):
            if list(segment["size"]) != [height, width]:
                raise ValueError(f"it is of {segment['size']}, the picture of {[height, width]}")
            runs = (
                [mask.frPyObjects(dict(segment), height, width)] if isinstance(segment["counts"], list) else [segment]
            )
        else:
            runs = mask.frPyObjects([_polygon(one, width, height) for one in segment], height, width)
        if not runs:
            raise ValueError("it has no polygon")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools speaks to NumPy in an old way
            found = np.asarray(mask.decode(mask.merge(runs)), np.bool_)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise RejectError("check", f"has a segment that is neither polygons nor runs of COCO ({error})") from error
    if found.shape != (height, width):
        raise RejectError("check", f"has a segment of {found.shape}, its picture is {(height, width)}")
    return found


def _polygon(points: Any, width: int, height: int) -> list[float]:
    """The polygon, x and y in turn. ValueError for one of fewer than three points, or outside the picture."""
    places = np.array(points, np.float64)
    if places.ndim != 1 or len(places) < 6 or len(places) % 2:
        raise ValueError(f"a polygon has three points and more, x and y in turn, not the shape {places.shape}")
    beyond = np.maximum(-places, places - np.tile([width, height], len(places) // 2))
    if not (beyond <= _BEYOND).all():
        raise ValueError(f"a polygon lies outside the picture of {width}x{height} pixels")
    return [float(one) for one in places]
