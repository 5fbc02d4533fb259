"""Kernels that convert YUV 4:2:0 planes to RGB in one pass: crop, resize, flip and colours.

All sums use integers and machine-independent LLVM vectors, so every machine computes the same pixels. Each output row
uses scratch rows that stay in cache: rows of the plane are mixed, then columns, and the resulting rows of Y, U and V
become one row of RGB. `PIXELS_VERSION` in cpu.py identifies this arithmetic in a loader's identity.
"""

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.np.numpy_support import carray

from maskstream.shards.arrays import Float32s, Int16s, Int32s, Int64s
from maskstream.shards.jit import filled, instructions, kernel, load, picked, store, undefined, vector

Bytes = npt.NDArray[np.uint8]
Taps = tuple[Int64s, Int32s]
"""For each of n outputs, the first input, int64 (n,), and the weights of the inputs from it on, int32 (n, k)."""
Steps = tuple[Int64s, Bytes, Int16s]
"""Arguments of `_mix_four` for every four outputs: first inputs (n,), picks (n, 16) and weights (n, 8)."""

PlaneTaps = tuple[Taps, Taps, Steps, int, bool]
"""For a plane: taps of its rows and columns, steps of the columns, its width, and whether it is flipped."""
Parts = tuple[Int64s, Int64s]
"""Parts of a plane to compute, in bands of rows: groups of four columns, int64 (n, 2), first and end, and for each band
the end of its groups, int64 (bands + 1,), from 0.
"""

UNIT = 1 << 14
"""Sum of the weights of an output."""
_FINE, _COARSE = UNIT, 256  # precision of column and row weights: sums of rows have 16 bits
_CENTRE = 1 << 15  # offset subtracted from sums of rows, which are 256 times a level, so that they fit int16


@instructions(types.CPointer(types.uint8))  # type: ignore[no-untyped-call]
def _make_pointer(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return b.inttoptr(address, ir.IntType(8).as_pointer())


@kernel
def bytes_at(address: int, n: int) -> Bytes:
    """Return a view of `n` bytes at an address."""
    return carray(_make_pointer(address), n)  # type: ignore[call-overload,no-any-return]


@instructions(types.void)
def _mix_four(b: ir.IRBuilder, mixed: ir.Value, picks: ir.Value, weights: ir.Value, out: ir.Value) -> None:
    """Write 4 bytes at `out`: from 8 sums of rows, int16, at `mixed`, the 16 byte numbers in `picks` select 4 pairs,
    which are weighted by 8 int16. All arguments are addresses.
    """
    values, order, chosen = load(b, mixed, vector(8, 16)), load(b, picks, vector(8, 16)), undefined(vector(8, 16))
    for n in range(16):  # LLVM compiles these to a single instruction: pshufb, or tbl on ARM
        one = b.extract_element(values, b.extract_element(order, _number(n)))
        chosen = b.insert_element(chosen, one, _number(n))
    pairs, shares = b.bitcast(chosen, vector(16, 8)), load(b, weights, vector(16, 8))
    products = b.mul(b.sext(pairs, vector(32, 8)), b.sext(shares, vector(32, 8)))
    even, odd = (picked(b, products, products, range(n, 8, 2)) for n in (0, 1))
    sums = b.add(b.add(even, odd), filled(vector(32, 4), _CENTRE * UNIT + UNIT * 128))
    store(b, b.trunc(b.lshr(sums, filled(vector(32, 4), 22)), vector(8, 4)), out)


def _share(b: ir.IRBuilder, value: ir.Value, colours: ir.Value, n: int) -> ir.Value:
    """Return the upper 16 bits of the products of 16 int16 and one of the six numbers at `colours`."""
    wide, wider = vector(16, 16), vector(32, 16)
    product = b.mul(b.sext(value, wider), b.sext(_spread(b, colours, n), wider))
    return b.trunc(b.lshr(product, filled(wider, 16)), wide)


def _spread(b: ir.IRBuilder, colours: ir.Value, n: int) -> ir.Value:
    """Broadcast one of the six int16 at `colours` to 16 lanes."""
    wide = vector(16, 16)
    one = load(b, b.add(colours, ir.Constant(colours.type, 2 * n)), wide.element)
    one.set_metadata("invariant.load", b.module.add_metadata([]))  # otherwise each store of pixels might alias it
    return b.shuffle_vector(
        b.insert_element(undefined(wide), one, _number(0)), undefined(wide), filled(vector(32, 16), 0)
    )


def _chroma(b: ir.IRBuilder, u: ir.Value, v: ir.Value, colours: ir.Value) -> list[ir.Value]:
    """Return the contributions of 16 bytes each of U and V to red, green and blue."""
    wide = vector(16, 16)
    across, down = (b.shl(b.sub(b.zext(of, wide), filled(wide, 128)), filled(wide, 8)) for of in (u, v))
    green = b.add(_share(b, across, colours, 3), _share(b, down, colours, 4))
    return [_share(b, down, colours, 2), green, _share(b, across, colours, 5)]


def _write_sixteen(b: ir.IRBuilder, y: ir.Value, chroma: list[ir.Value], colours: ir.Value, out: ir.Value) -> None:
    """Write 16 RGB pixels (48 bytes) at `out` from 16 bytes at y and the contributions of `_chroma`."""
    wide = vector(16, 16)

    def bounded(value: ir.Value, order: str, bound: int) -> ir.Value:
        return b.select(b.icmp_signed(order, value, filled(wide, bound)), value, filled(wide, bound))

    level = b.sub(b.zext(load(b, y, vector(8, 16)), wide), _spread(b, colours, 0))
    luma = b.shl(bounded(level, ">", 0), filled(wide, 7))
    light = b.add(_share(b, luma, colours, 1), filled(wide, 17))  # half of 32, plus the loss of the products
    red, green, blue = (
        b.trunc(bounded(bounded(b.ashr(b.add(light, own), filled(wide, 5)), ">", 0), "<", 255), vector(8, 16))
        for own in chroma
    )
    two, one = picked(b, red, green, range(32)), picked(b, blue, blue, range(32))
    store(b, picked(b, two, one, [n // 3 + 16 * (n % 3) for n in range(48)]), out)


@instructions(types.void)
def _convert_sixteen(b: ir.IRBuilder, y: ir.Value, u: ir.Value, v: ir.Value, colours: ir.Value, out: ir.Value) -> None:
    """Write 16 RGB pixels at `out` from 16 bytes each at y, u and v, as defined in `compute_colour_numbers`.

    `colours` is the address of its six int16.
    """
    across, down = (load(b, of, vector(8, 16)) for of in (u, v))
    _write_sixteen(b, y, _chroma(b, across, down, colours), colours, out)


@instructions(types.void)
def _convert_pairs(
    b: ir.IRBuilder,
    y: ir.Value,
    below: ir.Value,
    u: ir.Value,
    v: ir.Value,
    colours: ir.Value,
    out: ir.Value,
    out_below: ir.Value,
) -> None:
    """Write 16 RGB pixels for each of two rows, y and `below`; pairs of pixels share the 8 bytes at u and at v."""
    of = (load(b, address, vector(8, 8)) for address in (u, v))
    across, down = (picked(b, one, one, [n // 2 for n in range(16)]) for one in of)
    chroma = _chroma(b, across, down, colours)
    _write_sixteen(b, y, chroma, colours, out)
    _write_sixteen(b, below, chroma, colours, out_below)


@kernel
def write_rgb(
    frames: Int64s,
    crop: tuple[int, int, int, int],
    flip: bool,
    colours: Int16s,
    half: bool,
    out: Bytes,
) -> None:
    """Write the crop (x, y, width, height) of frames into `out`, uint8 (T, H, W, 3), C-contiguous.

    Args:
        frames: int64 (n, 7): index in `out`, addresses of the planes Y, U and V, and their bytes per row. The planes
            must contain the crop.
        crop: In pixels of the frames.
        flip: Mirror the output.
        colours: Result of `cpu.compute_colour_numbers`.
        half: Resize chroma to half of H and W, which are even, and double it; otherwise, resize it to the full size.
        out: Output.
    """
    rows, columns = out.shape[1:3]
    x, y, wide, high = crop
    step = 2 if half else 1
    luma = np.empty((rows, columns + 15 & ~15), dtype=np.uint8)
    u, v = np.empty_like(luma), np.empty_like(luma)
    luma_taps = compute_plane_taps(high, wide, rows, columns, flip)
    chroma_taps = compute_plane_taps((high + 1) // 2, (wide + 1) // 2, rows // step, columns // step, flip)
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
    """Resize parts of a plane with `line` bytes per row; `out` has room for a multiple of 16 columns.

    A band has `band` rows of the clip, and `step` of them are one row of the plane, so two bands may share a row.
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
def convert(luma: Bytes, u: Bytes, v: Bytes, colours: Int16s, half: bool, out: Bytes) -> None:
    """Write RGB (H, W, 3) from planes whose rows have room for a multiple of 16; `half` as in `write_rgb`."""
    (rows, columns), line, step = out.shape[:2], luma.shape[1], 2 if half else 1
    scratch, of, rest = np.empty(96, dtype=np.uint8), colours.ctypes.data, 3 * (columns % 16)
    for row in range(0, rows, step):
        y, own, to = luma.ctypes.data + row * line, row // step * line, out.ctypes.data + 3 * row * columns
        # signed, like the others
        across, down, last = u.ctypes.data + own, v.ctypes.data + own, scratch.ctypes.data + 0
        for k in range(0, columns, 16):
            one, other = (to + 3 * k, to + 3 * (columns + k)) if k + 16 <= columns else (last, last + 48)
            if half:
                _convert_pairs(y + k, y + line + k, across + k // 2, down + k // 2, of, one, other)
            else:
                _convert_sixteen(y + k, across + k, down + k, of, one)
        for n in range(step if rest else 0):
            pixels, made = bytes_at(to + 3 * (n + 1) * columns - rest, rest), bytes_at(last + 48 * n, rest)
            for k in range(rest):
                pixels[k] = made[k]


@kernel
def write_tokens(
    frames: Int64s,
    crop: tuple[int, int, int, int],
    flip: bool,
    colours: Int16s,
    half: bool,
    grid: tuple[int, int],
    chosen: Int64s,
    out: Bytes,
) -> None:
    """Write the chosen tokens of frames into `out`, uint8 (K, tubelet, p, p * 3), with the pixels of `write_rgb`.

    Args:
        frames: As in `write_rgb`.
        crop: As in `write_rgb`.
        flip: As in `write_rgb`.
        colours: As in `write_rgb`.
        half: As in `write_rgb`.
        grid: Tokens of a time step along H and W, with p pixels each.
        chosen: int64 (K,), sorted token numbers in C order of (time, *grid).
        out: Output.
    """
    x, y, wide, high = crop
    tubelet, patch, step = out.shape[1], out.shape[2], 2 if half else 1
    rows, columns, of_step = grid[0] * patch, grid[1] * patch, grid[0] * grid[1]
    luma = np.empty((rows + 1, columns + 15 & ~15), dtype=np.uint8)  # whole vectors are read, also in the last row
    u, v = np.empty_like(luma), np.empty_like(luma)
    luma_taps = compute_plane_taps(high, wide, rows, columns, flip)
    chroma_taps = compute_plane_taps((high + 1) // 2, (wide + 1) // 2, rows // step, columns // step, flip)
    known, start, stop = -1, 0, 0
    places = chosen[:0]
    parts = split_plane(places, grid, patch, 1), split_plane(places, grid, patch, step)
    for n in range(len(frames)):
        to, at, at_u, at_v, line, line_u, line_v = frames[n]
        time = to // tubelet
        if time != known:  # frames of a step show the same tokens
            known = time
            start, stop = np.searchsorted(chosen, time * of_step), np.searchsorted(chosen, (time + 1) * of_step)
            places = chosen[start:stop] - time * of_step
            parts = split_plane(places, grid, patch, 1), split_plane(places, grid, patch, step)
        if start == stop:
            continue
        resize(at + y * line + x, line, luma_taps, parts[0], patch, 1, luma)
        resize(at_u + y // 2 * line_u + x // 2, line_u, chroma_taps, parts[1], patch, step, u)
        resize(at_v + y // 2 * line_v + x // 2, line_v, chroma_taps, parts[1], patch, step, v)
        convert_tokens(luma, u, v, colours, half, places, grid[1], out[start:stop, to % tubelet])


@kernel
def split_plane(places: Int64s, grid: tuple[int, int], patch: int, step: int) -> Parts:
    """Return the parts of a plane that contain tokens, one band per row of the grid; `places` are
    sorted token numbers.
    """
    ends, fours = np.zeros(grid[0] + 1, dtype=np.int64), np.empty((len(places), 2), dtype=np.int64)
    count = 0
    for n in range(len(places)):
        down, across = places[n] // grid[1], places[n] % grid[1]
        start, stop = across * patch // step // 4, (((across + 1) * patch + step - 1) // step + 3) // 4
        if n > 0 and places[n - 1] == places[n] - 1 and across > 0:
            fours[count - 1, 1] = stop  # continues from the previous token
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
    colours: Int16s,
    half: bool,
    places: Int64s,
    across: int,
    out: Bytes,
) -> None:
    """Write the RGB of a frame's tokens, uint8 (K, p, p * 3), from planes as in `convert`.

    `places` are the tokens' numbers in a frame with `across` tokens per row.
    """
    patch, line, of = out.shape[1], luma.shape[1], colours.ctypes.data
    room, halved = 3 * patch + 96, 1 if half else 0
    rows = 2 if half and patch % 2 == 0 else 1  # pixels that share chroma
    direct, scratch = patch % 16 == 0, np.empty(2 * room, dtype=np.uint8)
    for n in range(len(places)):
        top, left = places[n] // across * patch, places[n] % across * patch
        begin = left >> halved << halved  # in a token with odd sides, chroma may start between two pixels
        for row in range(0, patch, rows):
            y, own = luma.ctypes.data + (top + row) * line + begin, (top + row >> halved) * line + (left >> halved)
            one_u, one_v = u.ctypes.data + own, v.ctypes.data + own
            y_below = y + (rows - 1) * line
            to = out.ctypes.data + (n * out.strides[0] + row * out.strides[1])
            to_below = to + (rows - 1) * out.strides[1]
            if not direct:
                to, to_below = scratch.ctypes.data + 0, scratch.ctypes.data + (rows - 1) * room
            for k in range(0, patch + left - begin, 16):
                if half:
                    _convert_pairs(y + k, y_below + k, one_u + k // 2, one_v + k // 2, of, to + 3 * k, to_below + 3 * k)
                else:
                    _convert_sixteen(y + k, one_u + k, one_v + k, of, to + 3 * k)
            for below in range(0 if direct else rows):
                pixels, made = out[n, row + below], below * room + 3 * (left - begin)
                for k in range(3 * patch):
                    pixels[k] = scratch[made + k]


@kernel
def compute_plane_taps(high: int, wide: int, rows: int, columns: int, flip: bool) -> PlaneTaps:
    """Compute the taps that resize a plane. If a side is at least twice the output's, sides that are not shorter use
    area averaging.
    """
    averages = high >= 2 * rows or wide >= 2 * columns
    across = compute_taps(wide, columns, averages and wide >= columns, _FINE)
    down = compute_taps(high, rows, averages and high >= rows, _COARSE)
    return down, across, steps_of(across, flip), wide, flip


@kernel
def compute_taps(inputs: int, outputs: int, averages: bool, parts: int) -> Taps:
    """Compute the taps of one side.

    Bilinear taps have pixel centres at half and two inputs, with weights in `parts` parts of UNIT. With `averages`, all
    inputs that an output covers are weighted by their overlap.
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
    """Return the arguments of `_mix_four` for two-input taps; `flip` reverses the outputs. Padding repeats the last
    output.
    """
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
def normalise(pixels: Bytes, mean: Float32s, std: Float32s, out: Float32s) -> None:
    """Write (level / 255 - mean) / std of pixels (N, H, 3 W) to `out` (N, 3, H, W); mean, std: (3,), one per channel.

    Vectorised division takes two thirds of the time of a lookup table, with identical results. The first division is
    replaced exactly by two products: the level times the first 24 bits of 1 / 255, and times the remainder.
    """
    high, low = np.float32(65_793 / 2**24), np.float32(1 / 255 / 2**24)
    (m, n, o), (s, t, u) = (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
    for one in range(len(pixels)):
        for row in range(pixels.shape[1]):
            of, r, g, b = pixels[one, row], out[one, 0, row], out[one, 1, row], out[one, 2, row]
            for k in range(out.shape[3]):
                x, y, z = np.float32(of[3 * k]), np.float32(of[3 * k + 1]), np.float32(of[3 * k + 2])
                r[k] = (x * high + x * low - m) / s
                g[k] = (y * high + y * low - n) / t
                b[k] = (z * high + z * low - o) / u


@kernel
def look_up(pixels: Bytes, values: npt.NDArray[np.signedinteger], out: npt.NDArray[np.signedinteger]) -> None:
    """Write the table value of each pixel (N, H, 3 W) to `out` (N, 3, H, W); `values` is (3, 256), one table per
    channel.
    """
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
