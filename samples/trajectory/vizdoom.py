"""Records walks through the maps of Freedoom in ViZDoom, which draws colours and depth without a screen or a GPU.

Source: Kempka et al., ViZDoom: A Doom-based AI Research Platform for Visual Reinforcement Learning, CIG 2016; the
package vizdoom (MIT), which ships the maps of Freedoom (BSD-3-Clause). A map is seen without monsters. 32 units of a
map are a metre, so eyes are 1.28 m above the floor.
"""

from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.trajectory.encoder import UInt16s, Walk, millimetres
from maskstream.preprocess.source import RejectError
from maskstream.samples.package_version import require_version
from maskstream.shards.media.camera_pose import Floats, level_pose

from .explorer import AREA_M2, Explorer, StuckError
from .floor_plan import FloorPlan

VERSION = "1.3.2"
"""The version of the package, which decides what is drawn."""
Wad = Literal["freedoom1", "freedoom2"]
UNITS = 32.0
"""Units of a map in a metre."""
TICS, EVERY = 35, 5
"""The game's steps a second, and from one frame to the next."""
WIDTH, HEIGHT = 160, 120
LENS = (80.0, 89.0, 80.0, 60.0)
"""90 degrees from left to right; the focal length upwards was measured on floors, for Doom's pixels are not square."""
_LEVEL, _ZERO = 7.16, 2.5
"""Units of depth in one of its 255 levels, and before the first; measured against the walls of maps."""
_THRUST = 3.0
"""The button's value for a steady speed of a unit a step."""
_CELL, _BODY, _STEP, _TALL = 16, 20.0, 24, 56
"""In units: a cell of a floor plan, a person's radius, the highest step and the lowest ceiling."""
_TRIES = 6
_JUMP_M = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class VizdoomWalk:
    """A walk of `frames` frames, 7 a second. wad, map: such as "freedoom2" and "MAP01". seed: draws start and goals."""

    wad: Wad
    map: str
    seed: int
    frames: int = 96

    def record(self) -> Walk:
        """The walk. Raises DatasetError if vizdoom is not installed, RejectError if no walk of this length is found."""
        check_vizdoom()
        with _game(self) as game:
            plan = floor_plan(game.get_state().sectors)
            if plan.area_m2 < AREA_M2:
                raise RejectError("check", f"{self.map} of {self.wad} has {plan.area_m2:.0f} m2 to walk in")
            rng, reason = np.random.Generator(np.random.Philox(self.seed)), ""
            for _ in range(_TRIES):
                try:
                    return _walked(game, Explorer(plan=plan, rng=rng, step_s=EVERY / TICS), self.frames)
                except StuckError as error:
                    reason = str(error)
                    game.new_episode()
            raise RejectError(
                "check", f"no walk of {self.frames} frames was found in {_TRIES} tries; the last {reason}"
            )


def check_vizdoom() -> None:
    """Raises DatasetError unless vizdoom is installed in its `VERSION`."""
    require_version("vizdoom", VERSION, work="walks through maps of Freedoom are recorded", extra="walks")


@contextmanager
def _game(walk: VizdoomWalk) -> Iterator[Any]:
    """The running game, in which a map has just begun."""
    import vizdoom

    game, button, variable = vizdoom.DoomGame(), vizdoom.Button, vizdoom.GameVariable
    with TemporaryDirectory() as folder:
        game.set_doom_config_path(str(Path(folder) / "vizdoom.ini"))
        game.set_doom_game_path(str(Path(vizdoom.__file__).parent / f"{walk.wad}.wad"))
        game.set_doom_map(walk.map)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_depth_buffer_enabled(True)
        game.set_sectors_info_enabled(True)
        for hide in ("hud", "weapon", "crosshair", "particles", "messages", "decals"):
            getattr(game, f"set_render_{hide}")(False)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_available_buttons([button.MOVE_FORWARD_BACKWARD_DELTA, button.TURN_LEFT_RIGHT_DELTA])
        names = ("POSITION_X", "POSITION_Y", "CAMERA_POSITION_Z", "ANGLE")
        game.set_available_game_variables([getattr(variable, name) for name in names])
        game.set_seed(walk.seed % (1 << 31))
        game.set_episode_timeout(0)
        game.add_game_args("-nomonsters +viz_nocheat 0 +movebob 0 +pickup_fade_scalar 0 +hud_scale 0")
        with chdir(folder):  # the game keeps what it computed of a map in the folder that it is started in
            game.init()
        try:
            yield game
        finally:
            game.close()


def _walked(game: Any, explorer: Explorer, frames: int) -> Walk:
    """A walk from a start that the explorer draws. StuckError if it does not go on."""
    game.send_game_command("god")
    start, first = explorer.begin()
    game.send_game_command("warp {} {}".format(*(int(unit) for unit in np.rint(start * UNITS))))
    _act(game, 0, 0.0, 10)
    here = _seen(game)
    if np.linalg.norm(here[:2] - start) > 0.2:
        raise StuckError(f"the game does not let it stand at {start.round(1).tolist()}")
    _act(game, 0, float(np.rad2deg(here[3] - first)), 1)
    path, pictures, depth, owed = [], [], [], 0.0
    for _ in range(frames):
        state, before = game.get_state(), here
        if state is None or game.is_player_dead():
            raise StuckError("the map ended")
        here = _seen(game)
        if np.linalg.norm(here[:2] - before[:2]) > _JUMP_M:
            raise StuckError("it was moved to another place of the map")
        path.append(level_pose(here[:3], float(here[3])))
        pictures.append(np.ascontiguousarray(state.screen_buffer))
        depth.append(depth_of_levels(state.depth_buffer))
        speed, turn = explorer.decide(here[:2], float(here[3]))
        wanted = _THRUST * speed * UNITS / TICS + owed
        owed = wanted - round(wanted)  # the button takes whole numbers
        _act(game, round(wanted), -float(np.rad2deg(turn)) / TICS, EVERY)
    return Walk(frames=pictures, depth=depth, path=np.stack(path), lens=LENS, fps=TICS // EVERY)


def _act(game: Any, forward: int, right: float, tics: int) -> None:
    """Presses the buttons for some steps; right: degrees a step."""
    if not game.is_episode_finished():
        game.make_action([forward, right], tics)


def _seen(game: Any) -> Floats:
    """x, y and z of the camera in metres, and its heading in radians. StuckError if the map has ended."""
    state = game.get_state()
    if state is None:
        raise StuckError("the map ended")
    x, y, z, degrees = state.game_variables.tolist()
    return np.array([x / UNITS, y / UNITS, z / UNITS, np.deg2rad(degrees)])


def depth_of_levels(levels: npt.NDArray[np.uint8]) -> UInt16s:
    """The game's levels of depth, uint8 (H, W), in millimetres; a level is 22 cm, and the farthest, 255, is unknown."""
    metres = (_LEVEL * (levels.astype(np.float64) + 0.5) + _ZERO) / UNITS
    return millimetres(np.where(levels < 255, metres, np.nan))


def floor_plan(sectors: Any) -> FloorPlan:
    """Where a person can walk on the sectors of a map: on floors under a ceiling that is high enough, over steps that
    are low enough, and not through lines that block.
    """
    lines = [(line.x1, line.y1, line.x2, line.y2, line.is_blocking) for each in sectors for line in each.lines]
    table = np.array(lines, dtype=np.float64)
    low = np.floor(table[:, :4].reshape(-1, 2).min(axis=0) / _CELL) - 2
    columns, rows = (np.ceil(table[:, :4].reshape(-1, 2).max(axis=0) / _CELL) - low + 2).astype(int).tolist()
    floor = np.full((rows, columns), np.nan, dtype=np.float32)
    for sector in sectors:
        if sector.ceiling_height - sector.floor_height >= _TALL:
            ends = np.array([(line.x1, line.y1, line.x2, line.y2) for line in sector.lines])
            floor[_filled(ends / _CELL - np.tile(low, 2), (rows, columns))] = sector.floor_height
    open_ = np.isfinite(floor)
    for axis in (0, 1):
        high = np.abs(np.diff(floor, axis=axis)) > _STEP
        after, before = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
        after[axis], before[axis] = (1, 0), (0, 1)
        open_ &= ~(np.pad(high, after) | np.pad(high, before))
    walls = np.zeros((rows, columns), dtype=np.uint8)
    for x1, y1, x2, y2 in (
        np.rint(8 * (table[table[:, 4] > 0, :4] / _CELL - np.tile(low, 2) - 0.5)).astype(int).tolist()
    ):
        cv2.line(walls, (x1, y1), (x2, y2), 1, shift=3)
    corner = (float(low[0]) * _CELL / UNITS, float(low[1]) * _CELL / UNITS)
    return FloorPlan.of(open_ & (walls == 0), _CELL / UNITS, corner, _BODY / UNITS)


def _filled(ends: Floats, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The cells, bool `shape`, whose middle lies within lines (n, 4) of x1, y1, x2, y2: an odd number is left of it."""
    rows, columns = shape
    inside = np.zeros((rows, columns + 1), dtype=np.int64)
    for x1, y1, x2, y2 in ends[ends[:, 1] != ends[:, 3]].tolist():
        (xa, ya), (xb, yb) = sorted(((x1, y1), (x2, y2)), key=lambda end: end[1])
        middle = np.arange(max(int(np.ceil(ya - 0.5)), 0), min(int(np.ceil(yb - 0.5)), rows))
        crossed = xa + (middle + 0.5 - ya) * (xb - xa) / (yb - ya)
        inside[middle, np.clip(np.ceil(crossed - 0.5).astype(int), 0, columns)] += 1
    return np.asarray(np.cumsum(inside, axis=1)[:, :columns] % 2 == 1)
