"""Numba kernels of motion-guided masks: build start maps, warp them along the flow, sum over tokens, select the
highest.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import Bools, Float32s, Int32s, Int64s
from maskstream.shards.jit import kernel

from .torch_maps import MotionDraws

Places = npt.NDArray[np.uint64]

INVERSION_STEPS = 3
_F, _I, _U = np.float32, np.int32, np.uint64
_BITS = _I(5)
_PARTS = 1 << _BITS
"""Positions are rounded to 1/32 of a cell, so that a rounding error at the border never counts as inside the frame."""


def carry(
    start: Float32s, flow: Float32s, base: int, *, cell: tuple[float, float], fill: bool, compat: bool
) -> Float32s:
    """Warp the map `start` (H, W) of frame `base` to every frame of the clip: float32 (T, H, W).

    Frame by frame outwards from the base, each map is sampled bilinearly from its neighbour's (zero outside): after the
    base along the flow, before it along the inverse flow.

    Args:
        start: float32 (H, W); with `fill`, positive everywhere.
        flow: float32 (T-1, h, w, 2), backward flow in pixels, x then y.
        base: Frame of `start`.
        cell: Width and height of a map cell in pixels.
        fill: Use the value of `start` where the source is outside the frame.
        compat: Use the flow itself instead of its inverse before the base.
    """
    flow = np.require(flow, np.float32, ["C", "W"])  # a single array layout, so numba compiles only once
    maps = np.empty((len(flow) + 1, *start.shape), dtype=np.float32)
    maps[base] = start
    carry_on(maps, flow, base, 1 / cell[0], 1 / cell[1], fill, compat)
    return maps


def inverse(flow: Float32s) -> Float32s:
    """Invert flow fields (K, h, w, 2), in units of their cells: q + inverse(q) = p where p + flow(p) = q.

    Uses fixed-point iteration p <- q - flow(p), which converges where the flow changes by less than a cell between
    neighbours. Flow outside the frame equals the flow at its border.
    """
    inverted = np.empty(flow.shape, dtype=np.float32)
    invert(flow, 1.0, 1.0, inverted)
    return inverted


@kernel
def invert(flow: Float32s, scale_x: float, scale_y: float, inverted: Float32s) -> None:
    """Invert flow fields (K, h, w, 2), scaled by (scale_x, scale_y), in units of their cells: (K, h, w, 2)."""
    fields, rows, columns, _ = flow.shape
    cells = rows * columns
    field = np.empty((2, rows + 1, columns + 1), dtype=_F)
    to, shares = np.empty((2, cells), dtype=_F), np.zeros((2, cells), dtype=_F)
    places, starts = np.zeros(cells, dtype=_I), np.empty((2, cells), dtype=_F)
    for r in range(rows):
        for c in range(columns):
            starts[0, r * columns + c], starts[1, r * columns + c] = c, r
    for k in range(fields):
        scale(flow[k], _F(scale_x), _F(scale_y), field)
        # The first of the fixed-point steps starts at q itself, where no interpolation is needed: p = q - flow(q).
        for axis in range(2):
            for r in range(rows):
                for c in range(columns):
                    to[axis, r * columns + c] = -field[axis, r, c]
        for _ in range(INVERSION_STEPS - 1):
            for n in range(cells):
                column, shares[0, n] = locate_cell(starts[0, n] + to[0, n], columns - 1)
                row, shares[1, n] = locate_cell(starts[1, n] + to[1, n], rows - 1)
                places[n] = row * _I(columns + 1) + column
            for axis in range(2):
                sample(field[axis], columns + 1, places, shares, to[axis])
                for n in range(cells):
                    to[axis, n] = -to[axis, n]
        for r in range(rows):
            for c in range(columns):
                inverted[k, r, c, 0], inverted[k, r, c, 1] = to[0, r * columns + c], to[1, r * columns + c]


@kernel
def scale(flow: Float32s, x: np.float32, y: np.float32, scaled: Float32s) -> None:
    """Scale flow (h, w, 2) by x and y into `scaled` (2, h + 1, w + 1); its last row and column repeat the border."""
    rows, columns, _ = flow.shape
    for r in range(rows + 1):
        row = min(r, rows - 1)
        for c in range(columns):
            scaled[0, r, c], scaled[1, r, c] = flow[row, c, 0] * x, flow[row, c, 1] * y
        scaled[0, r, columns], scaled[1, r, columns] = scaled[0, r, columns - 1], scaled[1, r, columns - 1]


@kernel
def carry_on(maps: Float32s, flow: Float32s, base: int, x: float, y: float, fill: bool, compat: bool) -> None:
    """Fill `maps` (T, H, W) from the map of frame `base`; (x, y) converts pixels to map cells.

    Maps are computed row by row to keep all scratch memory in the L1 cache.
    """
    frames, height, width = maps.shape
    rows, columns = flow.shape[1:3]
    inverted = 0 if compat else base
    inverses = np.empty((inverted, rows, columns, 2), dtype=_F)
    invert(flow[:inverted], x * columns / width, y * rows / height, inverses)
    across, above = around(columns, width), around(rows, height)
    field, wide = np.empty((2, rows + 1, columns + 1), dtype=_F), np.empty((2, rows + 1, width), dtype=_F)
    places, shares = np.zeros(width, dtype=_I), np.zeros((2, width), dtype=_F)
    line, starts = np.empty(width, dtype=_F), np.empty(width, dtype=_F)
    for c in range(width):
        starts[c] = c + 1
    # A border of zeros stands for everything outside the frame. The map of the frame before is read from `framed` while
    # the next one is written to `moved`.
    framed, moved = np.zeros((height + 2, width + 2), dtype=_F), np.zeros((height + 2, width + 2), dtype=_F)
    outside = maps[base] if fill else np.zeros((height, width), dtype=_F)
    for n in range(frames - 1):
        # First from the base back to frame 0, then from the base on to the last frame; both directions begin with the
        # start map.
        frame, pair = (base - 1 - n, base - 1 - n) if n < base else (n + 1, n)
        if n == 0 or n == base:
            for r in range(height):
                for c in range(width):
                    framed[r + 1, _U(c + 1)] = maps[base, r, c]
        if pair < inverted:
            scale(inverses[pair], _F(width / columns), _F(height / rows), field)
        else:
            scale(flow[pair], _F(x), _F(y), field)
        # Resize the flow to the map, along rows here and along columns below.
        for axis in range(2):
            for r in range(rows + 1):
                sample_row(field[axis, r], across, wide[axis, r])
        for r in range(height):
            top, part, start = above[0][r], above[1][r], _F(r) + _F(1.0)
            for c in range(width):
                a, b = wide[0, top, c], wide[1, top, c]
                step_x = a + (wide[0, top + 1, c] - a) * part
                step_y = b + (wide[1, top + 1, c] - b) * part
                column, shares[0, c] = locate_cell(starts[c] + step_x, width + 1)
                row, shares[1, c] = locate_cell(start + step_y, height + 1)
                places[c] = row * _I(width + 2) + column
            sample(framed, width + 2, places, shares, line)
            for c in range(width):
                at = _U(c)
                seen, own = line[at], outside[r, at]
                seen = seen if seen != _F(0.0) else own
                maps[frame, r, at], moved[r + 1, at + _U(1)] = seen, seen
        framed, moved = moved, framed


@kernel
def around(cells: int, pixels: int) -> tuple[Int32s, Float32s]:
    """For each of `pixels` along an axis of `cells`, return the preceding cell and the fraction towards the next one
    (at the end of the axis, the last cell).
    """
    before, share = np.zeros(pixels, dtype=_I), np.zeros(pixels, dtype=_F)
    for p in range(pixels):
        place = min(max((p + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
        before[p], share[p] = int(place), place - int(place)
    return before, share


@kernel
def locate_cell(place: np.float32, last: int) -> tuple[np.int32, np.float32]:
    """Split a coordinate on an axis from 0 to `last` into the preceding cell and the fraction in [0, 1].

    Coordinates outside, and NaN, are clamped to an end. All integers have 32 bits, the width of the fractions.
    """
    end, before_last = _F(last * _PARTS), _I(max(last - 1, 0))
    part = place * _F(_PARTS) + _F(0.5)
    part = part if part > _F(0.0) else _F(0.0)
    part = part if part < end else end
    parts = _I(part)
    cell = min(_I(parts >> _BITS), before_last)
    return cell, _F(_I(parts - (cell << _BITS))) * _F(1 / _PARTS)


@kernel
def sample(image: Float32s, columns: int, places: Int32s, shares: Float32s, out: Float32s) -> None:
    """Sample `image`, rows of `columns` cells, bilinearly between `places` and their right and lower neighbours."""
    flat = image.reshape(-1)
    for n in range(places.size):
        at = _U(places[n])
        below = at + _U(columns)
        above = flat[at] + (flat[at + _U(1)] - flat[at]) * shares[0, n]
        under = flat[below] + (flat[below + _U(1)] - flat[below]) * shares[0, n]
        out[n] = above + (under - above) * shares[1, n]


@kernel
def sample_row(row: Float32s, across: tuple[Int32s, Float32s], out: Float32s) -> None:
    """Interpolate `row` linearly between cells `across[0]` and their neighbours."""
    before, share = across
    for n in range(before.size):
        at = _U(before[n])
        out[n] = row[at] + (row[at + _U(1)] - row[at]) * share[n]


@kernel
def find_highest_bump(down: Float32s, across: Float32s, chosen: Int64s, faint: np.float32) -> Float32s:
    """Return the maximum of the chosen patches' bumps, normalised to 1 and clipped below at `faint`: (H, W).

    A patch's bump is the product of a row of `down` (h, H) and a row of `across` (w, W); patches are numbered row by
    row.
    """
    patches, height, width = len(across), down.shape[1], across.shape[1]
    mixed, before = np.zeros((height, width), dtype=np.float32), np.zeros((height, width), dtype=np.float32)
    for patch in chosen:
        # LLVM would compile an in-place maximum to slow masked stores, so write to a second buffer.
        mixed, before = before, mixed
        row, column = patch // patches, across[patch % patches]
        for r in range(height):
            for c in range(width):
                at = _U(c)
                bump, so_far = down[row, r] * column[at], before[r, at]
                mixed[r, at] = bump if bump > so_far else so_far
    bits, greatest = mixed.view(np.int32).reshape(-1), _I(0)  # non-negative floats sort like their bits
    for n in range(bits.size):
        greatest = max(greatest, bits[n])
    flat, top = mixed.reshape(-1), np.array([greatest], dtype=np.int32).view(np.float32)[0]
    for n in range(flat.size):
        flat[n] = max(flat[n] / top, faint)
    return mixed


@kernel
def sum_tokens(maps: Float32s, tubelet: int, cells: int) -> Float32s:
    """Sum maps (T, H, W) over tokens of `tubelet` frames and cells x cells map cells: (T / tubelet, N)."""
    frames, height, width = maps.shape
    h, w = height // cells, width // cells
    # Floats are added in a fixed order (frames, rows, then columns), which the torch backend repeats: a different order
    # would round differently and change masks.
    sums = np.empty((frames // tubelet, h * w), dtype=np.float32)
    line = np.empty(width, dtype=np.float32)
    for t in range(frames // tubelet):
        for row in range(h):
            for c in range(width):
                line[c] = 0.0
            for frame in range(t * tubelet, (t + 1) * tubelet):
                for r in range(row * cells, (row + 1) * cells):
                    for c in range(width):
                        line[c] += maps[frame, r, c]
            for column in range(w):
                total = _F(0.0)
                for c in range(column * cells, (column + 1) * cells):
                    total += line[_U(c)]
                sums[t, row * w + column] = total
    return sums


@kernel
def hide_all_but_highest(scores: Float32s, visible: int, order: Int64s) -> Bools:
    """Hide all but the `visible` highest tokens in each row: bool, shape of `scores` (rows, N).

    Ties are broken by `order`, a permutation of a row's tokens: earlier ones remain visible.
    """
    hidden = np.ones(scores.shape, dtype=np.bool_)
    best = np.empty(max(visible, 1), dtype=np.int64)  # best so far, highest first
    for row in range(len(scores) if visible else 0):
        line, count = scores[row], 0
        # Insert each token into the sorted list of the best so far. Only strictly higher scores move ahead, so among
        # equal ones the earlier in `order` stays.
        for n in order:
            place = count
            if count == visible:
                if line[n] <= line[best[visible - 1]]:
                    continue
                place -= 1
            else:
                count += 1
            while place > 0 and line[best[place - 1]] < line[n]:
                best[place] = best[place - 1]
                place -= 1
            best[place] = n
        for n in best[:count]:
            hidden[row, n] = False
    return hidden


class NumbaMaps:
    """`MapBackend` for lists of arrays."""

    def carry(
        self,
        draws: Sequence[MotionDraws],
        flow: list[Float32s],
        *,
        cell: tuple[float, float],
        fill: bool,
        compat: bool,
    ) -> list[Float32s]:
        """Warp the start maps along the flow."""
        pairs = zip(draws, flow, strict=True)
        return [carry(own.start, field, own.base, cell=cell, fill=fill, compat=compat) for own, field in pairs]

    def sum_tokens(self, maps: list[Float32s], tubelet: int, cells: int) -> list[Float32s]:
        """Sum maps over tokens."""
        return [sum_tokens(own, tubelet, cells) for own in maps]

    def disturbed(self, scores: list[Float32s], draws: Sequence[MotionDraws], scale: float) -> list[Float32s]:
        """Scale the scores and add the noise."""
        for own, drawn in zip(scores, draws, strict=True):
            own *= np.float32(scale)
            if drawn.noise is not None:
                own[drawn.noise[0]] += drawn.noise[1]
        return scores

    def hide_all_but_highest(self, scores: list[Float32s], draws: Sequence[MotionDraws], *, whole: bool) -> list[Bools]:
        """Return the maps of hidden tokens."""
        return [
            hide_all_but_highest(own.reshape(1, -1) if whole else own, drawn.visible, drawn.order).reshape(-1)
            for own, drawn in zip(scores, draws, strict=True)
        ]
