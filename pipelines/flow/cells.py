"""Kernels that convert a codec's motion vectors to flow cells: rasterise, resample, fill holes."""

import numpy as np

from maskstream.shards.arrays import Bools, Float32s, Float64s, Int8s, Int16s, Int32s, Int64s, UInt8s
from maskstream.shards.jit import kernel

from .base import UNIT

Sides = tuple[Int32s, Float32s]
"""Along one axis: the unit before each cell's centre, and the interpolation weight of the next."""
Fields = tuple[Int32s, Int16s, UInt8s]
"""AVMotionVector structs of 40 bytes, as three views of the same memory: int32 (N, 10), int16 (N, 20),
uint8 (N, 40).
"""

_U = np.uint64
_SOURCE, _MOTION_X, _MOTION_Y = 0, 6, 7  # columns of int32
_DST_X, _DST_Y, _MOTION_SCALE = 5, 6, 16  # columns of int16
_WIDTH, _HEIGHT = 4, 5  # columns of uint8


@kernel
def compute_cell_flows(
    fields: Fields,
    ends: Int64s,
    stored: Int8s,
    places: Int64s,
    numbers: Int64s,
    grid: tuple[int, int],
    windows: Float64s,
    flow: Float32s,
    valid: Bools,
    known: Bools,
) -> bool:
    """Compute `flow` (n, K, h, w, 2) and `valid` (n, K, h, w) of K pairs in each of n clips, and fill holes.

    The motion of the m frames between the frames of a pair is concatenated.

    Args:
        fields: Motion vectors of all frames.
        ends: (n, K m), end of each frame's blocks in `fields`.
        stored: (S, 3, rows, columns), stored flows (`KeyFlow.planes`) of frames without blocks.
        places: (n, K m), index of each frame's stored flow, or -1.
        numbers: (n, K + 1), frame numbers; a frame that repeats the previous one has flow 0.
        grid: Rows and columns of a frame's units.
        windows: (n, 6), x, y, width and height of a clip's crop in units, and clip pixels per source pixel in x
            (negative if mirrored) and y.
        flow: Output.
        valid: Output.
        known: (n, K), output: True if any cell is valid.

    Returns:
        False if a block lies outside the frame.
    """
    clips, pairs, rows, columns = flow.shape[:4]
    units = np.empty((3, grid[0], grid[1]), dtype=np.float32)
    before = np.empty((3, grid[0], grid[1]), dtype=np.float32)
    sums = np.zeros((rows + 1, columns + 1, 3), dtype=np.float64)
    steps = ends.shape[1] // max(pairs, 1)
    first = 0
    for n in range(clips):
        x, y, width, height, scale_x, scale_y = windows[n]
        across = sides(x + width / columns / 2 - 0.5, width / columns, columns, grid[1], scale_x < 0.0)
        down = sides(y + height / rows / 2 - 0.5, height / rows, rows, grid[0], False)
        mixed = np.zeros((3, grid[1] + 1), dtype=np.float32), np.empty((3, across[0].size), dtype=np.float32)
        for k in range(pairs):
            for step in range(k * steps, (k + 1) * steps):
                if step > k * steps:
                    units, before = before, units  # motion so far, from the previous frame to the pair's first
                if places[n, step] >= 0:
                    spread(stored[places[n, step]], units)
                elif not rasterise(fields, first, ends[n, step], units):
                    return False
                first = ends[n, step]
                if step > k * steps:
                    join(units, before)
            if numbers[n, k + 1] == numbers[n, k]:
                for r in range(rows):
                    for c in range(columns):
                        flow[n, k, r, c, 0], flow[n, k, r, c, 1], valid[n, k, r, c] = 0.0, 0.0, True
                known[n, k] = True
            else:
                resample(units, across, down, (scale_x, scale_y), mixed, flow[n, k], valid[n, k])
                known[n, k] = fill(flow[n, k], valid[n, k], sums)
    return True


@kernel
def join(units: Float32s, earlier: Float32s) -> None:
    """Extend `units` (3, rows, columns), the motion that leads to a frame, by `earlier`, the motion that leads on from
    that frame.

    At the destination of a unit, `earlier` is interpolated bilinearly from units with vectors; outside, the frame
    border is repeated. A unit has no vector if their total weight is below a half.
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
def rasterise(fields: Fields, first: int, end: int, units: Float32s) -> bool:
    """Write the blocks [first, end) into `units` (3, rows, columns) of 8 x 8 pixels: (x, y, 1), or (0, 0, 0) without a
    block.

    Blocks predicted from a later frame are skipped. Returns False if a block lies outside the frame.
    """
    numbers, halves, octets = fields
    _, rows, columns = units.shape
    flat = units.reshape(-1)
    for n in range(flat.size):
        flat[n] = 0.0
    ys, weights = _U(rows * columns), _U(2 * rows * columns)
    for n in range(first, end):
        at = _U(n)  # unsigned, so that numba omits the branch for negative indexes
        width, height = np.int64(octets[at, _WIDTH]), np.int64(octets[at, _HEIGHT])
        left, top = (halves[at, _DST_X] - (width >> 1)) >> 3, (halves[at, _DST_Y] - (height >> 1)) >> 3
        wide, high = np.int64(width > UNIT), np.int64(height > UNIT)
        if left < 0 or top < 0 or left + wide >= columns or top + high >= rows:
            return False
        if numbers[at, _SOURCE] >= 0:
            continue
        x = np.float32(numbers[at, _MOTION_X] / halves[at, _MOTION_SCALE])
        y = np.float32(numbers[at, _MOTION_Y] / halves[at, _MOTION_SCALE])
        one = _U(top * columns + left)
        other, right = one + _U(high * columns), _U(wide)
        # Small blocks may write the same unit twice, which is faster than unpredictable branches.
        for cell in (one, one + right, other, other + right):
            flat[cell], flat[ys + cell], flat[weights + cell] = x, y, 1.0
    return True


@kernel
def spread(planes: Int8s, units: Float32s) -> None:
    """Write a stored flow (3, rows, columns) into `units` as `rasterise` does.

    Its planes are x and y in quarter pixels and a byte of how well each cell is explained; cells from 128 on, negative
    as int8, have a vector.
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
    units: Float32s,
    across: Sides,
    down: Sides,
    scale: tuple[float, float],
    mixed: tuple[Float32s, Float32s],
    flow: Float32s,
    valid: Bools,
) -> None:
    """Interpolate units bilinearly at each cell's centre; valid where units with vectors have a weight of at least 0.5.

    `mixed` (3, columns + 1) and (3, the size of across) is scratch memory.
    """
    (height, width), (_, rows, columns) = valid.shape, units.shape
    (left, along), (above, share), (line, means) = across, down, mixed
    scale_x, scale_y = np.float32(scale[0]), np.float32(scale[1])
    first, last = min(left[0], left[width - 1]), max(left[0], left[width - 1]) + 1
    stop = min(last + 1, columns)
    for r in range(height):
        top, bottom, part = above[r], min(above[r] + 1, rows - 1), share[r]
        for plane in range(3):
            for c in range(first, stop):
                at = _U(c)
                high = units[plane, top, at]
                line[plane, at] = high + (units[plane, bottom, at] - high) * part
            if last == columns:
                line[plane, columns] = line[plane, columns - 1]
            for c in range(width):
                at, unit = _U(c), _U(left[c])
                means[plane, at] = line[plane, unit] + (line[plane, unit + _U(1)] - line[plane, unit]) * along[at]
        for c in range(width):
            at = _U(c)
            each = np.float32(1.0) / max(means[2, at], np.float32(1e-6))
            means[0, at] *= each * scale_x
            means[1, at] *= each * scale_y
        for c in range(width):
            valid[r, c] = means[2, _U(c)] >= np.float32(0.5)
        for c in range(width):
            at = _U(c)
            flow[r, at, 0], flow[r, at, 1] = means[0, at], means[1, at]


@kernel
def fill(flow: Float32s, valid: Bools, sums: Float64s) -> bool:
    """Fill the cells of one pair where `valid` is False; returns whether any cell is valid.

    A hole is filled with the mean of the valid cells in the smallest box around it that contains one (radius 1, 2, 4,
    ...), or 0 if no cell is valid. `sums` (h + 1, w + 1, 3) is scratch memory; its first row and column must be 0.
    """
    height, width = valid.shape
    holes = 0
    for r in range(height):
        for c in range(width):
            holes += not valid[r, c]
    if holes == 0:
        return True
    if holes == height * width:
        flow[:] = 0.0
        return False
    for r in range(height):
        x, y, count = 0.0, 0.0, 0.0
        for c in range(width):
            at, has = _U(c), valid[r, c]
            x += float(flow[r, at, 0]) if has else 0.0
            y += float(flow[r, at, 1]) if has else 0.0
            count += 1.0 if has else 0.0
            # Sums over all cells above and to the left, including this one.
            below = at + _U(1)
            sums[r + 1, below, 0] = sums[r, below, 0] + x
            sums[r + 1, below, 1] = sums[r, below, 1] + y
            sums[r + 1, below, 2] = sums[r, below, 2] + count
    places = np.empty(width + 1, dtype=np.int64)
    for r in range(height):
        holes = 0
        for c in range(width):
            places[_U(holes)] = c
            holes += not valid[r, c]
        for c in places[:holes]:
            radius, count = 1, 0.0
            while count == 0.0:
                top, bottom = _U(max(r - radius, 0)), _U(min(r + radius + 1, height))
                left, right = _U(max(c - radius, 0)), _U(min(c + radius + 1, width))
                count = sums[bottom, right, 2] + sums[top, left, 2] - sums[top, right, 2] - sums[bottom, left, 2]
                radius *= 2
            x = sums[bottom, right, 0] + sums[top, left, 0] - sums[top, right, 0] - sums[bottom, left, 0]
            y = sums[bottom, right, 1] + sums[top, left, 1] - sums[top, right, 1] - sums[bottom, left, 1]
            flow[r, c, 0], flow[r, c, 1] = x / count, y / count
    return True


@kernel
def sides(first: float, step: float, cells: int, units: int, mirrored: bool) -> Sides:
    """Return the units around the `cells` positions first, first + step, ..., clamped to an axis of `units` units."""
    before, share = np.empty(cells, dtype=np.int32), np.empty(cells, dtype=np.float32)
    for n in range(cells):
        place = min(max(first + step * n, 0.0), units - 1.0)
        unit, at = int(place), cells - 1 - n if mirrored else n
        before[at], share[at] = unit, place - unit
    return before, share
