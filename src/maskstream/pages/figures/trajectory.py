"""Figures of trajectories: frames with depth, visible tokens, and the trajectory from above.

The view from above has the past and future path, the next waypoint, and nearby obstacles. Positions are metres (right,
forward) from the current camera, which looks upwards on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskstream.pipelines.modalities.trajectory.batch import TrajectoryBatch
from maskstream.pipelines.modalities.trajectory.rows import CAMERA
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.shards.arrays import Float64s, UInt8s
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.camera_pose import mirrored, seen_from, turned
from maskstream.shards.media.npy import read_npy

from .card import Card, Drawing, PictureGrid, join_picture_row
from .chart import Floats, draw_dots
from .figures import find_sample
from .pictures import Grid, coloured, picture, spread
from .video import VideoFigures

SIDE = 320.0
"""The width and height of the drawing in its own units."""
_MARGIN, _LEAST_M = 14.0, 3.0
_ARROW_M = 0.5
_LONG, _BACK, _WIDE = 6.0, 3.0, 3.0
"""A pose's wedge, in units of the drawing: its tip, its base, and half of its width."""
_NOW = 1.9
"""How much larger the current camera's wedge is."""
_BARS_M = (1, 2, 5, 10, 20, 50, 100)
_SEEN_M = ((-3.5, 0.0), (3.5, 0.0), (0.0, 7.0))
"""Positions that the drawing includes if it has surroundings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkAbove:
    """A trajectory on a level camera's axes.

    Attributes:
        places: Metres right and forward, (n, 2).
        looks: Heading from forward to the right in radians, (n,).
        now: Index of the camera's pose.
        wedges: Indices of the drawn poses.
    """

    places: Floats
    looks: Floats
    now: int
    wedges: Sequence[int] = ()


Around = tuple[Floats, Floats]
"""Surroundings from the depth of the image: positions (n, 2) of obstacles between knees and head, and positions
(m, 2) of the edge of the free floor, from left to right.
"""


def from_above(
    *,
    clip: WalkAbove,
    waypoint: Sequence[float],
    made: Sequence[float] | None = None,
    walk: WalkAbove | None = None,
    around: Around | None = None,
    alt: str = "trajectory from above",
) -> Drawing:
    """Draw a trajectory from above.

    Args:
        clip: Poses of the frames, the last of which is the camera.
        waypoint: True waypoint: right, forward, and turn to the right.
        made: The model's waypoint; with it only the nearby part is drawn.
        walk: The whole trajectory.
        around: The surroundings.
        alt: Alternative text.
    """
    shown = [clip.places, np.array([waypoint[:2], (0.0, 0.0)])]
    shown += [np.array([made[:2]])] if made is not None else [] if walk is None else [walk.places]
    shown += [np.array(_SEEN_M)] if around is not None else []
    low, high = np.concatenate(shown).min(axis=0), np.concatenate(shown).max(axis=0)
    scale = (SIDE - 2 * _MARGIN) / (max(float((high - low).max()), _LEAST_M) + 2 * _ARROW_M)

    def placed(places: Floats) -> Floats:
        return np.asarray(SIDE / 2 + (places - (low + high) / 2) * [scale, -scale])

    def wedges(name: str, of: WalkAbove, poses: Sequence[int], size: float = 1.0) -> list[tuple[str, str]]:
        return [(name, _draw_wedge(placed(of.places[at]), float(of.looks[at]), size)) for at in poses]

    paths, keys = [], []
    if around is not None:
        things, free = around
        floor = np.concatenate([np.zeros((1, 2)), free])
        paths += [("area-free", _draw_line(placed(floor)) + "Z"), ("dot-hidden", draw_dots(placed(things)))]
        keys += [("area-free", "free floor"), ("dot-hidden", "obstacles")]
    if walk is not None:
        past, ahead = (placed(walk.places[part]) for part in (slice(walk.now + 1), slice(walk.now, None)))
        paths += [("line-past", _draw_line(past)), ("line-ahead", _draw_line(ahead))]
        keys += [("line-past", "path so far"), ("line-ahead", "future path")]
        paths += wedges("wedge-past", walk, [at for at in walk.wedges if at <= walk.now])
        paths += wedges("wedge-ahead", walk, [at for at in walk.wedges if at > walk.now])
    paths.append(("line-bold", _draw_line(placed(clip.places))))
    paths += wedges("wedge", clip, range(len(clip.places))) + wedges("wedge", clip, [-1], _NOW)
    keys.append(("line-bold", "the clip; the large wedge is the current position"))
    for goal, dot, line, word in (
        (waypoint, "dot-kept", "line-kept", "actual position"),
        (made, "dot-gone", "line-made", "the model's"),
    ):
        if goal is not None:
            x, y, turn = goal
            ends = placed(np.array([[x, y], [x + _ARROW_M * np.sin(turn), y + _ARROW_M * np.cos(turn)]]))
            paths += [(line, _draw_line(ends)), (dot, draw_dots(ends[:1]))]
            keys.append((dot, word))
    bar = max((one for one in _BARS_M if one * scale <= SIDE / 3), default=_BARS_M[0])
    paths.append(("line-frame", f"M{_MARGIN:g} {SIDE - 9:g}v5h{bar * scale:.1f}v-5"))
    keys.append(("line-frame", f"the bar is {bar} m"))
    return Drawing(paths=tuple(paths), width=SIDE, height=SIDE, alt=alt, title="From above", keys=tuple(keys))


def _draw_line(places: Floats) -> str:
    """Return a path through positions (n, 2); parts outside the box are cut off."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places.tolist())


def _draw_wedge(place: Floats, look: float, size: float) -> str:
    """Return a pose as a narrow triangle that points in the camera's direction."""
    ahead, aside = np.array([np.sin(look), -np.cos(look)]), np.array([np.cos(look), np.sin(look)])
    corners = (_LONG * ahead, _WIDE * aside - _BACK * ahead, -_WIDE * aside - _BACK * ahead)
    return _draw_line(np.stack([place + size * corner for corner in corners])) + "Z"


FARTHEST_M = 10.0
"""Distance at which the colours of depth end."""
SHOWN_FRAMES = 4
"""Largest number of a clip's frames next to its trajectory."""
_HIGH_M, _LOW_M = 0.6, 0.7
"""Range of obstacles above and below the camera, in metres."""
_POINTS = 1500
_WEDGE_S = 1.0
"""Seconds between two drawn poses of a whole trajectory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryFigures:
    """Figures of trajectory clips; whole trajectories are read from `manifest`."""

    grid: Grid
    manifest: Manifest
    clip: str = ""
    ahead_s: float = 2.0

    def about(self, batch: TrajectoryBatch) -> tuple[str, dict[str, str]]:
        """Describe the clips and their tokens."""
        lede, facts = self._video.about(_draw_video(batch))
        more = (
            " Depth has the same frames, crops and masks. Trajectories are drawn from above, with the camera of "
            "the clip's last frame at the large wedge, facing up; wedges point in the camera's direction."
        )
        return lede + more, {"clip": facts["clip"], "waypoint": f"{self.ahead_s:g} s after the last frame"}

    def sample(self, batch: TrajectoryBatch, i: int) -> Card:
        """Draw frames, their visible tokens, depth, and the whole trajectory from above.

        Args:
            batch: The batch.
            i: Row.
        """
        card = self._video.sample(_draw_video(batch), i)
        figures = (*card.figures, *_draw_depths(batch, i), self._draw_from_above(batch, i, "walk"))
        missing = tuple(one for one in card.missing if "flow" not in one)
        return replace(card, figures=figures, missing=missing, label=None)

    def compared(self, batch: TrajectoryBatch, made: TrajectoryBatch, i: int) -> Card:
        """Draw the clip from above with the true waypoint and the model's, next to its frames.

        Args:
            batch: The original batch.
            made: The predicted batch.
            i: Row.
        """
        off_m = float((made.waypoint[i, :2] - batch.waypoint[i, :2]).norm())
        frames = _join_row(
            batch, i, batch.video[i].numpy(), "frame", title="Frames", words="The last one is the current frame."
        )
        above = self._draw_from_above(batch, i, "waypoints", made=made.waypoint[i].tolist())
        words = f"{off_m:.2f} m off, {self.ahead_s:g} s ahead"
        return Card(key=batch.key[i], words=words, figures=(frames, *_draw_depths(batch, i), above))

    @property
    def _video(self) -> VideoFigures:
        return VideoFigures(grid=self.grid, clip=self.clip)

    def _draw_from_above(
        self, batch: TrajectoryBatch, i: int, what: str, made: Sequence[float] | None = None
    ) -> Drawing:
        poses = batch.pose[i].double().numpy()
        return from_above(
            clip=_draw_way(poses, now=len(poses) - 1),
            waypoint=batch.waypoint[i].tolist(),
            made=made,
            walk=self._walk(batch, i),
            around=_draw_surroundings(batch, i),
            alt=f"{what} of {batch.key[i]} from above",
        )

    def _walk(self, batch: TrajectoryBatch, i: int) -> WalkAbove:
        """Return the whole trajectory, with a wedge for each second."""
        index = find_sample(self.manifest, batch.key[i])
        (data,) = self.manifest.store.read_many((self.manifest.member(index, CAMERA),))
        path, fps = read_npy(data), self.manifest.video(index, "mp4").fps
        first, now = (round(float(batch.pts_s[i, frame]) * fps) for frame in (0, -1))
        seen, wanted = seen_from(path, path[now]), batch.pose[i, 0, :3].double().numpy()
        nearest = min((seen, mirrored(seen)), key=lambda way: float(np.linalg.norm(way[first, :3] - wanted)))
        every = max(round(_WEDGE_S * fps), 1)
        wedges = [*range(first - every, -1, -every), *range(now + every, len(nearest), every)]
        return _draw_way(nearest, now=now, wedges=wedges)


def _draw_video(batch: TrajectoryBatch) -> VideoBatch:
    """Return the colour frames of a batch."""
    return VideoBatch(
        video=batch.video, mask=batch.mask, flow=None, pts_s=batch.pts_s, label=batch.label, key=batch.key
    )


def _draw_way(poses: Float64s, *, now: int, wedges: Sequence[int] = ()) -> WalkAbove:
    """Return poses (n, 7) on a level camera's axes as a trajectory."""
    ahead = turned(poses[:, 3:], np.broadcast_to([0.0, 0.0, 1.0], (len(poses), 3)))
    return WalkAbove(places=poses[:, [0, 2]], looks=np.arctan2(ahead[:, 0], ahead[:, 2]), now=now, wedges=wedges)


def _draw_surroundings(batch: TrajectoryBatch, i: int) -> Around | None:
    """Return the obstacles in the depth of the last frame between knees and head, and the free floor in each direction:
    up to the first obstacle, or to the farthest visible point.
    """
    if batch.depth is None:
        return None
    depth, (fx, fy, cx, cy) = batch.depth[i, -1].double().numpy(), batch.lens[i].tolist()
    rows, columns = np.indices(depth.shape) + 0.5
    right, down = (columns - cx) / fx * depth, (rows - cy) / fy * depth
    stands = (depth > 0) & (down > -_HIGH_M) & (down < _LOW_M)
    first = np.where(stands, depth, np.inf).min(axis=0)
    reach = np.where(np.isfinite(first), first, depth.max(axis=0))
    things = np.stack([right[stands], depth[stands]], axis=1)
    return things[:: max(len(things) // _POINTS, 1)], np.stack([(columns[0] - cx) / fx * reach, reach], axis=1)


def _draw_depths(batch: TrajectoryBatch, i: int) -> tuple[PictureGrid, ...]:
    """Draw depth (T, H, W) in metres, if the batch has it."""
    if batch.depth is None:
        return ()
    depth = batch.depth[i].numpy()
    colours = np.stack([coloured(one, 0.0, FARTHEST_M) for one in depth])
    pixels = np.where(depth[..., None] > 0, colours, 0).astype(np.uint8)
    words = "Metres along the camera's axis; black where it is unknown."
    return (_join_row(batch, i, pixels, "depth", title="Depth", words=words, scale=(0.0, FARTHEST_M)),)


def _join_row(batch: TrajectoryBatch, i: int, frames: UInt8s, word: str, **more: Any) -> PictureGrid:
    """Draw some of the frames (T, H, W, 3) of a clip."""
    shown = spread(len(frames), SHOWN_FRAMES).tolist()
    key, times = batch.key[i], batch.pts_s[i].tolist()
    return join_picture_row(
        *(picture(frames[t], f"{word} {t + 1} of {key}", f"{times[t]:.2f} s") for t in shown), **more
    )
