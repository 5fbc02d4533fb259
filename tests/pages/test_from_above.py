"""A walk from above: ways, poses, the free floor and the bar are where the metres say, all at one scale."""

from __future__ import annotations

import re

import numpy as np

from maskstream.pages.figures.card import Drawing
from maskstream.pages.figures.trajectory import SIDE, WalkAbove, from_above

WALK = WalkAbove(
    places=np.stack([np.linspace(-2, 1, 31), np.linspace(-4, 5, 31)], axis=1),
    looks=np.full(31, np.arctan2(3, 9)),
    now=13,
    wedges=(3, 13, 23),
)
CLIP = WalkAbove(places=WALK.places[7:14:3] - WALK.places[13], looks=np.zeros(3), now=2)
WAYPOINT, MADE = (1.5, 2.0, 0.5), (-1.0, 2.5, -0.5)


def points(drawing: Drawing, name: str) -> np.ndarray:
    """All points (n, 2) of the paths of a class."""
    found = [m for kind, path in drawing.paths if kind == name for m in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]
    return np.array(found, float).reshape(-1, 2)


def scale_of(drawing: Drawing) -> tuple[float, float]:
    """Units of the drawing a metre, by the bar, and the metres that its key tells."""
    ((_, path),) = [one for one in drawing.paths if one[0] == "line-frame"]
    metres = float(re.search(r"the bar is (\d+) m", dict(drawing.keys)["line-frame"])[1])  # type: ignore[index]
    return float(re.search(r"h([\d.]+)", path)[1]) / metres, metres  # type: ignore[index]


def test_everything_is_at_the_scale_of_the_bar() -> None:
    drawing = from_above(clip=CLIP, waypoint=WAYPOINT, walk=WALK)
    scale, metres = scale_of(drawing)
    assert metres * scale <= SIDE / 3
    here = points(drawing, "line-bold")[-1]
    goal = points(drawing, "dot-kept")[0]
    np.testing.assert_allclose(goal - here, scale * np.array([1.5, -2.0]), atol=0.3)
    past, ahead = points(drawing, "line-past"), points(drawing, "line-ahead")
    np.testing.assert_allclose(past[13] - past[0], scale * (WALK.places[13] - WALK.places[0]) * [1, -1], atol=0.3)
    np.testing.assert_allclose(ahead[17] - ahead[0], scale * (WALK.places[30] - WALK.places[13]) * [1, -1], atol=0.3)
    every = np.concatenate([points(drawing, name) for name in dict(drawing.paths)])
    assert 0 <= every.min() <= every.max() <= SIDE


def test_a_wedge_points_to_where_the_camera_looks() -> None:
    drawing = from_above(clip=CLIP, waypoint=WAYPOINT, walk=WALK)
    for name, looks, count in (
        ("wedge-past", WALK.looks, 2),
        ("wedge-ahead", WALK.looks, 1),
        ("wedge", CLIP.looks, 4),
    ):
        wedges = [path for kind, path in drawing.paths if kind == name]
        assert len(wedges) == count
        for path in wedges:
            tip, left, right = np.array(re.findall(r"([-\d.]+) ([-\d.]+)", path), float)
            across, along = tip - (left + right) / 2
            assert abs(np.arctan2(across, -along) - looks[0]) < 0.05
            assert np.hypot(across, along) > np.linalg.norm(left - right)


def test_beside_a_models_waypoint_only_what_is_near_is_drawn() -> None:
    far = WalkAbove(places=WALK.places * 20, looks=WALK.looks, now=13, wedges=WALK.wedges)
    drawing = from_above(clip=CLIP, waypoint=WAYPOINT, made=MADE, walk=far)
    scale, _ = scale_of(drawing)
    here = points(drawing, "line-bold")[-1]
    np.testing.assert_allclose(points(drawing, "dot-gone")[0] - here, scale * np.array([-1.0, -2.5]), atol=0.3)
    tip = points(drawing, "line-made")[1] - points(drawing, "line-made")[0]
    np.testing.assert_allclose(np.arctan2(tip[0], -tip[1]), MADE[2], atol=0.05)
    near = np.concatenate([points(drawing, name) for name in ("line-bold", "dot-gone", "dot-kept")])
    assert 0 <= near.min() <= near.max() <= SIDE
    assert np.ptp(points(drawing, "line-past")) > SIDE  # the box of the drawing cuts it off


def test_the_free_floor_lies_along_its_rays() -> None:
    free = np.array([[-3.0, 3.0], [0.0, 2.0], [400.0, 400.0]])
    around = (np.array([[0.0, 2.0], [90.0, 90.0]]), free)
    drawing = from_above(clip=CLIP, waypoint=WAYPOINT, around=around)
    start, left, middle, right = points(drawing, "area-free")
    scale, _ = scale_of(drawing)
    np.testing.assert_allclose(left - start, scale * np.array([-3.0, -3.0]), atol=0.3)
    np.testing.assert_allclose(middle - start, scale * np.array([0.0, -2.0]), atol=0.3)
    np.testing.assert_allclose(right[0] - start[0], start[1] - right[1], atol=0.3)  # at 45 degrees
    assert len(points(drawing, "dot-hidden")) == 2
