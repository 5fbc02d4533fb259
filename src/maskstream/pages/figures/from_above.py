"""A walk seen from above: the way so far and to come, where it goes next, and what stands around.

Places are metres (right, forward) from the camera now, which is a cross and looks upwards on the page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .card import Drawing
from .strokes import Floats, dots

SIDE = 320.0
"""The width and height of the drawing in its own units."""
_MARGIN, _LEAST_M = 14.0, 3.0
_ARROW_M = 0.5
_SEEN_M = ((-3.5, 0.0), (3.5, 0.0), (0.0, 7.0))
"""Places that are in the drawing where it shows what is around."""


def from_above(
    *,
    clip: Floats,
    waypoint: Sequence[float],
    made: Sequence[float] | None = None,
    walk: Floats | None = None,
    around: Floats | None = None,
    title: str = "From above",
    alt: str = "walk from above",
) -> Drawing:
    """clip: places (T, 2) of the frames. waypoint, made: right, forward and turn to the right, the true one and the
    model's. walk: places (n, 2) of the whole walk. around: places (n, 2) of what the depth shows; what is far outside
    the drawing is left out.
    """
    ends = [clip, np.array([waypoint[:2]]), np.zeros((1, 2))]
    ends += [np.array([made[:2]])] if made is not None else []
    ends += [walk] if walk is not None else []
    ends += [np.array(_SEEN_M)] if around is not None else []
    every = np.concatenate(ends)
    low, high = every.min(axis=0), every.max(axis=0)
    reach = max(float((high - low).max()), _LEAST_M) + 2 * _ARROW_M
    scale, middle = (SIDE - 2 * _MARGIN) / reach, (low + high) / 2

    def on_page(places: Floats) -> Floats:
        return np.asarray(SIDE / 2 + (places - middle) * [scale, -scale])

    paths, keys = [], []
    if around is not None and len(around):
        placed = on_page(around)
        paths.append(("dot-hidden", dots(placed[((placed > 0) & (placed < SIDE)).all(axis=1)])))
    if walk is not None:
        paths.append(("line-hidden", _line(on_page(walk))))
        keys.append(("line-hidden", "the whole walk"))
    paths.append(("line-bold", _line(on_page(clip))))
    paths.append(("dot-visible", dots(on_page(clip))))
    paths.append(("line-visible", _cross(on_page(np.zeros((1, 2)))[0])))
    keys.append(("line-bold", "the clip's frames"))
    for place, dot, line, word in (
        (waypoint, "dot-kept", "line-visible", "where it went"),
        (made, "dot-gone", "line-made", "the model's"),
    ):
        if place is not None:
            tip = np.array(place[:2]) + _ARROW_M * np.array([np.sin(place[2]), np.cos(place[2])])
            paths.append((line, _line(on_page(np.stack([np.array(place[:2]), tip])))))
            paths.append((dot, dots(on_page(np.array([place[:2]])))))
            keys.append((dot, word))
    paths.append(("line-frame", f"M{_MARGIN:g} {SIDE - 4:g}h{scale:.1f}"))
    keys.append(("line-frame", "a metre, on the lower left"))
    return Drawing(
        paths=tuple(paths),
        width=SIDE,
        height=SIDE,
        alt=alt,
        title=title,
        keys=tuple(keys),
    )


def _line(places: Floats) -> str:
    """A path through places (n, 2) on the page."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places.tolist())


def _cross(place: npt.NDArray[np.floating]) -> str:
    x, y = place.tolist()
    return f"M{x - 5:.1f} {y:.1f}h10M{x:.1f} {y - 5:.1f}v10"
