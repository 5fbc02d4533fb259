"""The kernel that resizes a crop of a picture: crop, bicubic resize with antialiasing, and flip in one pass.

All sums are of integers, and the vectors are LLVM's of no machine in particular, so every machine makes the same
pixels. Rows of the crop are mixed into one row of int16, and its columns into a row of the output. Nothing in between
is rounded to 8 bits, so an output is within 0.6 levels of its exact value, or a tenth of a level more for each doubling
beyond 8 of the factor by which the crop shrinks.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from maskstream.shards.jit import filled, instructions, kernel, load, picked, store, undefined, vector

UInt8s = npt.NDArray[np.uint8]
Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.int16]]
"""Of each of n outputs, the first input, int64 (n,), and the weights of the inputs from it on, int16 (n, k)."""

UNIT = 1 << 14
"""The sum of the weights of an output."""
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_ROW_STEP = 64
_COLUMN_STEP = 8
_PAIRED = [lane // 2 + 16 * (lane % 2) for lane in range(32)]  # a0 b0 a1 b1 ... of 16 values a and 16 values b
_COLOURS = [0, 3, 1, 4, 2, 5, 6, 7]  # r0 r1 g0 g1 b0 b1 of r0 g0 b0 r1 g1 b1
_WITHOUT_FOURTH = [lane for lane in range(16) if lane % 4 != 3] + [3, 7, 11, 15]


@instructions(types.void)
def _mix_rows(b: ir.IRBuilder, rows: ir.Value, weights: ir.Value, pairs: ir.Value, at: ir.Value, out: ir.Value) -> None:
    """Writes to `out`, as int16, 64 times the weighted sums of 64 bytes each from `at` on in rows.

    rows: the addresses of twice as many rows as there are `pairs`; weights: their int16. All but two are addresses.
    """

    def mix(pair: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        row = b.add(rows, b.mul(pair, _number(16)))
        both = [b.add(load(b, b.add(row, _number(n)), _INT64), at) for n in (0, 8)]
        weight = load(b, b.add(weights, b.mul(pair, _number(4))), _INT32)
        shares = b.insert_element(undefined(vector(32, 16)), weight, ir.Constant(_INT32, 0))
        shares = b.bitcast(picked(b, shares, shares, [0] * 16), vector(16, 32))
        mixed = []
        for n, before in enumerate(sums):
            one, other = (load(b, b.add(address, _number(16 * n)), vector(8, 16)) for address in both)
            values = b.zext(picked(b, one, other, _PAIRED), vector(16, 32))
            mixed.append(b.add(before, _products(b, values, shares)))
        return mixed

    for n, total in enumerate(_repeated(b, pairs, [filled(vector(32, 16), 128)] * (_ROW_STEP // 16), mix)):
        small = b.trunc(b.ashr(total, filled(vector(32, 16), 8)), vector(16, 16))
        store(b, small, b.add(out, _number(32 * n)))


@instructions(types.void)
def _mix_columns(
    b: ir.IRBuilder, row: ir.Value, first: ir.Value, weights: ir.Value, pairs: ir.Value, out: ir.Value
) -> None:
    """Writes 8 pixels, and 4 bytes behind them, to `out`: weighted sums of pixels of `row`, of three int16 each.

    first: 8 int64, where each one's first pixel lies in the row, in bytes. weights: int16 (4, `pairs`, 2, 4, 2), of
    each two outputs the weights of each two pixels, four times over. All but one are addresses.
    """
    bytes_each = b.mul(pairs, _number(32))
    starts = [b.add(row, load(b, b.add(first, _number(8 * n)), _INT64)) for n in range(_COLUMN_STEP)]
    shares = [b.add(weights, b.mul(bytes_each, _number(n))) for n in range(_COLUMN_STEP // 2)]

    def mix(pair: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        mixed = []
        for n, before in enumerate(sums):
            one, other = (load(b, b.add(starts[2 * n + k], b.mul(pair, _number(12))), vector(16, 8)) for k in (0, 1))
            values = picked(b, one, other, _COLOURS + [8 + lane for lane in _COLOURS])
            share = load(b, b.add(shares[n], b.mul(pair, _number(32))), vector(16, 16))
            mixed.append(b.add(before, _products(b, values, share)))
        return mixed

    sums = _repeated(b, pairs, [filled(vector(32, 8), 1 << 19)] * (_COLUMN_STEP // 2), mix)
    for n in (0, 2):
        four = b.ashr(picked(b, sums[n], sums[n + 1], list(range(16))), filled(vector(32, 16), 20))
        four = b.select(b.icmp_signed(">", four, filled(vector(32, 16), 0)), four, filled(vector(32, 16), 0))
        four = b.select(b.icmp_signed("<", four, filled(vector(32, 16), 255)), four, filled(vector(32, 16), 255))
        levels = b.trunc(four, vector(8, 16))
        store(b, picked(b, levels, levels, _WITHOUT_FOURTH), b.add(out, _number(6 * n)))


@kernel
def resize_crop(pixels: UInt8s, x: int, y: int, width: int, height: int, flip: bool, out: UInt8s) -> None:
    """Resizes a crop of `pixels`, uint8 (H, W, 3), into `out`, uint8 (h, w, 3), and mirrors it if `flip`.

    Both are C-contiguous, W is at least 32, and the crop lies within the pixels; nothing here checks it.
    """
    rows, columns = out.shape[:2]
    first_row, row_weights = bicubic_taps(height, rows)
    first, weights = column_steps(bicubic_taps(width, columns), flip)
    pairs, row_pairs = weights.shape[1], row_weights.shape[1] // 2
    n_steps = (3 * width + _ROW_STEP - 1) // _ROW_STEP
    mixed = np.zeros(_ROW_STEP * n_steps + 6 * pairs + 8, np.int16)
    bottom = pixels.shape[0] - 1
    # vectors read up to 63 bytes behind a row of the crop: of the last row of the picture, in a copy
    last = np.zeros(_ROW_STEP * n_steps, np.uint8)
    for k in range(3 * width):
        last[k] = pixels[bottom, x + k // 3, k % 3]
    line = np.empty(3 * len(first) + 4, np.uint8)
    sources = np.empty(2 * row_pairs, np.int64)
    start, stride = pixels.ctypes.data + 3 * x, 3 * pixels.shape[1]
    for row in range(rows):
        for k in range(2 * row_pairs):
            source = y + min(first_row[row] + k, height - 1)
            sources[k] = last.ctypes.data if source == bottom else start + source * stride
        shares = row_weights.ctypes.data + 4 * row * row_pairs
        for step in range(n_steps):
            at = _ROW_STEP * step
            _mix_rows(sources.ctypes.data, shares, row_pairs, at, mixed.ctypes.data + 2 * at)
        # what is written behind a row is overwritten by those that follow
        fits = 3 * columns * row + len(line) <= out.size
        to = out.ctypes.data + 3 * columns * row if fits else line.ctypes.data
        for step in range(0, len(first), _COLUMN_STEP):
            own, of = first.ctypes.data + 8 * step, weights.ctypes.data + 16 * step * pairs
            _mix_columns(mixed.ctypes.data, own, of, pairs, to + 3 * step)
        if not fits:
            for k in range(3 * columns):
                out[row, k // 3, k % 3] = line[k]


@kernel
def bicubic_taps(inputs: int, outputs: int) -> Taps:
    """The taps that resize `inputs` pixels to `outputs`; there is an even number of weights, and those behind the last
    input are 0.

    Keys' kernel with a = -0.5, which is wider by the factor by which pixels become fewer. Source: Pillow's and
    torchvision's antialiased bicubic resize.
    """
    scale = inputs / outputs
    wide = max(scale, 1.0)
    n = min(int(4 * wide) + 1, inputs)
    first, weights = np.empty(outputs, np.int64), np.zeros((outputs, n + n % 2), np.int16)
    shares = np.empty(n)
    for k in range(outputs):
        centre = (k + 0.5) * scale
        begin, end = max(int(centre - 2 * wide + 0.5), 0), min(int(centre + 2 * wide + 0.5), inputs)
        total, most = 0.0, 0
        for tap in range(end - begin):
            far = abs((begin + tap - centre + 0.5) / wide)
            if far < 1:
                shares[tap] = (1.5 * far - 2.5) * far * far + 1
            else:
                shares[tap] = ((2.5 - 0.5 * far) * far - 4) * far + 2 if far < 2 else 0.0
            total += shares[tap]
            if shares[tap] > shares[most]:
                most = tap
        left = UNIT
        for tap in range(end - begin):
            weight = int(np.floor(shares[tap] * (UNIT / total) + 0.5))
            weights[k, tap] = weight
            left -= weight
        weights[k, most] += left
        first[k] = begin
    return first, weights


@kernel
def column_steps(taps: Taps, flip: bool) -> Taps:
    """The arguments `first`, (n,), and `weights`, (n / 2, pairs, 2, 4, 2), of `_mix_columns`; n is a multiple of 8.

    `flip` reverses the outputs; those behind the last are 0.
    """
    begins, shares = taps
    outputs, pairs = len(begins), shares.shape[1] // 2
    n = (outputs + _COLUMN_STEP - 1) // _COLUMN_STEP * _COLUMN_STEP
    first, weights = np.zeros(n, np.int64), np.zeros((n // 2, pairs, 2, 4, 2), np.int16)
    for k in range(outputs):
        to = outputs - 1 - k if flip else k
        first[to] = 6 * begins[k]
        for pair in range(pairs):
            for colour in range(4):
                weights[to // 2, pair, to % 2, colour, 0] = shares[k, 2 * pair]
                weights[to // 2, pair, to % 2, colour, 1] = shares[k, 2 * pair + 1]
    return first, weights


def _repeated(
    b: ir.IRBuilder,
    times: ir.Value,
    values: list[ir.Value],
    change: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """What `change(n, values)` makes of the values for n = 0, 1, ..., `times` - 1; times is 1 or more."""
    before, body, after = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(body)
    b.position_at_end(body)
    n, *held = (b.phi(value.type) for value in (_number(0), *values))
    changed = change(n, held)
    following = b.add(n, _number(1))
    for phi, first, later in zip((n, *held), (_number(0), *values), (following, *changed), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, body)
    b.cbranch(b.icmp_signed("<", following, times), body, after)
    b.position_at_end(after)
    return changed


def _products(b: ir.IRBuilder, values: ir.Value, weights: ir.Value) -> ir.Value:
    """The sums of the products of each two of 2n int16: n int32."""
    lanes = values.type.count
    products = b.mul(b.sext(values, vector(32, lanes)), b.sext(weights, vector(32, lanes)))
    even, odd = (picked(b, products, products, list(range(k, lanes, 2))) for k in (0, 1))
    return b.add(even, odd)


def _number(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)
