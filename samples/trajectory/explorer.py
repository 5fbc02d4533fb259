"""A scripted explorer: it walks from goal to goal as a person would, around obstacles and with smooth turns.

A goal is a free place some metres away, more often ahead than behind. On the way there the explorer looks at a point a
little ahead on its route (pure pursuit: Coulter, 1992), turns with a bounded rate and acceleration, and slows in turns.
"""

from dataclasses import dataclass, field

import numpy as np

from maskstream.shards.media.camera_pose import Floats, wrapped

from .floor_plan import FloorPlan

NEAREST_M, FARTHEST_M = 5.0, 16.0
"""How far goals are."""
AREA_M2 = 40.0
"""The least area of a map in which there is somewhere to go."""
_AHEAD_M = 0.9
_ARRIVED_M = 0.7
_GAIN, _FASTEST_TURN, _TURN_ACCELERATION = 2.5, 1.5, 5.0
_TRIES = 12
_STUCK_S, _STUCK_M = 1.0, 0.2


class StuckError(Exception):
    """The explorer cannot go on."""


@dataclass(slots=True)
class Explorer:
    """Decides, from place and heading, how fast to walk (m/s) and to turn (rad/s, to the left).

    plan: where it can walk. rng: draws goals and the pace. step_s: the time between two decisions.
    """

    plan: FloorPlan
    rng: np.random.Generator
    step_s: float
    pace: float = field(init=False)
    route: Floats = field(init=False)
    turn: float = field(init=False, default=0.0)
    _next: int = field(init=False, default=1)
    _trail: list[Floats] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.pace = float(self.rng.uniform(1.0, 1.5))
        self.route = np.empty((0, 2))

    def begin(self) -> tuple[Floats, float]:
        """A free place (x, y) to begin at, and the heading of the first route. StuckError if none leads away."""
        cells = np.argwhere(self.plan.free & (self.plan.clear_m > 0.1))
        for _ in range(_TRIES if len(cells) else 0):
            row, column = self.rng.choice(cells).tolist()
            start = self.plan.place((row, column))
            try:
                self._choose(start, float(self.rng.uniform(-np.pi, np.pi)))
            except StuckError:
                continue
            way = self.route[1] - start
            return start, float(np.arctan2(way[1], way[0]))
        raise StuckError("no place from which a route leads away")

    def decide(self, place: Floats, heading: float) -> tuple[float, float]:
        """Speed and turn at a place (x, y). StuckError if it has not moved for a while, or there is nowhere to go."""
        self._watch(place)
        if np.linalg.norm(self.route[-1] - place) < _ARRIVED_M:
            self._choose(place, heading)
        aim = self._aim(place) - place
        error = wrapped(float(np.arctan2(aim[1], aim[0])) - heading)
        wanted = float(np.clip(_GAIN * error, -_FASTEST_TURN, _FASTEST_TURN))
        change = _TURN_ACCELERATION * self.step_s
        self.turn += float(np.clip(wanted - self.turn, -change, change))
        return self.pace * max(0.3, float(np.cos(min(abs(error), np.pi / 2)))), self.turn

    def _watch(self, place: Floats) -> None:
        self._trail.append(place.copy())
        before = round(_STUCK_S / self.step_s)
        if len(self._trail) > before and np.linalg.norm(place - self._trail[-1 - before]) < _STUCK_M:
            raise StuckError(f"moved less than {_STUCK_M} m in {_STUCK_S} s")

    def _aim(self, place: Floats) -> Floats:
        """The point of the route that it looks at; corners that are behind or near are done with."""
        while self._next < len(self.route) - 1 and np.linalg.norm(self.route[self._next] - place) < _AHEAD_M:
            self._next += 1
        corner, before = self.route[self._next], self.route[self._next - 1]
        way = corner - before
        length = float(np.linalg.norm(way))
        if length < 1e-9:
            return np.asarray(corner)
        along = float((place - before) @ way) / length + _AHEAD_M
        return np.asarray(before + way * min(max(along / length, 0.0), 1.0))

    def _choose(self, place: Floats, heading: float) -> None:
        """Draws the next goal and finds the way there."""
        cells = self.plan.within(place, FARTHEST_M)
        places = np.array(self.plan.corner_m) + self.plan.cell_m * (cells[:, ::-1] + 0.5)
        ways = places - place
        far = np.linalg.norm(ways, axis=1)
        weights = np.exp(1.5 * np.cos(np.arctan2(ways[:, 1], ways[:, 0]) - heading))
        weights *= (far >= NEAREST_M) & (far <= FARTHEST_M)
        for _ in range(_TRIES if weights.sum() > 0 else 0):
            row, column = cells[self.rng.choice(len(cells), p=weights / weights.sum())].tolist()
            found = self.plan.route(place, (row, column), FARTHEST_M + 4)
            if found is not None and len(found) > 1:
                self.route, self._next = found, 1
                return
        raise StuckError(f"no goal {NEAREST_M:g} to {FARTHEST_M:g} m away can be reached")
