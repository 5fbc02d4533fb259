"""Trajectories through the 68 maps of Freedoom, recorded in ViZDoom while the shards are written.

A trajectory has 96 frames of 160 x 120 pixels, 7 per second, with depth (in levels of 22 cm, as in the game) and poses.
It begins at an item of its map and follows the deepest view, with bounded turns. A map is in one split only. It needs
`pip install 'maskstream[walks]'`; nothing else is downloaded, and no GPU is used for rendering.

Source: Kempka et al., ViZDoom: A Doom-based AI Research Platform for Visual Reinforcement Learning, CIG 2016; the
package vizdoom (MIT), which ships the maps of Freedoom (BSD-3-Clause). A map is shown without monsters. 32 map units
are a metre, so eyes are 1.28 m above the floor.
"""

from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np
import xxhash

from maskstream.preprocess.datasets.dataset import Dataset, choose_held_out_groups
from maskstream.preprocess.encode.trajectory.encoder import TrajectoryEncoder, Walk, millimetres
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.packages import require_version
from maskstream.shards.arrays import Float64s, UInt8s, UInt16s
from maskstream.shards.media.camera_pose import build_level_pose

VERSION = "1.3.2"
"""Version of the package, which determines the rendered frames."""
Wad = Literal["freedoom1", "freedoom2"]
UNITS = 32.0
"""Map units per metre."""
TICS, EVERY = 35, 5
"""The game's steps per second, and from one frame to the next."""
LENS = (80.0, 89.0, 80.0, 60.0)
"""Field of view of 90 degrees from left to right; the vertical focal length was measured on floors, because Doom's
pixels are not square.
"""
_LEVEL, _ZERO = 7.16, 2.5
"""Map units per level of depth, of 255, and before the first level; measured against the walls of maps."""
_THRUST = 3.0
"""Button value for a steady speed of one unit per step."""
_TRIES = 40
_JUMP_M = 0.8
_STUCK_FRAMES, _STUCK_M = 10, 0.5


class StuckError(Exception):
    """A walk cannot continue."""


@dataclass(slots=True)
class Explorer:
    """Chooses the walking speed (m/s) and turning rate (rad/s, to the left) from the game's depth.

    It heads for the direction in which the view is deepest, close to a preferred direction that drifts. In front of a
    wall, it turns on the spot until there is room.
    """

    rng: np.random.Generator
    pace: float
    turn: float = 0.0
    fancy: float = 0.0
    side: float = 0.0

    def choose_speed_and_turn(self, levels: UInt8s) -> tuple[float, float]:
        """Return speed and turning rate for the current depth (120, 160)."""
        # The nearest around the horizon in each column, of a band as wide as a person.
        room = np.minimum(cv2.blur(levels[52:72].min(axis=0, keepdims=True), (31, 1))[0] * (_LEVEL / UNITS), 16.0)
        self.fancy = float(np.clip(self.fancy + self.rng.normal(0, 0.15), -0.5, 0.5))
        directions = np.arctan((LENS[2] - 0.5 - np.arange(len(room))) / LENS[0])
        aim = float(directions[(room - 3 * np.abs(directions - self.fancy)).argmax()])
        is_blocked = room[60:100].min() < 0.6
        if is_blocked:
            self.side = self.side or float(np.sign(room[:80].mean() - room[80:].mean())) or 1.0
            aim = 1.2 * self.side
        else:
            self.side = 0.0
        self.turn += float(np.clip(np.clip(2.5 * aim, -1.5, 1.5) - self.turn, -0.7, 0.7))
        return self.pace * (0.2 if is_blocked else float(np.cos(aim))), self.turn


@dataclass(frozen=True, kw_only=True, slots=True)
class VizdoomWalk:
    """A walk of `frames` frames, 7 per second. wad, map: Names such as "freedoom2" and "MAP01". seed: Seed of the start
    and the path.
    """

    wad: Wad
    map: str
    seed: int
    frames: int = 96

    def record(self) -> Walk:
        """Record the walk. Raises DatasetError if vizdoom is not installed, RejectError if no walk of this length is
        found.
        """
        check_vizdoom()
        with _start_game(self) as game:
            rng, reason = np.random.Generator(np.random.Philox(self.seed)), ""
            for _ in range(_TRIES):
                try:
                    return _walk_to_item(game, rng, self.frames)
                except StuckError as error:
                    reason = str(error)
                    game.new_episode()
            raise RejectError(
                "check",
                f"no walk of {self.frames} frames was found in {_TRIES} attempts; the last one failed: {reason}",
            )


def check_vizdoom() -> None:
    """Raise DatasetError unless vizdoom is installed in its `VERSION`."""
    require_version("vizdoom", VERSION, work="recording walks through maps of Freedoom", extra="walks")


@contextmanager
def _start_game(walk: VizdoomWalk) -> Iterator[Any]:
    """Return the running game, in which a map has just started."""
    import vizdoom

    game, button, variable = vizdoom.DoomGame(), vizdoom.Button, vizdoom.GameVariable
    with TemporaryDirectory() as folder:
        game.set_doom_config_path(str(Path(folder) / "vizdoom.ini"))
        game.set_doom_game_path(str(Path(vizdoom.__file__).parent / f"{walk.wad}.wad"))
        game.set_doom_map(walk.map)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_depth_buffer_enabled(True)
        game.set_objects_info_enabled(True)
        for hide in ("hud", "weapon", "crosshair", "particles", "messages", "decals"):
            getattr(game, f"set_render_{hide}")(False)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_available_buttons([button.MOVE_FORWARD_BACKWARD_DELTA, button.TURN_LEFT_RIGHT_DELTA])
        names = ("POSITION_X", "POSITION_Y", "CAMERA_POSITION_Z", "ANGLE")
        game.set_available_game_variables([getattr(variable, name) for name in names])
        game.set_seed(walk.seed % (1 << 31))
        game.set_episode_timeout(0)
        game.add_game_args(
            "-nomonsters +viz_nocheat 0 +movebob 0 +pickup_fade_scalar 0 +hud_scale 0 +cl_showsecretmessage 0"
        )
        with chdir(folder):  # the game keeps what it computed of a map in the folder that it is started in
            game.init()
        try:
            yield game
        finally:
            game.close()


def _walk_to_item(game: Any, rng: np.random.Generator, frames: int) -> Walk:
    """Record a walk from an item of the map on which a person can stand. Raises StuckError if it cannot continue."""
    game.send_game_command("god")
    items = [(one.position_x, one.position_y) for one in game.get_state().objects if one.name != "DoomPlayer"]
    start = np.array(items[rng.integers(len(items))])
    game.send_game_command("warp {:.0f} {:.0f}".format(*start))
    _press_buttons(game, 0, float(rng.uniform(0, 360)), 1)
    _press_buttons(game, 0, 0.0, 10)
    here = _seen(game)
    if np.linalg.norm(here[:2] - start / UNITS) > 0.2:
        raise StuckError(f"the game does not let it stand at {start.tolist()}")
    explorer = Explorer(rng, pace=float(rng.uniform(1.0, 1.5)))
    path: list[Float64s] = []
    pictures, depth, owed = [], [], 0.0
    for n in range(frames):
        state, before = game.get_state(), here
        here = _seen(game)
        if np.linalg.norm(here[:2] - before[:2]) > _JUMP_M:
            raise StuckError("it was moved to a different place on the map")
        if n >= _STUCK_FRAMES and np.linalg.norm(here[:2] - path[-_STUCK_FRAMES][:2]) < _STUCK_M:
            raise StuckError(f"it moved less than {_STUCK_M} m in {_STUCK_FRAMES} frames")
        path.append(build_level_pose(here[:3], float(here[3])))
        pictures.append(np.ascontiguousarray(state.screen_buffer))
        depth.append(convert_depth_levels(state.depth_buffer))
        speed, turn = explorer.choose_speed_and_turn(state.depth_buffer)
        wanted = _THRUST * speed * UNITS / TICS + owed
        owed = wanted - round(wanted)  # the button takes whole numbers
        _press_buttons(game, round(wanted), -float(np.rad2deg(turn)) / TICS, EVERY)
    return Walk(frames=pictures, depth=depth, path=np.stack(path), lens=LENS, fps=TICS // EVERY)


def _press_buttons(game: Any, forward: int, right: float, tics: int) -> None:
    """Press the buttons for some steps; right: degrees per step."""
    if not game.is_episode_finished():
        game.make_action([forward, right], tics)


def _seen(game: Any) -> Float64s:
    """Return x, y and z of the camera in metres, and its heading in radians. Raises StuckError if the map has ended."""
    state = game.get_state()
    if state is None or game.is_player_dead():
        raise StuckError("the map ended")
    x, y, z, degrees = state.game_variables.tolist()
    return np.array([x / UNITS, y / UNITS, z / UNITS, np.deg2rad(degrees)])


def convert_depth_levels(levels: UInt8s) -> UInt16s:
    """Convert the game's levels of depth, uint8 (H, W), to millimetres; a level is 22 cm, and the farthest, 255, is
    unknown.
    """
    metres = (_LEVEL * (levels.astype(np.float64) + 0.5) + _ZERO) / UNITS
    return millimetres(np.where(levels < 255, metres, np.nan))


def vizdoom_walks(root: Path) -> Dataset:
    """Record four trajectories through each map. `root` is not used. Raise DatasetError if vizdoom is not installed."""
    return _walk_through_maps("vizdoom-walks", root, {"train": 4, "val": 4})


def sample_trajectory(root: Path) -> Dataset:
    """Record one walk through each map of train, and two through each map of val, of `vizdoom_walks`."""
    return _walk_through_maps("sample-trajectory", root, {"train": 1, "val": 2})


def _walk_through_maps(name: str, root: Path, walks: Mapping[str, int]) -> Dataset:
    """Return the dataset with some trajectories through each map of a split; a fifth of the maps are `val`."""
    check_vizdoom()
    held_out = choose_held_out_groups((0, f"{wad}/{level}") for wad, level in levels())
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for wad, level in levels():
        split = "val" if f"{wad}/{level}" in held_out else "train"
        for number in range(walks[split]):
            own = f"{wad}/{level}/{number:02d}"
            seed = xxhash.xxh3_64_intdigest(f"walks/{own}".encode()) >> 1
            walk = VizdoomWalk(wad=wad, map=level, seed=seed)
            meta = {"recorded": "vizdoom", "walk": asdict(walk), "map": f"{wad}/{level}"}
            splits[split].append(Source(id=own, path=root / own, meta=meta, computed=True, made_by=recorded))
    return Dataset(name=name, label_names=(), splits=splits, encoder=TrajectoryEncoder())


def recorded(source: Source) -> Walk:
    """Record the walk of a source."""
    return VizdoomWalk(**source.meta["walk"]).record()


def levels() -> Iterator[tuple[Wad, str]]:
    """Maps: four episodes of nine in the first game, 32 levels in the second."""
    for episode in range(1, 5):
        yield from (("freedoom1", f"E{episode}M{level}") for level in range(1, 10))
    yield from (("freedoom2", f"MAP{level:02d}") for level in range(1, 33))
