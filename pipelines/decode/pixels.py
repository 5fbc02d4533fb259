"""Kernels that make RGB pixels of YUV 4:2:0 planes in one pass: crop, resize, flip and colours.

All sums are of integers, and vectors are LLVM's of no machine in particular, so every machine makes the same pixels.
Each output row is made in rows of scratch that stay in cache: rows of the plane are mixed, then columns, and the three
rows of Y, U and V become one of RGB. `PIXELS_VERSION` in cpu.py names this arithmetic in a loader's identity.
"""

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.np.numpy_support import carray

from maskstream.pipelines.jit import filled, instructions, kernel, load, picked, store, undefined, vector

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]
"""Of each of n outputs, the first input, int64 (n,), and the weights of the inputs from it on, int32 (n, k)."""
Steps = tuple[npt.NDArray[np.int64], Bytes, npt.NDArray[np.int16]]
"""The arguments of `_mix_four` for every four outputs: first inputs (n,), picks (n, 16) and weights (n, 8)."""

PlaneTaps = tuple[Taps, Taps, Steps, int, bool]
"""Of a plane: the taps of its rows and of its columns, the steps of those, its width, and whether it is flipped."""
Parts = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""What is made of a plane, in bands of rows: fours of columns, int64 (n, 2), the first and the one after the last, and
of each band where its fours end, int64 (bands + 1,), from 0 on.
"""

UNIT = 1 << 14
"""The sum of the weights of an output."""
_FINE, _COARSE = UNIT, 256  # how finely two columns, and two rows, are weighed: sums of rows have 16 bits
_CENTRE = 1 << 15  # what is taken off sums of rows, which are 256 times a level, so that they fit int16


@instructions(types.CPointer(types.uint8))  # type: ignore[no-untyped-call]
def _pointer(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return b.inttoptr(address, ir.IntType(8).as_pointer())


@kernel
def bytes_at(address: int, n: int) -> Bytes:
    """The `n` bytes from an address on."""
    return carray(_pointer(address), n)  # type: ignore[call-overload,no-any-return]


@instructions(types.void)
def _mix_four(b: ir.IRBuilder, mixed: ir.Value, picks: ir.Value, weights: ir.Value, out: ir.Value) -> None:
    """Writes 4 bytes at `out`: of 8 sums of rows, int16, at `mixed`, the bytes that `picks` (16 bytes) numbers make 4
    pairs, which are weighed by 8 int16. All are addresses.
    """
    values, order, chosen = load(b, mixed, vector(8, 16)), load(b, picks, vector(8, 16)), undefined(vector(8, 16))
    for n in range(16):  # LLVM makes one instruction of these: pshufb, or tbl on ARM
        one = b.extract_element(values, b.extract_element(order, _number(n)))
        chosen = b.insert_element(chosen, one, _number(n))
    pairs, shares = b.bitcast(chosen, vector(16, 8)), load(b, weights, vector(16, 8))
    products = b.mul(b.sext(pairs, vector(32, 8)), b.sext(shares, vector(32, 8)))
    even, odd = (picked(b, products, products, range(n, 8, 2)) for n in (0, 1))
    sums = b.add(b.add(even, odd), filled(vector(32, 4), _CENTRE * UNIT + UNIT * 128))
    store(b, b.trunc(b.lshr(sums, filled(vector(32, 4), 22)), vector(8, 4)), out)


@instructions(types.void)
def _colour_sixteen(
    b: ir.IRBuilder,
    y: ir.Value,
    u: ir.Value,
    v: ir.Value,
    colours: ir.Value,
    red: ir.Value,
    green: ir.Value,
    blue: ir.Value,
) -> None:
    """Converts 16 pixels, as `colour_numbers` says, from 16 bytes each at y, u and v to those at red, green and blue.
    `colours` is the address of its six int16.
    """
    wide, wider = vector(16, 16), vector(32, 16)

    def number(n: int) -> ir.Value:
        one = b.insert_element(
            undefined(wide), load(b, b.add(colours, ir.Constant(colours.type, 2 * n)), wide.element), _number(0)
        )
        return b.shuffle_vector(one, undefined(wide), filled(vector(32, 16), 0))

    def levels(address: ir.Value, black: ir.Value) -> ir.Value:
        return b.sub(b.zext(load(b, address, vector(8, 16)), wide), black)

    def times(value: ir.Value, n: int) -> ir.Value:
        product = b.mul(b.sext(value, wider), b.sext(number(n), wider))
        return b.trunc(b.lshr(product, filled(wider, 16)), wide)

    def bounded(value: ir.Value, order: str, bound: int) -> ir.Value:
        return b.select(b.icmp_signed(order, value, filled(wide, bound)), value, filled(wide, bound))

    luma = b.shl(bounded(levels(y, number(0)), ">", 0), filled(wide, 7))
    across, down = (b.shl(levels(chroma, filled(wide, 128)), filled(wide, 8)) for chroma in (u, v))
    light = b.add(times(luma, 1), filled(wide, 17))  # half of 32, and what the products' truncation takes off
    channels = (
        b.add(light, times(down, 2)),
        b.add(light, b.add(times(across, 3), times(down, 4))),
        b.add(light, times(across, 5)),
    )
    for value, out in zip(channels, (red, green, blue), strict=True):
        level = bounded(bounded(b.ashr(value, filled(wide, 5)), ">", 0), "<", 255)
        store(b, b.trunc(level, vector(8, 16)), out)


@instructions(types.void)
def _join_sixteen(b: ir.IRBuilder, red: ir.Value, green: ir.Value, blue: ir.Value, out: ir.Value) -> None:
    """Writes the 48 bytes of 16 RGB pixels at `out`, of 16 bytes each of their channels."""
    first, second, third = (load(b, channel, vector(8, 16)) for channel in (red, green, blue))
    two, one = picked(b, first, second, range(32)), picked(b, third, third, range(32))
    store(b, picked(b, two, one, [n // 3 + 16 * (n % 3) for n in range(48)]), out)


@instructions(types.void)
def _double_sixteen(b: ir.IRBuilder, values: ir.Value, out: ir.Value) -> None:
    """Writes each of 16 bytes at `values` twice, at `out`."""
    one = load(b, values, vector(8, 16))
    store(b, picked(b, one, one, [n // 2 for n in range(32)]), out)


@kernel
def rgb_of_planes(
    frames: npt.NDArray[np.int64],
    crop: tuple[int, int, int, int],
    flip: bool,
    colours: npt.NDArray[np.int16],
    half: bool,
    out: Bytes,
) -> None:
    """Writes the crop (x, y, width, height) of frames into `out`, uint8 (T, H, W, 3), C-contiguous.

    frames: int64 (n, 7), of each its place in `out`, the addresses of the planes Y, U and V and their bytes a line;
    the planes must hold the crop. colours: `cpu.colour_numbers`. half: whether chroma is resized to half of H and W,
    which are even, and doubled; else to all of them.
    """
    rows, columns = out.shape[1:3]
    x, y, wide, high = crop
    step = 2 if half else 1
    luma = np.empty((rows, columns + 15 & ~15), dtype=np.uint8)
    u, v = np.empty_like(luma), np.empty_like(luma)
    luma_taps = plane_taps(high, wide, rows, columns, flip)
    chroma_taps = plane_taps((high + 1) // 2, (wide + 1) // 2, rows // step, columns // step, flip)
    ends = np.array([0, 1])
    all_luma, all_chroma = (
        (ends, np.array([[0, len(luma_taps[2][0])]])),
        (ends, np.array([[0, len(chroma_taps[2][0])]])),
    )
    for n in range(len(frames)):
        to, at, at_u, at_v, line, line_u, line_v = frames[n]
        resize(at + y * line + x, line, luma_taps, all_luma, rows, 1, luma)
        resize(at_u + y // 2 * line_u + x // 2, line_u, chroma_taps, all_chroma, rows, step, u)
        resize(at_v + y // 2 * line_v + x // 2, line_v, chroma_taps, all_chroma, rows, step, v)
        convert(luma, u, v, colours, half, out[to])


@kernel
def resize(address: int, line: int, taps: PlaneTaps, parts: Parts, band: int, step: int, out: Bytes) -> None:
    """Resizes parts of a plane with `line` bytes a line; `out` has room for a multiple of 16 columns.

    A band has `band` rows of the clip, of which `step` are one of the plane, so two bands may share a row.
    """
    (first, weights), (first_column, column_weights), (base, picks, shares), wide, flip = taps
    ends, fours = parts
    sums, mixed = np.empty(wide, dtype=np.int32), np.empty(wide + 8, dtype=np.int16)
    last = len(first_column) - 1
    pick, share, to, line_out = picks.ctypes.data, shares.ctypes.data, out.ctypes.data, out.shape[1]
    down, across = weights.shape[1], column_weights.shape[1]
    for own in range(len(ends) - 1):
        left, right, start, stop = wide, 0, ends[own], ends[own + 1]
        for part in range(start, stop):
            one, other = 4 * fours[part, 0], min(4 * fours[part, 1] - 1, last)
            if flip:
                one, other = last - other, last - one
            left = min(left, first_column[one])
            right = max(right, first_column[other] + across)
        count, source = right - left, mixed.ctypes.data - 2 * left
        if count <= 0:
            continue
        for row in range(own * band // step, ((own + 1) * band + step - 1) // step):
            at = address + first[row] * line + left
            if down == 2:
                above, below = bytes_at(at, count), bytes_at(at + line, count)
                share_below = np.uint16(weights[row, 1] // (UNIT // _COARSE))
                rest = np.uint16(_COARSE - share_below)
                for k in range(count):
                    mixed[k] = np.int16(np.uint16(above[k]) * rest + np.uint16(below[k]) * share_below - _CENTRE)
            else:
                for k in range(count):
                    sums[k] = 32 - (_CENTRE << 6)
                for tap in range(down):
                    of, weight = bytes_at(at + tap * line, count), weights[row, tap]
                    for k in range(count):
                        sums[k] += np.int32(of[k]) * weight
                for k in range(count):
                    mixed[k] = sums[k] >> 6
            for part in range(start, stop):
                if across == 2:
                    for n in range(fours[part, 0], fours[part, 1]):
                        at_four = source + 2 * base[np.uint64(n)]
                        _mix_four(at_four, pick + 16 * n, share + 16 * n, to + row * line_out + 4 * n)
                    continue
                for n in range(4 * fours[part, 0], min(4 * fours[part, 1], last + 1)):
                    place = last - n if flip else n
                    total = np.int64(UNIT * 128)
                    for tap in range(across):
                        level = np.int64(mixed[first_column[place] - left + tap]) + _CENTRE
                        total += level * column_weights[place, tap]
                    out[row, n] = total >> 22


@kernel
def convert(luma: Bytes, u: Bytes, v: Bytes, colours: npt.NDArray[np.int16], half: bool, out: Bytes) -> None:
    """Writes RGB (H, W, 3) of planes whose rows have room for a multiple of 16; `half` as in `rgb_of_planes`."""
    (rows, columns), line, step = out.shape[:2], luma.shape[1], 2 if half else 1
    scratch = np.empty(2 * line + 128, dtype=np.uint8)
    of, red, twice_u = colours.ctypes.data, scratch.ctypes.data, scratch.ctypes.data + 96
    green, blue, last, twice_v = red + 16, red + 32, red + 48, twice_u + line + 16
    for row in range(rows):
        y, own, to = luma.ctypes.data + row * line, row // step * line, out.ctypes.data + 3 * row * columns
        across, down = u.ctypes.data + own, v.ctypes.data + own
        if half:
            for k in range(0, line // 2 if row % 2 == 0 else 0, 16):
                _double_sixteen(across + k, twice_u + 2 * k)
                _double_sixteen(down + k, twice_v + 2 * k)
            across, down = twice_u, twice_v
        for k in range(0, columns, 16):
            _colour_sixteen(y + k, across + k, down + k, of, red, green, blue)
            _join_sixteen(red, green, blue, to + 3 * k if k + 16 <= columns else last)
        if columns % 16:
            pixels, made = bytes_at(to, 3 * columns), bytes_at(last, 48)
            for k in range(3 * (columns - columns % 16), 3 * columns):
                pixels[k] = made[k - 3 * (columns - columns % 16)]


@kernel
def tokens_of_planes(
    frames: npt.NDArray[np.int64],
    crop: tuple[int, int, int, int],
    flip: bool,
    colours: npt.NDArray[np.int16],
    half: bool,
    grid: tuple[int, int],
    chosen: npt.NDArray[np.int64],
    out: Bytes,
) -> None:
    """Writes the chosen tokens of what `rgb_of_planes` makes of frames into `out`, uint8 (K, tubelet, p, p * 3).

    grid: the tokens of a time step along H and W, which have p pixels each. chosen: int64 (K,), the tokens' numbers in
    C order of (time, *grid), ascending. The rest is as in `rgb_of_planes`.
    """
    x, y, wide, high = crop
    tubelet, patch, step = out.shape[1], out.shape[2], 2 if half else 1
    rows, columns, of_step = grid[0] * patch, grid[1] * patch, grid[0] * grid[1]
    luma = np.empty((rows + 1, columns + 15 & ~15), dtype=np.uint8)  # whole vectors are read, also of the last row
    u, v = np.empty_like(luma), np.empty_like(luma)
    luma_taps = plane_taps(high, wide, rows, columns, flip)
    chroma_taps = plane_taps((high + 1) // 2, (wide + 1) // 2, rows // step, columns // step, flip)
    for n in range(len(frames)):
        to, at, at_u, at_v, line, line_u, line_v = frames[n]
        start = np.searchsorted(chosen, to // tubelet * of_step)
        stop = np.searchsorted(chosen, (to // tubelet + 1) * of_step)
        if start == stop:
            continue
        places = chosen[start:stop] - to // tubelet * of_step
        resize(at + y * line + x, line, luma_taps, parts_of(places, grid, patch, 1), patch, 1, luma)
        parts = parts_of(places, grid, patch, step)
        resize(at_u + y // 2 * line_u + x // 2, line_u, chroma_taps, parts, patch, step, u)
        resize(at_v + y // 2 * line_v + x // 2, line_v, chroma_taps, parts, patch, step, v)
        convert_tokens(luma, u, v, colours, half, places, grid[1], out[start:stop, to % tubelet])


@kernel
def parts_of(places: npt.NDArray[np.int64], grid: tuple[int, int], patch: int, step: int) -> Parts:
    """The parts of a plane that tokens show, a band for each row of the grid; places: theirs in it, ascending."""
    ends, fours = np.zeros(grid[0] + 1, dtype=np.int64), np.empty((len(places), 2), dtype=np.int64)
    count = 0
    for n in range(len(places)):
        down, across = places[n] // grid[1], places[n] % grid[1]
        start, stop = across * patch // step // 4, (((across + 1) * patch + step - 1) // step + 3) // 4
        if n > 0 and places[n - 1] == places[n] - 1 and across > 0:
            fours[count - 1, 1] = stop  # it goes on from the token before
        else:
            fours[count] = start, stop
            count += 1
        ends[down + 1] = count
    for down in range(grid[0]):
        ends[down + 1] = max(ends[down], ends[down + 1])
    return ends, fours


@kernel
def convert_tokens(
    luma: Bytes,
    u: Bytes,
    v: Bytes,
    colours: npt.NDArray[np.int16],
    half: bool,
    places: npt.NDArray[np.int64],
    across: int,
    out: Bytes,
) -> None:
    """Writes the RGB of tokens of a frame, uint8 (K, p, p * 3), of planes as `convert` takes them.

    places: of each token, its number in a frame of `across` tokens a row.
    """
    patch, line = out.shape[1], luma.shape[1]
    scratch = np.empty(5 * patch + 256, dtype=np.uint8)
    red = scratch.ctypes.data
    green, blue, joined = red + 16, red + 32, red + 48
    all_u = joined + 3 * patch + 48
    all_v = all_u + patch + 64
    made, of, step = bytes_at(joined, 3 * patch), colours.ctypes.data, 2 if half else 1
    for n in range(len(places)):
        top, left = places[n] // across * patch, places[n] % across * patch
        for row in range(patch):
            y, own = luma.ctypes.data + (top + row) * line + left, (top + row) // step * line + left // step
            one_u, one_v = u.ctypes.data + own, v.ctypes.data + own
            if half:
                if row == 0 or (top + row) % 2 == 0:
                    for k in range(0, patch // 2 + 1, 16):
                        _double_sixteen(one_u + k, all_u + 2 * k)
                        _double_sixteen(one_v + k, all_v + 2 * k)
                one_u, one_v = all_u + left % 2, all_v + left % 2
            for k in range(0, patch, 16):
                _colour_sixteen(y + k, one_u + k, one_v + k, of, red, green, blue)
                _join_sixteen(red, green, blue, joined + 3 * k)
            pixels = bytes_at(out.ctypes.data + (n * out.strides[0] + row * out.strides[1]), 3 * patch)
            for k in range(3 * patch):
                pixels[k] = made[k]


@kernel
def plane_taps(high: int, wide: int, rows: int, columns: int, flip: bool) -> PlaneTaps:
    """What resizes a plane. If a side is at least twice the output's, both sides that are not shorter average areas."""
    averages = high >= 2 * rows or wide >= 2 * columns
    across = taps_of(wide, columns, averages and wide >= columns, _FINE)
    down = taps_of(high, rows, averages and high >= rows, _COARSE)
    return down, across, steps_of(across, flip), wide, flip


@kernel
def taps_of(inputs: int, outputs: int, averages: bool, parts: int) -> Taps:
    """The taps of one side. Means are linear, with pixel centres at half, of two inputs with weights of `parts` parts
    of UNIT; or they are of all inputs that an output covers, weighed by what it covers.
    """
    n = min((inputs - 1) // outputs + 2 if averages else 2, inputs)
    first, weights = np.empty(outputs, dtype=np.int64), np.full((outputs, n), UNIT, dtype=np.int32)
    for k in range(outputs):
        if averages:
            first[k] = min(k * inputs // outputs, inputs - n)
            before = 0
            for tap in range(n):
                covered = min(max((first[k] + tap + 1) * outputs - k * inputs, 0), inputs)
                share = (covered * UNIT + inputs // 2) // inputs
                weights[k, tap] = share - before
                before = share
        else:  # in units of 1 / (2 outputs) of an input
            at = min(max((2 * k + 1) * inputs - outputs, 0), 2 * outputs * (inputs - 1))
            first[k] = min(at // (2 * outputs), inputs - n)
            if n == 2:
                past = at - 2 * outputs * first[k]
                weights[k, 1] = (past * parts + outputs) // (2 * outputs) * (UNIT // parts)
                weights[k, 0] = UNIT - weights[k, 1]
    return first, weights


@kernel
def steps_of(taps: Taps, flip: bool) -> Steps:
    """The arguments of `_mix_four` for taps of two; `flip` reverses the outputs. Those past the last repeat it."""
    first, weights = taps
    outputs = len(first)
    n = (outputs + 3) // 4
    base, picks, shares = np.empty(n, np.int64), np.empty((n, 16), np.uint8), np.empty((n, 8), np.int16)
    if weights.shape[1] != 2:
        return base, picks, shares
    for k in range(n):
        base[k] = first[max(outputs - 4 * k - 4, 0) if flip else 4 * k]
        for one in range(4):
            place = min(4 * k + one, outputs - 1)
            of = outputs - 1 - place if flip else place
            for byte in range(4):
                picks[k, 4 * one + byte] = 2 * (first[of] - base[k]) + byte
            shares[k, 2 * one] = weights[of, 0]
            shares[k, 2 * one + 1] = weights[of, 1]
    return base, picks, shares


@kernel
def normalise(pixels: Bytes, mean: Floats, std: Floats, out: Floats) -> None:
    """Writes (level / 255 - mean) / std of pixels (N, H, 3 W) to `out` (N, 3, H, W); mean, std: (3,), of the channels.

    Vectors of divisions take two thirds of the time of looking each value up, and give the same.
    """
    most, (m, n, o), (s, t, u) = np.float32(255), (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
    for one in range(len(pixels)):
        for row in range(pixels.shape[1]):
            of, r, g, b = pixels[one, row], out[one, 0, row], out[one, 1, row], out[one, 2, row]
            for k in range(out.shape[3]):
                r[k] = (np.float32(of[3 * k]) / most - m) / s
                g[k] = (np.float32(of[3 * k + 1]) / most - n) / t
                b[k] = (np.float32(of[3 * k + 2]) / most - o) / u


@kernel
def look_up(pixels: Bytes, values: npt.NDArray[np.signedinteger], out: npt.NDArray[np.signedinteger]) -> None:
    """Writes the value of each level of pixels (N, H, 3 W) to `out` (N, 3, H, W); values: (3, 256), of the channels."""
    red, green, blue = values[0], values[1], values[2]
    for n in range(len(pixels)):
        for row in range(pixels.shape[1]):
            of, r, g, b = pixels[n, row], out[n, 0, row], out[n, 1, row], out[n, 2, row]
            for k in range(out.shape[3]):
                r[k] = red[of[3 * k]]
                g[k] = green[of[3 * k + 1]]
                b[k] = blue[of[3 * k + 2]]


def _number(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), value)
