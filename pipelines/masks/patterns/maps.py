"""Kernels of motion-guided masks on maps of the plane: mixed bumps, their way along a clip's flow, sums over tokens,
and the highest tokens.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskstream.shards.jit import kernel

from .torch_maps import MotionDraws

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.uint64]

INVERSION_STEPS = 3
_F, _I, _U = np.float32, np.int32, np.uint64
_BITS = _I(5)
_PARTS = 1 << _BITS
"""Places are rounded to 1/32 of a cell, so that what lies a rounding error inside the frame counts as outside."""


def carry(start: Floats, flow: Floats, base: int, *, cell: tuple[float, float], fill: bool, compat: bool) -> Floats:
    """The map `start` (H, W) of frame `base`, seen in every frame of the clip: float32 (T, H, W).

    `flow` (T-1, h, w, 2) is backward flow, x then y, in pixels; `cell` is the width and height of one map cell in
    pixels. Frame by frame outwards from the base, each map is sampled (bilinear, zero outside) from its neighbour's:
    behind the base where the flow points, before it where the inverse flow points. With `fill`, places whose source is
    outside the frame take the value of `start`, which has to be positive everywhere. `compat` takes the flow itself,
    not its inverse, before the base.
    """
    flow = np.require(flow, np.float32, ["C", "W"])  # one kind of array, one compilation
    maps = np.empty((len(flow) + 1, *start.shape), dtype=np.float32)
    maps[base] = start
    carry_on(maps, flow, base, 1 / cell[0], 1 / cell[1], fill, compat)
    return maps


def inverse(flow: Floats) -> Floats:
    """The inverse of fields (K, h, w, 2) in units of their own cells: q + inverse(q) = p where p + flow(p) = q.

    Fixed-point iteration p <- q - flow(p), which converges where the flow changes by less than a cell from cell to
    cell; flow outside the frame is that of its border.
    """
    planes = np.empty((len(flow), 2, *flow.shape[1:3]), dtype=np.float32)
    invert(flow, 1.0, 1.0, planes)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


@kernel
def invert(flow: Floats, scale_x: float, scale_y: float, inverted: Floats) -> None:
    """The inverse of fields (K, h, w, 2) times (scale_x, scale_y), all in cells of the field: planes (K, 2, h, w)."""
    fields, rows, columns, _ = flow.shape
    cells = rows * columns
    field = np.empty((2, cells), dtype=_F)
    to = np.empty((2, cells), dtype=_F)
    whole, share = np.empty((2, cells), dtype=_I), np.empty((2, cells), dtype=_F)
    places = positions(rows, columns, _F(0.0))
    right, down = min(columns - 1, 1), min(rows - 1, 1) * columns
    for k in range(fields):
        for r in range(rows):
            for c in range(columns):
                field[0, r * columns + c] = flow[k, r, c, 0] * _F(scale_x)
                field[1, r * columns + c] = flow[k, r, c, 1] * _F(scale_y)
        for axis in range(2):
            for n in range(cells):
                to[axis, n] = -field[axis, n]
        for _ in range(INVERSION_STEPS - 1):
            cells_and_shares(places[0], to[0], columns - 1, whole[0], share[0])
            cells_and_shares(places[1], to[1], rows - 1, whole[1], share[1])
            for axis in range(2):
                sample(field[axis], columns, right, down, whole, share, to[axis])
                for n in range(cells):
                    to[axis, n] = -to[axis, n]
        for axis in range(2):
            for r in range(rows):
                for c in range(columns):
                    inverted[k, axis, r, c] = to[axis, r * columns + c]


@kernel
def carry_on(maps: Floats, flow: Floats, base: int, x: float, y: float, fill: bool, compat: bool) -> None:
    """Fills `maps` (T, H, W) from that of frame `base`; (x, y) goes from pixels to map cells."""
    frames, height, width = maps.shape
    rows, columns = flow.shape[1:3]
    steps = np.empty((frames - 1, 2, rows, columns), dtype=_F)
    inverted = 0 if compat else base
    invert(flow[:inverted], x * columns / width, y * rows / height, steps)
    for k in range(frames - 1):
        scale_x, scale_y = _F(width / columns), _F(height / rows)
        for r in range(rows):
            for c in range(columns):
                if k < inverted:
                    steps[k, 0, r, c] *= scale_x
                    steps[k, 1, r, c] *= scale_y
                else:
                    steps[k, 0, r, c] = flow[k, r, c, 0] * _F(x)
                    steps[k, 1, r, c] = flow[k, r, c, 1] * _F(y)
    points, places = np.empty((2, height * width), dtype=_F), positions(height, width, _F(1.0))
    whole, share = np.empty(points.shape, dtype=_I), np.empty(points.shape, dtype=_F)
    framed = np.zeros((height + 2, width + 2), dtype=_F)  # with the zeros outside
    across = around(columns, width)
    above = around(rows, height)
    wide = np.empty((rows, width), dtype=_F)
    first = maps[base].reshape(-1)
    for n in range(frames - 1):
        frame, pair, neighbour = n + 1, n, n
        if n < base:
            frame, pair, neighbour = base - 1 - n, base - 1 - n, base - n
        for axis in range(2):
            enlarge(steps[pair, axis], across, above, wide, points[axis])
        cells_and_shares(places[0], points[0], width + 1, whole[0], share[0])
        cells_and_shares(places[1], points[1], height + 1, whole[1], share[1])
        for r in range(height):
            for c in range(width):
                framed[r + 1, c + 1] = maps[neighbour, r, c]
        moved = maps[frame].reshape(-1)
        sample(framed.reshape(-1), width + 2, 1, width + 2, whole, share, moved)
        if fill:
            for place in range(moved.size):
                moved[place] = moved[place] if moved[place] != _F(0.0) else first[place]


@kernel
def positions(height: int, width: int, offset: np.float32) -> Floats:
    """Each cell's column and row plus `offset`: (2, height * width)."""
    places = np.empty((2, height * width), dtype=_F)
    for r in range(height):
        for c in range(width):
            places[0, r * width + c] = _F(c) + offset
            places[1, r * width + c] = _F(r) + offset
    return places


@kernel
def around(cells: int, pixels: int) -> tuple[Places, Places, Floats]:
    """For each of `pixels` along an axis of `cells`: the cells before and behind it, and its place between them."""
    before, behind = np.empty(pixels, dtype=_U), np.empty(pixels, dtype=_U)
    share = np.empty(pixels, dtype=_F)
    for p in range(pixels):
        place = min(max((p + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
        cell = int(place)
        before[p], behind[p], share[p] = cell, min(cell + 1, cells - 1), place - cell
    return before, behind, share


@kernel
def enlarge(
    plane: Floats,
    across: tuple[Places, Places, Floats],
    above: tuple[Places, Places, Floats],
    wide: Floats,
    out: Floats,
) -> None:
    """`plane` (h, w), bilinearly on the W x H places of `across` and `above`: out (H * W); `wide` (h, W) is scratch."""
    left, right, along = across
    top, bottom, down = above
    width = left.size
    for r in range(plane.shape[0]):
        line, row = wide[r], plane[r]
        for c in range(width):
            a = row[left[c]]
            line[c] = a + (row[right[c]] - a) * along[c]
    for r in range(top.size):
        line, high, low, share = out[r * width : (r + 1) * width], wide[top[r]], wide[bottom[r]], down[r]
        for c in range(width):
            line[c] = high[c] + (low[c] - high[c]) * share


@kernel
def cells_and_shares(places: Floats, steps: Floats, last: int, whole: Ints, share: Floats) -> None:
    """Where places + steps lie on an axis from 0 to `last`: the cell before each, and how far behind it in [0, 1].

    What lies outside, or is not a number, is moved to an end.
    """
    end, before_last = _F(last * _PARTS), _I(max(last - 1, 0))
    for n in range(places.size):
        part = (places[n] + steps[n]) * _F(_PARTS) + _F(0.5)
        part = part if part > _F(0.0) else _F(0.0)
        part = part if part < end else end
        parts = _I(part)
        cell = min(parts >> _BITS, before_last)
        whole[n] = cell
        share[n] = _F(parts - (cell << _BITS)) * _F(1 / _PARTS)


@kernel
def sample(image: Floats, stride: int, right: int, down: int, whole: Ints, share: Floats, out: Floats) -> None:
    """`image`, flat, bilinearly between the cells `whole` and the next, which are `right` and `down` from them."""
    columns, rows = whole
    along, across = share
    for n in range(out.size):
        place = _U(rows[n] * _I(stride) + columns[n])
        a, b = image[place], image[place + _U(right)]
        c, d = image[place + _U(down)], image[place + _U(down) + _U(right)]
        a += (b - a) * along[n]
        c += (d - c) * along[n]
        out[n] = a + (c - a) * across[n]


@kernel
def highest_bump(down: Floats, across: Floats, chosen: npt.NDArray[np.int64], faint: np.float32) -> Floats:
    """The maximum of the chosen patches' bumps over its greatest value, at least `faint`: (H, W).

    A patch's bump is a row of down (h, H) times a row of across (w, W); patches are numbered row by row.
    """
    patches, height, width = len(across), down.shape[1], across.shape[1]
    mixed = np.zeros((height, width), dtype=np.float32)
    for patch in chosen:
        rows, column = down[patch // patches], across[patch % patches]
        for r in range(height):
            line, row = mixed[r], rows[r]
            for c in range(width):
                line[c] = max(line[c], row * column[c])
    flat, greatest = mixed.reshape(-1), np.float32(0.0)
    for n in range(flat.size):
        greatest = max(greatest, flat[n])
    for n in range(flat.size):
        flat[n] = max(flat[n] / greatest, faint)
    return mixed


@kernel
def token_sums(maps: Floats, tubelet: int, cells: int) -> Floats:
    """The sums of maps (T, H, W) over tokens of `tubelet` frames and cells x cells cells: (T / tubelet, N)."""
    frames, height, width = maps.shape
    h, w = height // cells, width // cells
    sums = np.zeros((frames // tubelet, h * w), dtype=np.float32)
    line = np.empty(width, dtype=np.float32)
    for t in range(frames // tubelet):
        for row in range(h):
            for c in range(width):
                line[c] = 0.0
            for frame in range(t * tubelet, (t + 1) * tubelet):
                for r in range(row * cells, (row + 1) * cells):
                    for c in range(width):
                        line[c] += maps[frame, r, c]
            for c in range(width):
                sums[t, row * w + c // cells] += line[c]
    return sums


@kernel
def all_but_highest(scores: Floats, visible: int, order: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """The map that hides all but the `visible` highest tokens of each row: bool, of scores' shape (rows, N).

    Of equal ones those stay visible that `order`, a permutation of a row's tokens, names first.
    """
    hidden = np.ones(scores.shape, dtype=np.bool_)
    best = np.empty(max(visible, 1), dtype=np.int64)  # so far, the highest first
    for row in range(len(scores) if visible else 0):
        line, count = scores[row], 0
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
        flow: list[Floats],
        *,
        cell: tuple[float, float],
        fill: bool,
        compat: bool,
    ) -> list[Floats]:
        """The start maps carried along the flow."""
        pairs = zip(draws, flow, strict=True)
        return [carry(own.start, field, own.base, cell=cell, fill=fill, compat=compat) for own, field in pairs]

    def token_sums(self, maps: list[Floats], tubelet: int, cells: int) -> list[Floats]:
        """The sums over tokens."""
        return [token_sums(own, tubelet, cells) for own in maps]

    def disturbed(self, scores: list[Floats], draws: Sequence[MotionDraws], scale: float) -> list[Floats]:
        """The scores times `scale`, plus the noise."""
        for own, drawn in zip(scores, draws, strict=True):
            own *= np.float32(scale)
            if drawn.noise is not None:
                own[drawn.noise[0]] += drawn.noise[1]
        return scores

    def all_but_highest(
        self, scores: list[Floats], draws: Sequence[MotionDraws], *, whole: bool
    ) -> list[npt.NDArray[np.bool_]]:
        """The maps of hidden tokens."""
        return [
            all_but_highest(own.reshape(1, -1) if whole else own, drawn.visible, drawn.order).reshape(-1)
            for own, drawn in zip(scores, draws, strict=True)
        ]
