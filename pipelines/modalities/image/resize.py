"""Resize a crop of an image: crop, bicubic resize with antialiasing, and flip.

All sums use integers, so every machine computes the same pixels. Rows of the crop are mixed first, then columns. No
intermediate value is rounded to 8 bits, so an output is within 0.6 levels of its exact value, plus a tenth of a level
for each doubling of the downscaling factor beyond 8.
"""

import cv2
import numpy as np

from maskstream.shards.arrays import Int16s, Int32s, Int64s, UInt8s
from maskstream.shards.jit import kernel

Taps = tuple[Int64s, Int16s]
"""For each of n outputs, the first input, int64 (n,), and the weights of the inputs from it on, int16 (n, k)."""

UNIT = 1 << 14
"""Sum of the weights of an output."""


def resize_crop(pixels: UInt8s, x: int, y: int, width: int, height: int, flip: bool, out: UInt8s) -> None:
    """Resize a crop of `pixels`, uint8 (H, W, 3), into `out`, uint8 (h, w, 3), and mirror it if `flip`.

    Both must be C-contiguous, and the crop within the pixels; this is not checked.
    """
    rows, columns = out.shape[:2]
    first, weights = compute_bicubic_taps(width, columns)
    if flip:
        first, weights = first[::-1].copy(), weights[::-1].copy()
    mixed = np.empty((rows, 3 * width), np.int16)
    mix_rows(pixels.reshape(len(pixels), -1), 3 * x, y, height, *compute_bicubic_taps(height, rows), mixed)
    # Columns stored as rows are mixed along memory, in vectors; OpenCV's transpose is vectorised too.
    turned, across = np.empty((width, 3 * rows), np.int16), np.empty((columns, 3 * rows), np.uint8)
    cv2.transpose(mixed, turned.reshape(3 * width, rows))
    mix_columns(turned, first, weights, across)
    cv2.transpose(across.reshape(3 * columns, rows), out.reshape(rows, 3 * columns))


@kernel
def mix_rows(pixels: UInt8s, left: int, top: int, height: int, first: Int64s, weights: Int16s, mixed: Int16s) -> None:
    """Write 64 times the weighted sums of rows [top, top + height) of pixels (H, 3 W), starting at the value `left`."""
    sums = np.empty(mixed.shape[1], np.int32)
    for row in range(len(mixed)):
        sums[:] = 128
        add_lines(pixels, left, top + first[row], top + height - 1, weights[row], sums)
        for k in range(len(sums)):
            mixed[row, k] = sums[k] >> 8


@kernel
def mix_columns(mixed: Int16s, first: Int64s, weights: Int16s, out: UInt8s) -> None:
    """Write the levels of weighted sums of the rows of `mixed`, which are 64 times levels."""
    sums = np.empty(out.shape[1], np.int32)
    for column in range(len(out)):
        sums[:] = 1 << 19
        add_lines(mixed, 0, first[column], len(mixed) - 1, weights[column], sums)
        for k in range(len(sums)):
            level = sums[k] >> 20
            level = level if level > 0 else 0
            out[column, k] = level if level < 255 else 255


@kernel
def add_lines(lines: Int16s | UInt8s, left: int, first: int, last: int, weights: Int16s, sums: Int32s) -> None:
    """Add weighted lines, starting at the value `left`; the last line is used beyond the end, where weights are 0."""
    n = 0
    while n + 4 <= len(weights):  # several at once, so that sums are rarely loaded and stored
        a, b = lines[min(first + n, last), left:], lines[min(first + n + 1, last), left:]
        c, d = lines[min(first + n + 2, last), left:], lines[min(first + n + 3, last), left:]
        e, f = np.int32(weights[n]), np.int32(weights[n + 1])
        g, h = np.int32(weights[n + 2]), np.int32(weights[n + 3])
        for k in range(len(sums)):
            sums[k] += np.int32(a[k]) * e + np.int32(b[k]) * f + np.int32(c[k]) * g + np.int32(d[k]) * h
        n += 4
    for rest in range(n, len(weights)):
        a, e = lines[min(first + rest, last), left:], np.int32(weights[rest])
        for k in range(len(sums)):
            sums[k] += np.int32(a[k]) * e


@kernel
def compute_bicubic_taps(inputs: int, outputs: int) -> Taps:
    """Compute the taps that resize `inputs` pixels to `outputs`; inputs beyond the last one have weight 0.

    Uses Keys' kernel with a = -0.5, widened by the downscaling factor. Source: Pillow's and torchvision's antialiased
    bicubic resize.
    """
    scale = inputs / outputs
    wide = max(scale, 1.0)
    n = min(int(4 * wide) + 1, inputs)
    first, weights = np.empty(outputs, np.int64), np.zeros((outputs, n), np.int16)
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
