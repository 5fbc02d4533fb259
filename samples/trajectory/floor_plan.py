"""A floor plan: where a person can stand, and the shortest way there that keeps clear of walls."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.shards.media.camera_pose import Floats

Bools = npt.NDArray[np.bool_]
Cell = tuple[int, int]

_NEAR_WALL = 3.0
"""How much longer a way counts right beside a wall than in the open."""
_STEPS = [(r, c, float(np.hypot(r, c))) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c]


@dataclass(frozen=True, kw_only=True, slots=True)
class FloorPlan:
    """Where the middle of a person can be: free, bool (rows, columns), cells of `cell_m` metres.

    Row r and column c are at x = corner_m[0] + c cell_m, y = corner_m[1] + r cell_m. clear_m: float (rows, columns),
    how far a cell is from the nearest that is not free.
    """

    free: Bools
    clear_m: npt.NDArray[np.float32]
    cell_m: float
    corner_m: tuple[float, float]

    @classmethod
    def of(cls, open_: Bools, cell_m: float, corner_m: tuple[float, float], body_m: float) -> FloorPlan:
        """The plan of a person of radius `body_m` where `open_` cells have a floor and no wall; the largest part of it
        whose cells can be reached from each other.
        """
        framed = np.pad(open_, 1).astype(np.uint8)
        wall_m = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1] * cell_m
        fits = (wall_m > body_m).astype(np.uint8)
        count, part, stats, _ = cv2.connectedComponentsWithStats(fits, connectivity=4)
        free = np.zeros_like(open_)
        if count > 1:
            free = part == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        return cls(free=free, clear_m=(wall_m - body_m).astype(np.float32), cell_m=cell_m, corner_m=corner_m)

    @property
    def area_m2(self) -> float:
        """The area that can be walked."""
        return float(self.free.sum()) * self.cell_m**2

    def cell(self, place: Floats) -> Cell:
        """The cell of a place (x, y); it may lie outside the plan."""
        column, row = np.floor((place[:2] - self.corner_m) / self.cell_m).astype(int).tolist()
        return row, column

    def place(self, cell: Cell) -> Floats:
        """The middle of a cell, (x, y)."""
        row, column = cell
        return np.array(self.corner_m) + self.cell_m * (np.array([column, row]) + 0.5)

    def within(self, place: Floats, reach_m: float) -> npt.NDArray[np.int64]:
        """The free cells, int64 (n, 2), in a square of `reach_m` metres to each side of a place."""
        (row, column), reach = self.cell(place), round(reach_m / self.cell_m)
        top, left = max(row - reach, 0), max(column - reach, 0)
        window = self.free[top : max(row + reach + 1, 0), left : max(column + reach + 1, 0)]
        found: npt.NDArray[np.int64] = np.argwhere(window) + np.array([top, left])
        return found

    def route(self, start: Floats, goal: Cell, reach_m: float) -> Floats | None:
        """The way from a place to a free cell as corners (n, 2), or None if none leads there within `reach_m`.

        A way beside a wall counts up to four times; corners that a straight line can leave out are left out.
        """
        first = self._nearest(start)
        if first is None:
            return None
        before, cost = {first: first}, {first: 0.0}
        queue: list[tuple[float, Cell]] = [(0.0, first)]
        reach = reach_m / self.cell_m
        while queue:
            _, here = heappop(queue)
            if here == goal:
                return self._shortened(self._traced(before, goal))
            for r, c, length in _STEPS:
                there = here[0] + r, here[1] + c
                if not self._is_free(there) or max(abs(there[0] - first[0]), abs(there[1] - first[1])) > reach:
                    continue
                near = max(1 - float(self.clear_m[there]), 0.0)
                total = cost[here] + length * (1 + _NEAR_WALL * near)
                if total < cost.get(there, np.inf):
                    cost[there], before[there] = total, here
                    left = float(np.hypot(there[0] - goal[0], there[1] - goal[1]))
                    heappush(queue, (total + left, there))
        return None

    def _is_free(self, cell: Cell) -> bool:
        rows, columns = self.free.shape
        return 0 <= cell[0] < rows and 0 <= cell[1] < columns and bool(self.free[cell])

    def _nearest(self, place: Floats) -> Cell | None:
        """The free cell that is nearest to a place, within a metre."""
        cells = self.within(place, 1.0)
        if not len(cells):
            return None
        row, column = cells[np.abs(cells - self.cell(place)).sum(axis=1).argmin()].tolist()
        return row, column

    def _traced(self, before: dict[Cell, Cell], goal: Cell) -> list[Cell]:
        cells = [goal]
        while before[cells[-1]] != cells[-1]:
            cells.append(before[cells[-1]])
        return cells[::-1]

    def _shortened(self, cells: list[Cell]) -> Floats:
        """The corners of a way: each is the last that is seen in a straight line from the one before, with room."""
        kept, at = [cells[0]], 0
        while at < len(cells) - 1:
            ahead = at + 1
            while ahead + 1 < len(cells) and self._sees(cells[at], cells[ahead + 1]):
                ahead += 1
            kept.append(cells[ahead])
            at = ahead
        return np.stack([self.place(cell) for cell in kept])

    def _sees(self, a: Cell, b: Cell) -> bool:
        """Whether the line between two cells is free, and no nearer to a wall than its ends or a quarter of a metre."""
        n = 2 * max(abs(a[0] - b[0]), abs(a[1] - b[1])) + 1
        rows, columns = np.linspace(a, b, n).round().astype(int).T
        least = min(float(self.clear_m[a]), float(self.clear_m[b]), 0.25)
        return bool(self.free[rows, columns].all() and (self.clear_m[rows, columns] >= least).all())
