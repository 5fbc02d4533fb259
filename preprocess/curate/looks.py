"""Signals of one frame, computed in one compiled pass over some of its pixels.

Luma is averaged over whole pixels, so that the short side is at most 256. If it is longer than 128, the signals are
computed from bands of four rows, half of all rows, which halves the pixels to read. Only borders use all rows: most
images have none, as a single light pixel at each edge shows.
"""

import math

import numpy as np

from maskstream.shards.arrays import Int32s, UInt8s, UInt32s
from maskstream.shards.jit import kernel

_NAMES = ("brightness", "contrast", "saturation", "entropy", "sharpness", "borders", "dark")
_SHORT, _WHOLE, _GRID = 256, 128, 32
_TAKEN, _STRIDE, _SHIFT = 4, 8, 0.618
"""Four of every eight rows are read, starting 0.618 of eight rows further each time, so that no texture is in phase
with them.
"""
_DARK = 24
_AT_ONCE = 1024
"""Sums over this many pixels fit 32 bits."""
_PARTS = np.array([0, *(round((255 << 12) / most) for most in range(1, 256))], np.int32)
"""255 / most, in units of 1/4096."""
_BLUE, _GREEN, _RED = 15, 75, 38
"""Weights of luma, 0.114, 0.587 and 0.299 (ITU-R BT.601), in units of 1/128: exact to one 8-bit step."""


def look(pixels: UInt8s) -> dict[str, float]:
    """Return the signals of a frame, uint8 (H, W, 3), BGR, by name."""
    return dict(zip(_NAMES, _look(*_prepare_frame(pixels)), strict=True))


def average_luma(pixels: UInt8s) -> UInt8s:
    """Return the luma of a frame, averaged over whole pixels.

    Args:
        pixels: uint8 (H, W, 3), BGR.

    Returns:
        uint8 (h, w), with a short side of at most 256.
    """
    rows, luma, times = _prepare_frame(pixels)
    _average(rows, luma, times)
    return luma


def _prepare_frame(pixels: UInt8s) -> tuple[UInt8s, UInt8s, int]:
    """Return the rows of a frame, uint8 (H, 3 W), an array for its luma, and the number of pixels to average along a
    side.
    """
    height, width = pixels.shape[:2]
    times = -(-min(height, width) // _SHORT)
    if not (pixels.flags.c_contiguous and pixels.flags.writeable):
        pixels = pixels.copy()  # else kernels are compiled once more
    return pixels.reshape(height, 3 * width), np.empty((height // times, width // times), np.uint8), times


@kernel
def _look(rows: UInt8s, luma: UInt8s, times: int) -> tuple[float, float, float, float, float, float, float]:
    """Compute the signals in the order of their names. Rows of `luma`, uint8 (h, w), are filled as they are needed."""
    height, width = luma.shape
    taken = stride = height
    if min(height, width) > _WHOLE:
        taken, stride = _TAKEN, _STRIDE
    counts = np.zeros((4, 64), np.int32)
    total = squares = edge_total = edge_squares = pixels = edges = 0
    for band in range(height // stride):
        first = min(band * stride + int(band * _SHIFT % 1 * stride), height - taken)
        _average(rows[first * times :], luma[first : first + taken], times)
        for y in range(first, first + taken):
            for x in range(0, width, _AT_ONCE):
                some, some_squares = _sums(luma[y, x : x + _AT_ONCE])
                total, squares = total + some, squares + some_squares
            if first < y < first + taken - 1:
                for x in range(0, width - 2, _AT_ONCE):
                    end = min(x + _AT_ONCE, width - 2)
                    across = (luma[y, x:end], luma[y, x + 1 : end + 1], luma[y, x + 2 : end + 2])
                    some, some_squares = _sum_edges(luma[y - 1, x + 1 : end + 1], luma[y + 1, x + 1 : end + 1], *across)
                    edge_total, edge_squares = edge_total + some, edge_squares + some_squares
                edges += max(width - 2, 0)
        for y in range(first, first + taken, 1 if taken == height else 4):
            _count(luma[y], counts)
        pixels += taken * width
    mean, edge_mean = total / pixels, edge_total / max(edges, 1)
    counted = dark = 0
    entropy = 0.0
    for level in range(64):
        own = counts[0, level] + counts[1, level] + counts[2, level] + counts[3, level]
        counted += own
        dark += own if level < _DARK // 4 else 0
        entropy -= own * math.log2(max(own, 1))
    return (
        mean / 255,
        math.sqrt(max(squares / pixels - mean * mean, 0.0)) / 255,
        _measure_saturation(rows),
        entropy / counted + math.log2(counted),
        edge_squares / max(edges, 1) - edge_mean * edge_mean,
        _measure_borders(rows, luma, times, taken),
        1.0 if dark >= 0.99 * counted else 0.0,
    )


@kernel
def _average(rows: UInt8s, luma: UInt8s, times: int) -> None:
    """Fill rows of `luma` with averages of whole pixels."""
    width = luma.shape[1]
    values = 3 * width * times
    sums, totals = np.empty(2 * width, np.uint16), np.empty(values if times > 2 else 0, np.uint32)
    for y in range(len(luma)):
        if times > 2:
            _fill_averages(rows[y * times : (y + 1) * times], totals, luma[y])
            continue
        one = rows[y * times, :values]
        two = rows[y * times + times - 1, :values]
        if times == 1:
            for x in range(width):
                bgr = np.uint16(one[3 * x]), np.uint16(one[3 * x + 1]), np.uint16(one[3 * x + 2])
                luma[y, x] = np.uint16(bgr[0] * _BLUE + bgr[1] * _GREEN + bgr[2] * _RED + 64) >> np.uint16(7)
            continue
        for x in range(2 * width):
            blue = np.uint16(one[3 * x]) + np.uint16(two[3 * x])
            green = np.uint16(one[3 * x + 1]) + np.uint16(two[3 * x + 1])
            red = np.uint16(one[3 * x + 2]) + np.uint16(two[3 * x + 2])
            sums[x] = np.uint16(blue * _BLUE + green * _GREEN + red * _RED) >> np.uint16(1)
        for x in range(width):
            luma[y, x] = np.uint16(sums[2 * x] + sums[2 * x + 1] + 128) >> np.uint16(8)


@kernel
def _fill_averages(rows: UInt8s, totals: UInt32s, luma: UInt8s) -> None:
    """Fill a row of `luma` with averages of squares of pixels, as wide as there are rows."""
    times = len(rows)
    for value in range(len(totals)):
        totals[value] = rows[0, value]
    for row in range(1, times):
        own = rows[row, : len(totals)]
        for value in range(len(totals)):
            totals[value] += own[value]
    part = 1 / (128 * times * times)
    for x in range(len(luma)):
        blue = green = red = 0
        for n in range(3 * times * x, 3 * times * (x + 1), 3):
            blue += totals[n]
            green += totals[n + 1]
            red += totals[n + 2]
        luma[x] = (blue * _BLUE + green * _GREEN + red * _RED) * part + 0.5


@kernel
def _sums(values: UInt8s) -> tuple[int, int]:
    """Return the sum of the values and the sum of their squares."""
    total = squares = np.int32(0)
    for n in range(len(values)):
        value = np.int32(values[n])
        total += value
        squares += value * value
    return int(total), int(squares)


@kernel
def _sum_edges(above: UInt8s, below: UInt8s, left: UInt8s, own: UInt8s, right: UInt8s) -> tuple[int, int]:
    """Return the sum of the Laplacian and the sum of its squares."""
    total = squares = np.int32(0)
    for n in range(len(own)):
        around = np.int16(above[n]) + np.int16(below[n]) + np.int16(left[n]) + np.int16(right[n])
        edge = np.int32(np.int16(around - np.int16(4) * np.int16(own[n])))
        total += edge
        squares += edge * edge
    return int(total), int(squares)


@kernel
def _count(values: UInt8s, counts: Int32s) -> None:
    """Count values in 64 bins, int32 (4, 64): four counters, because equal neighbours would stall a single one."""
    for n in range(len(values) // 4):
        for part in range(4):
            counts[part, values[4 * n + part] >> 2] += 1
    for n in range(len(values) // 4 * 4, len(values)):
        counts[0, values[n] >> 2] += 1


@kernel
def _measure_saturation(rows: UInt8s) -> float:
    """Return the mean of (largest - smallest) / largest of the channels over a grid of pixels."""
    height, width = len(rows), rows.shape[1] // 3
    step = -(-min(height, width) // _GRID)
    total = 0
    for y in range(0, height, step):
        own = rows[y]
        for x in range(0, 3 * width, 3 * step):
            blue, green, red = np.int32(own[x]), np.int32(own[x + 1]), np.int32(own[x + 2])
            most = max(max(blue, green), red)
            total += (most - min(min(blue, green), red)) * _PARTS[most] + 2048 >> 12
    return float(total / (255 * -(-height // step) * -(-width // step)))


@kernel
def _measure_borders(rows: UInt8s, luma: UInt8s, times: int, taken: int) -> float:
    """Return the fraction of an image in dark rows and columns at its edges."""
    height, width = luma.shape
    _average(rows[(height - 1) * times :], luma[height - 1 :], times)
    if _is_light(luma[0]) and _is_light(luma[-1]) and _is_light(luma[:taken, 0]) and _is_light(luma[:taken, -1]):
        return 0.0
    _average(rows, luma, times)
    top = bottom = left = right = 0
    while top < height and not _is_light(luma[top]):
        top += 1
    if top == height:
        return 1.0
    while not _is_light(luma[height - 1 - bottom]):
        bottom += 1
    while not _is_light(luma[:, left]):
        left += 1
    while not _is_light(luma[:, width - 1 - right]):
        right += 1
    return float(1 - (1 - (top + bottom) / height) * (1 - (left + right) / width))


@kernel
def _is_light(values: UInt8s) -> bool:
    """Return whether at least one of the values is not dark."""
    n = 0
    while n < len(values) and values[n] < _DARK:
        n += 1
    return n < len(values)
