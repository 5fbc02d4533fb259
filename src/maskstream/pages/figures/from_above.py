"""A walk seen from above: the way so far and to come, where it goes next, and what stands around.

Places are metres (right, forward) from the camera now, which looks upwards on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .card import Drawing
from .strokes import Floats, dots

SIDE = 320.0
"""The width and height of the drawing in its own units."""
_MARGIN, _LEAST_M = 14.0, 3.0
_ARROW_M = 0.5
_LONG, _BACK, _WIDE = 6.0, 3.0, 3.0
"""A pose's wedge, in units of the drawing: its tip, its base, and half of its width."""
_NOW = 1.9
"""How much larger the wedge of the camera now is."""
_BARS_M = (1, 2, 5, 10, 20, 50, 100)
_SEEN_M = ((-3.5, 0.0), (3.5, 0.0), (0.0, 7.0))
"""Places that are in the drawing where it shows what is around."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkAbove:
    """A walk on a level camera's axes. places: metres (n, 2), right and forward. looks: radians (n,), from forward to
    the right. now: the number of the pose that is the camera's. wedges: the poses that are drawn.
    """

    places: Floats
    looks: Floats
    now: int
    wedges: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What the depth of the camera's picture shows. things: places (n, 2) of what stands between knees and head. free:
    places (m, 2) of the edge of the free floor, from left to right.
    """

    things: Floats
    free: Floats


@dataclass(frozen=True, slots=True)
class _Page:
    """Turns places in metres into those on the page."""

    middle: Floats
    scale: float

    def __call__(self, places: Floats) -> Floats:
        return np.asarray(SIDE / 2 + (places - self.middle) * [self.scale, -self.scale])


def from_above(
    *,
    clip: WalkAbove,
    waypoint: Sequence[float],
    made: Sequence[float] | None = None,
    walk: WalkAbove | None = None,
    around: Around | None = None,
    alt: str = "walk from above",
) -> Drawing:
    """clip: the poses of the frames, the last of which is the camera. waypoint, made: right, forward and turn to the
    right, the true one and the model's. walk: the whole walk; beside a model's waypoint only what is near is drawn.
    """
    page = _page(clip, waypoint, made, walk if made is None else None, around)
    paths, keys = [], []
    if around is not None:
        here = page(np.zeros((1, 2)))
        paths.append(("area-free", _line(np.concatenate([here, _shortened(here, page(around.free))])) + "Z"))
        placed = page(around.things)
        paths.append(("dot-hidden", dots(placed[_within(placed)])))
        keys += [("area-free", "free floor"), ("dot-hidden", "what stands there")]
    if walk is not None:
        for name, word, part in (
            ("line-past", "the way walked", slice(0, walk.now + 1)),
            ("line-ahead", "the way to come", slice(walk.now, None)),
        ):
            paths.append((name, _line(page(walk.places[part]))))
            keys.append((name, word))
        for at in walk.wedges:
            name = "wedge-past" if at <= walk.now else "wedge-ahead"
            paths.append((name, _wedge(page(walk.places[at]), float(walk.looks[at]))))
    paths.append(("line-bold", _line(page(clip.places))))
    for place, look in zip(page(clip.places), clip.looks.tolist(), strict=True):
        paths.append(("wedge", _wedge(place, look)))
    paths.append(("wedge", _wedge(page(clip.places[-1]), float(clip.looks[-1]), size=_NOW)))
    keys.append(("line-bold", "the clip, now at the large wedge"))
    for goal, dot, line, word in (
        (waypoint, "dot-kept", "line-kept", "where it went"),
        (made, "dot-gone", "line-made", "the model's"),
    ):
        if goal is not None:
            x, y, turn = goal
            tip = [x + _ARROW_M * float(np.sin(turn)), y + _ARROW_M * float(np.cos(turn))]
            ends = page(np.array([[x, y], tip]))
            paths += [(line, _line(ends)), (dot, dots(ends[:1]))]
            keys.append((dot, word))
    bar = max((one for one in _BARS_M if one * page.scale <= SIDE / 3), default=_BARS_M[0])
    paths.append(("line-frame", f"M{_MARGIN:g} {SIDE - 9:g}v5h{bar * page.scale:.1f}v-5"))
    keys.append(("line-frame", f"the bar is {bar} m"))
    return Drawing(paths=tuple(paths), width=SIDE, height=SIDE, alt=alt, title="From above", keys=tuple(keys))


def _page(
    clip: WalkAbove,
    waypoint: Sequence[float],
    made: Sequence[float] | None,
    walk: WalkAbove | None,
    around: Around | None,
) -> _Page:
    """The scale at which all that matters is on the page."""
    ends = [clip.places, np.array([waypoint[:2]]), np.zeros((1, 2))]
    ends += [np.array([made[:2]])] if made is not None else []
    ends += [walk.places] if walk is not None else []
    ends += [np.array(_SEEN_M)] if around is not None else []
    every = np.concatenate(ends)
    low, high = every.min(axis=0), every.max(axis=0)
    reach = max(float((high - low).max()), _LEAST_M) + 2 * _ARROW_M
    return _Page((low + high) / 2, (SIDE - 2 * _MARGIN) / reach)


def _within(places: Floats) -> npt.NDArray[np.bool_]:
    """Which places (n, 2) are on the page."""
    return np.asarray(((places >= 0) & (places <= SIDE)).all(axis=-1))


def _shortened(start: Floats, ends: Floats) -> Floats:
    """The ends (n, 2) of lines from `start` (1, 2), which is on the page, or where the lines leave the page."""
    way = ends - start
    room = np.where(way > 0, SIDE - start, start)
    share = np.divide(room, np.abs(way), out=np.ones_like(way), where=np.abs(way) > room).min(axis=1, keepdims=True)
    return np.asarray((start + share * way).clip(0, SIDE))


def _line(places: Floats) -> str:
    """A path through places (n, 2) on the page; it is broken where they are beside it."""
    path, pen = "", "M"
    for (x, y), inside in zip(places.tolist(), _within(places).tolist(), strict=True):
        path, pen = (path + f"{pen}{x:.1f} {y:.1f}", "L") if inside else (path, "M")
    return path


def _wedge(place: Floats, look: float, size: float = 1.0) -> str:
    """A pose: a narrow triangle that points to where the camera looks; nothing beside the page."""
    if not _within(place):
        return ""
    x, y = place.tolist()
    ahead, aside = np.array([np.sin(look), -np.cos(look)]), np.array([np.cos(look), np.sin(look)])
    corners = [size * one for one in (_LONG * ahead, _WIDE * aside - _BACK * ahead, -_WIDE * aside - _BACK * ahead)]
    return "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in corners) + "Z"
