"""Records walks through the mazes of MiniWorld, which draws colours and depth in metres without a screen.

Source: Chevalier-Boisvert et al., Minigrid & Miniworld, NeurIPS 2023; the package miniworld (Apache-2.0). A maze is
drawn from its number, with boxes as obstacles, and with colours, light and camera of its own (domain randomisation).
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.trajectory.encoder import Walk, millimetres
from maskstream.preprocess.source import RejectError
from maskstream.samples.package_version import require_version
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.camera_pose import Floats, level_pose

from .explorer import Explorer, StuckError
from .floor_plan import FloorPlan

VERSION = "2.1.0"
"""The version of the package, which decides what is drawn."""
NO_GL = (
    "MiniWorld cannot draw here ({}); on Debian `apt-get install libegl1 libgl1 libglu1-mesa libgl1-mesa-dri` lets it "
    "draw without a screen or GPU"
)
WIDTH, HEIGHT = 160, 120
FPS = 7
"""As many frames a second as in walks of ViZDoom."""
_BOXES = 6
_CELL_M, _BODY_M, _DRAWN = 0.125, 0.35, 16
_STEPS = 5
"""Steps of the body from one frame to the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniworldWalk:
    """A walk of `frames` frames, 7 a second, in a maze of `rooms` x `rooms` rooms of 3 m. maze: draws the maze; seed:
    draws start and goals.
    """

    maze: int
    seed: int
    frames: int = 96
    rooms: int = 5

    def record(self) -> Walk:
        """The walk. Raises DatasetError if miniworld is not installed or nothing can be drawn, RejectError if there is
        nowhere to go.
        """
        check_miniworld()
        with _maze(self) as env:
            rng = np.random.Generator(np.random.Philox(self.seed))
            explorer = Explorer(plan=floor_plan(env), rng=rng, step_s=1 / FPS)
            try:
                return _walked(env, explorer, self.frames)
            except StuckError as error:
                raise RejectError("check", f"there is no walk of {self.frames} frames in {self}: {error}") from error


def check_miniworld() -> None:
    """Raises DatasetError unless miniworld is installed in its `VERSION`."""
    require_version("miniworld", VERSION, work="walks through mazes of MiniWorld are recorded", extra="walks")


@contextmanager
def _maze(walk: MiniworldWalk) -> Iterator[Any]:
    """The maze with its obstacles."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            env = _drawn(walk)
        except Exception as error:  # of libraries of graphics, each with errors of its own
            raise DatasetError(NO_GL.format(f"{type(error).__name__}: {error}")) from error
        try:
            yield env
        finally:
            env.close()


def _drawn(walk: MiniworldWalk) -> Any:
    import pyglet

    pyglet.options["headless"] = True  # read when pyglet's windows are imported, by miniworld
    from miniworld.entity import COLOR_NAMES, Box
    from miniworld.envs.maze import Maze

    env = Maze(num_rows=walk.rooms, num_cols=walk.rooms, obs_width=WIDTH, obs_height=HEIGHT, domain_rand=True)
    env.reset(seed=walk.maze)
    rng = np.random.Generator(np.random.Philox(walk.maze))
    for _ in range(_BOXES):
        color, size = COLOR_NAMES[int(rng.integers(len(COLOR_NAMES)))], float(rng.uniform(0.5, 0.9))
        env.place_entity(Box(color=color, size=size)).randomize(env.params, env.np_random)
    return env


def floor_plan(env: Any) -> FloorPlan:
    """Where the agent can walk: in rooms, not near walls or boxes. x is MiniWorld's x, and y its -z."""
    outlines = [np.stack([room.outline[:, 0], -room.outline[:, 2]], axis=1) for room in env.rooms]
    low = np.concatenate(outlines).min(axis=0) - 1
    columns, rows = np.ceil((np.concatenate(outlines).max(axis=0) + 1 - low) / _CELL_M).astype(int).tolist()
    floor, walls = np.zeros((rows, columns), np.uint8), np.zeros((rows, columns), np.uint8)

    def on_grid(places: Floats) -> npt.NDArray[np.int32]:
        return np.asarray(np.rint(_DRAWN * ((places - low) / _CELL_M - 0.5)), dtype=np.int32)

    for outline in outlines:
        cv2.fillPoly(floor, [on_grid(outline)], 1, shift=4)
    for first, last in on_grid(np.stack([env.wall_segs[..., 0], -env.wall_segs[..., 2]], axis=-1)).tolist():
        cv2.line(walls, first, last, 1, shift=4)
    for entity in env.entities:
        if entity is not env.agent:
            middle = on_grid(np.array([entity.pos[0], -entity.pos[2]])).tolist()
            cv2.circle(walls, middle, round(_DRAWN * entity.radius / _CELL_M), 1, thickness=-1, shift=4)
    corner = (float(low[0]), float(low[1]))
    return FloorPlan.of((floor == 1) & (walls == 0), _CELL_M, corner, _BODY_M)


def _walked(env: Any, explorer: Explorer, frames: int) -> Walk:
    place, heading = explorer.begin()
    path, pictures, depth = [], [], []
    for _ in range(frames):
        env.agent.pos, env.agent.dir = np.array([place[0], 0.0, -place[1]]), heading
        x, up, z = env.agent.cam_pos
        path.append(level_pose(np.array([x, -z, up]), heading))
        pictures.append(np.ascontiguousarray(env.render_obs()))
        depth.append(millimetres(env.render_depth()[:, :, 0].astype(np.float64)))
        speed, turn = explorer.decide(place, heading)
        for _ in range(_STEPS):
            heading += turn / FPS / _STEPS
            place = place + speed / FPS / _STEPS * np.array([np.cos(heading), np.sin(heading)])
    focal = HEIGHT / 2 / np.tan(np.deg2rad(float(env.agent.cam_fov_y)) / 2)
    return Walk(
        frames=pictures,
        depth=depth,
        path=np.stack(path),
        lens=(float(focal), float(focal), WIDTH / 2, HEIGHT / 2),
        fps=FPS,
    )
