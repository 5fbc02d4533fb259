"""Kernels that turn a codec's motion vectors into cells of flow: rasterise, resample, fill holes."""

import numpy as np
import numpy.typing as npt

from maskstream.shards.jit import kernel

from .base import UNIT

Floats = npt.NDArray[np.float32]
Sides = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], Floats]
"""Along one axis: the two units around each cell's centre, and the interpolation weight of the second."""
Fields = tuple[npt.NDArray[np.int32], npt.NDArray[np.int16], npt.NDArray[np.uint8]]
"""AVMotionVector structs of 40 bytes, as three views of one memory: int32 (N, 10), int16 (N, 20), uint8 (N, 40)."""
Window = tuple[tuple[int, int], tuple[float, float, float, float], bool, tuple[float, float]]
"""What a clip shows of its frames: rows and columns of a frame's units; x, y, width and height of its crop, in units;
whether it is mirrored from left to right; and clip pixels per source pixel in x and y, below 0 in x where it is.
"""

_SOURCE, _MOTION_X, _MOTION_Y = 0, 6, 7  # columns of int32
_DST_X, _DST_Y, _MOTION_SCALE = 5, 6, 16  # columns of int16
_WIDTH, _HEIGHT = 4, 5  # columns of uint8


@kernel
def cell_flow(
    fields: Fields,
    ends: npt.NDArray[np.int64],
    stored: npt.NDArray[np.int8],
    places: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    window: Window,
    flow: Floats,
    valid: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_],
) -> int:
    """Computes flow (K, h, w, 2) and valid (K, h, w) of K pairs from the blocks of K m frames, and fills holes.

    ends (K m,): the end of each frame's blocks in `fields`. stored (S, 3, rows, columns): stored flows
    (`KeyFlow.planes`) of frames that have no blocks; places (K m,): where those of each frame are, or -1. The m frames
    of a pair are joined. numbers (K + 1,): frame numbers; a frame that repeats the one before has flow 0. known (K,):
    set to whether any cell is valid. Returns the number of pairs without a valid cell, or -1 if a block lies outside
    the frame.
    """
    rows, columns = flow.shape[1:3]
    grid, (x, y, width, height), mirrored, scale = window
    across = sides(x + width / columns / 2 - 0.5, width / columns, columns, grid[1], mirrored)
    down = sides(y + height / rows / 2 - 0.5, height / rows, rows, grid[0], False)
    units = np.empty((3, grid[0], grid[1]), dtype=np.float32)
    before = np.empty((3, grid[0], grid[1]), dtype=np.float32)
    mixed = np.empty((3, grid[1]), dtype=np.float32)
    sums = np.zeros((rows + 1, columns + 1, 3), dtype=np.float64)
    steps = len(ends) // len(flow)
    first = unknown = 0
    for k in range(len(flow)):
        for step in range(k * steps, (k + 1) * steps):
            if step > k * steps:
                units, before = before, units  # so far, the way from the frame before to the pair's first
            if places[step] >= 0:
                spread(stored[places[step]], units)
            elif not rasterise(fields, first, ends[step], units):
                return -1
            first = ends[step]
            if step > k * steps:
                join(units, before)
        if numbers[k + 1] == numbers[k]:
            for r in range(rows):
                for c in range(columns):
                    flow[k, r, c, 0], flow[k, r, c, 1], valid[k, r, c] = 0.0, 0.0, True
            known[k] = True
        else:
            resample(units, across, down, scale, mixed, flow[k], valid[k])
            known[k] = fill(flow[k], valid[k], sums)
            unknown += not known[k]
    return unknown


@kernel
def cell_flows(
    fields: Fields,
    ends: npt.NDArray[np.int64],
    stored: npt.NDArray[np.int8],
    places: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    grid: tuple[int, int],
    windows: npt.NDArray[np.float64],
    flow: Floats,
    valid: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_],
    unknown: npt.NDArray[np.int64],
) -> None:
    """Does for each of n clips what `cell_flow` does: every array but `fields` and `stored` has them as its first axis.

    windows (n, 6): of each the crop and the scales of `Window`. unknown (n,): set to what `cell_flow` returns.
    """
    first = 0
    for n in range(len(flow)):
        x, y, width, height, across, down = windows[n]
        end = ends[n, ends.shape[1] - 1] if ends.shape[1] > 0 else first
        own = (fields[0][first:end], fields[1][first:end], fields[2][first:end])
        window = (grid, (x, y, width, height), across < 0.0, (across, down))
        unknown[n] = cell_flow(own, ends[n] - first, stored, places[n], numbers[n], window, flow[n], valid[n], known[n])
        first = end


@kernel
def join(units: Floats, earlier: Floats) -> None:
    """Extends units (3, rows, columns), which lead to a frame, by `earlier`, which lead on from it.

    Where a unit leads to, `earlier` is the bilinear mean of the units with vectors; the frame's border goes on outside.
    A unit has no vector where these weigh less than a half.
    """
    _, rows, columns = units.shape
    for r in range(rows):
        for c in range(columns):
            if units[2, r, c] == np.float32(0.0):
                continue
            x = min(max(c + units[0, r, c] / UNIT, 0.0), columns - 1.0)
            y = min(max(r + units[1, r, c] / UNIT, 0.0), rows - 1.0)
            left, top = min(int(x), max(columns - 2, 0)), min(int(y), max(rows - 2, 0))
            right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
            along, down = x - left, y - top
            a, b = (1 - along) * (1 - down), along * (1 - down)
            d, e = (1 - along) * down, along * down
            weight = a * earlier[2, top, left] + b * earlier[2, top, right]
            weight += d * earlier[2, bottom, left] + e * earlier[2, bottom, right]
            if weight < 0.5:
                units[0, r, c], units[1, r, c], units[2, r, c] = 0.0, 0.0, 0.0
                continue
            for axis in range(2):
                sum_ = a * earlier[axis, top, left] + b * earlier[axis, top, right]
                sum_ += d * earlier[axis, bottom, left] + e * earlier[axis, bottom, right]
                units[axis, r, c] += sum_ / weight


@kernel
def rasterise(fields: Fields, first: int, end: int, units: Floats) -> bool:
    """Writes the blocks [first, end) into `units` (3, rows, columns) of 8 x 8 pixels: (x, y, 1), else (0, 0, 0).

    Blocks predicted from a later frame are skipped. Returns False if a block lies outside the frame.
    """
    numbers, halves, octets = fields
    _, rows, columns = units.shape
    xs, ys, weights = units.reshape(3, -1)
    for n in range(xs.size):
        xs[n], ys[n], weights[n] = 0.0, 0.0, 0.0
    for n in range(first, end):
        width, height = np.int64(octets[n, _WIDTH]), np.int64(octets[n, _HEIGHT])
        left, top = (halves[n, _DST_X] - (width >> 1)) >> 3, (halves[n, _DST_Y] - (height >> 1)) >> 3
        right, bottom = left + np.int64(width > UNIT), top + np.int64(height > UNIT)
        if left < 0 or top < 0 or right >= columns or bottom >= rows:
            return False
        if numbers[n, _SOURCE] >= 0:
            continue
        x = np.float32(numbers[n, _MOTION_X] / halves[n, _MOTION_SCALE])
        y = np.float32(numbers[n, _MOTION_Y] / halves[n, _MOTION_SCALE])
        for row in range(top, bottom + 1):
            for place in range(row * columns + left, row * columns + right + 1):
                cell = np.uint64(place)  # unsigned, so that numba omits the branch for negative indexes
                xs[cell], ys[cell], weights[cell] = x, y, 1.0
    return True


@kernel
def spread(planes: npt.NDArray[np.int8], units: Floats) -> None:
    """Writes a stored flow (3, rows, columns), x and y in quarters of a pixel and the byte of how well a cell is
    explained, into `units` as `rasterise` does. Cells from 128 on, which are negative as int8, have a vector.
    """
    for r in range(units.shape[1]):
        row = r // 2
        for c in range(units.shape[2]):
            column = c // 2
            if planes[2, row, column] < 0:
                units[0, r, c] = np.float32(planes[0, row, column]) * np.float32(0.25)
                units[1, r, c] = np.float32(planes[1, row, column]) * np.float32(0.25)
                units[2, r, c] = np.float32(1.0)
            else:
                units[0, r, c], units[1, r, c], units[2, r, c] = 0.0, 0.0, 0.0


@kernel
def resample(
    units: Floats,
    across: Sides,
    down: Sides,
    scale: tuple[float, float],
    mixed: Floats,
    flow: Floats,
    valid: npt.NDArray[np.bool_],
) -> None:
    """Writes the bilinear mean of the units around each cell's centre; valid where units with vectors weigh >= 0.5.

    `mixed` (3, columns) is scratch memory.
    """
    left, right, along = across
    top, bottom, share = down
    xs, ys, weights = mixed
    scale_x, scale_y = np.float32(scale[0]), np.float32(scale[1])
    for r in range(top.size):
        for plane in range(3):
            line, high, low, part = mixed[plane], units[plane, top[r]], units[plane, bottom[r]], share[r]
            for c in range(line.size):
                line[c] = high[c] + (low[c] - high[c]) * part
        for c in range(left.size):
            i, j, part = left[c], right[c], along[c]
            weight = weights[i] + (weights[j] - weights[i]) * part
            each = np.float32(1.0) / max(weight, np.float32(1e-6))
            flow[r, c, 0] = (xs[i] + (xs[j] - xs[i]) * part) * (each * scale_x)
            flow[r, c, 1] = (ys[i] + (ys[j] - ys[i]) * part) * (each * scale_y)
            valid[r, c] = weight >= np.float32(0.5)


@kernel
def fill(flow: Floats, valid: npt.NDArray[np.bool_], sums: npt.NDArray[np.float64]) -> bool:
    """Fills the cells of one pair where `valid` is False; returns whether any cell is valid.

    A hole gets the mean of the valid cells in the smallest box around it that holds one (radius 1, 2, 4, ...), or 0 if
    no cell is valid. `sums` (h + 1, w + 1, 3) is scratch memory, whose first row and column must be 0.
    """
    height, width = valid.shape
    holes = 0
    for r in range(height):
        for c in range(width):
            if not valid[r, c]:
                holes += 1
                flow[r, c, 0], flow[r, c, 1] = 0.0, 0.0
    if holes == 0 or holes == height * width:
        return holes == 0
    for r in range(height):
        x, y, count = 0.0, 0.0, 0.0
        for c in range(width):
            if valid[r, c]:
                x, y, count = x + flow[r, c, 0], y + flow[r, c, 1], count + 1
            # Sums over all cells above and to the left, this one included.
            sums[r + 1, c + 1, 0] = sums[r, c + 1, 0] + x
            sums[r + 1, c + 1, 1] = sums[r, c + 1, 1] + y
            sums[r + 1, c + 1, 2] = sums[r, c + 1, 2] + count
    for r in range(height):
        for c in range(width):
            radius, count = 1, 0.0
            while not valid[r, c] and count == 0:
                top, bottom = max(r - radius, 0), min(r + radius + 1, height)
                left, right = max(c - radius, 0), min(c + radius + 1, width)
                a, b, above, over = sums[bottom, right], sums[top, left], sums[top, right], sums[bottom, left]
                count = np.rint(a[2] + b[2] - above[2] - over[2])
                if count > 0:
                    flow[r, c, 0] = (a[0] + b[0] - above[0] - over[0]) / count
                    flow[r, c, 1] = (a[1] + b[1] - above[1] - over[1]) / count
                radius *= 2
    return True


@kernel
def sides(first: float, step: float, cells: int, units: int, mirrored: bool) -> Sides:
    """The units around the `cells` positions first, first + step, ..., clamped to an axis of `units` units."""
    before, behind = np.empty(cells, dtype=np.uint64), np.empty(cells, dtype=np.uint64)
    share = np.empty(cells, dtype=np.float32)
    for n in range(cells):
        place = min(max(first + step * n, 0.0), units - 1.0)
        unit, at = int(place), cells - 1 - n if mirrored else n
        before[at], behind[at], share[at] = unit, min(unit + 1, units - 1), place - unit
    return before, behind, share
