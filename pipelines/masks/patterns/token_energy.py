"""Residual energy of tokens: the part of each frame that motion compensation from the previous frame cannot predict.

As in a codec, each block is compared with the block in the previous frame that its motion vector points to; the
residual is the data that a codec would have to send. Arithmetic uses integers, so the energy and the ranking of tokens
are identical on every machine.
"""

import numpy as np

from maskstream.shards.arrays import Bools, Float32s, Int32s, Int64s, UInt8s
from maskstream.shards.jit import kernel

DEAD_ZONE = 4
"""Differences up to this many intensity levels are treated as noise and ignored, as by a codec's quantiser."""
_PARTS = 16
"""Blocks are fetched bilinearly at 1/16 pixel."""


def token_energy(
    frames: UInt8s,
    flow: Float32s,
    cuts: Bools,
    *,
    tubelet: int,
    patch: int,
    motion: float = 0.0,
) -> Int64s:
    """Compute the energy of each token of a clip: int64 (T / tubelet, H / patch, W / patch).

    The energy is the sum over the token's pixels of the squared intensity difference beyond DEAD_ZONE, plus the squared
    `motion` levels for each pixel of displacement. The first frame of a scene has the energy of the second; a scene of
    a single frame has none.

    Args:
        frames: uint8 (T, H, W, 3), RGB, at least two frames.
        flow: float32 (T-1, h, w, 2), backward flow in pixels, one vector per cell.
        cuts: bool (T-1,), scene cuts.
        tubelet: Frames per token.
        patch: Side of a token in pixels.
        motion: Intensity levels per pixel of displacement.
    """
    count, height, width, _ = frames.shape
    each = np.zeros((count, height // patch, width // patch), dtype=np.int64)
    add_residuals(
        np.ascontiguousarray(frames), np.require(flow, np.float32, ["C", "W"]), patch, float(motion) ** 2, each
    )
    starts = np.concatenate([[True], cuts])
    each[starts] = 0
    for start in np.flatnonzero(starts)[::-1].tolist():
        if start + 1 < count and not starts[start + 1]:
            each[start] = each[start + 1]
    sums: Int64s = each.reshape(count // tubelet, tubelet, *each.shape[1:]).sum(axis=1)
    return sums


@kernel
def add_residuals(frames: UInt8s, flow: Float32s, patch: int, motion: float, energy: Int64s) -> None:
    """Add the residual of every frame except the first to `energy` (T, H / patch, W / patch)."""
    count, height, width, _ = frames.shape
    rows, columns = flow.shape[1:3]
    before = np.empty((height, width), dtype=np.int32)
    now = np.empty((height, width), dtype=np.int32)
    grey(frames[0], now)
    for pair in range(count - 1):
        before, now = now, before
        grey(frames[pair + 1], now)
        for r in range(rows):
            top, bottom = r * height // rows, (r + 1) * height // rows
            for c in range(columns):
                left, right = c * width // columns, (c + 1) * width // columns
                u, v = flow[pair, r, c, 0], flow[pair, r, c, 1]
                moved = np.int64(motion * (u * u + v * v) + 0.5) if motion > 0 else np.int64(0)
                x, y = parts(u, width), parts(v, height)
                for line in range(top, bottom):
                    at = left
                    while at < right:  # a cell may span several tokens
                        stop = min(right, (at // patch + 1) * patch)
                        energy[pair + 1, line // patch, at // patch] += moved * (stop - at) + squares(
                            before, now, line, at, stop, x, y
                        )
                        at = stop


@kernel
def grey(frame: UInt8s, out: Int32s) -> None:
    """Convert RGB uint8 (H, W, 3) to rounded BT.601 luma: int32 (H, W)."""
    flat, levels = frame.reshape(-1, 3), out.reshape(-1)
    for n in range(levels.size):
        levels[n] = (77 * np.int32(flat[n, 0]) + 150 * np.int32(flat[n, 1]) + 29 * np.int32(flat[n, 2]) + 128) >> 8


@kernel
def parts(step: np.float32, side: int) -> int:
    """Convert a displacement to units of 1 / _PARTS pixel, limited to `side` pixels; NaN becomes 0."""
    most = np.float32(side)
    if not (step > -most):
        return -side * _PARTS if step <= -most else 0
    return int(np.floor(min(step, most) * np.float32(_PARTS) + np.float32(0.5)))


@kernel
def squares(before: Int32s, now: Int32s, line: int, left: int, right: int, x: int, y: int) -> np.int64:
    """Sum squared differences between now[line, left:right] and `before` displaced by (x, y) / _PARTS pixels.

    Outside the frame, `before` repeats its border.
    """
    height, width = before.shape
    dx, along = x // _PARTS, np.int32(x % _PARTS)
    dy, down = y // _PARTS, np.int32(y % _PARTS)
    upper, lower = before[min(max(line + dy, 0), height - 1)], before[min(max(line + dy + 1, 0), height - 1)]
    here, total = now[line], np.int32(0)  # fits: at most 255 ** 2 times the width of a token
    a, b = (np.int32(_PARTS) - along) * (np.int32(_PARTS) - down), along * (np.int32(_PARTS) - down)
    c, d = (np.int32(_PARTS) - along) * down, along * down
    half = np.int32(_PARTS * _PARTS // 2)
    if left + dx >= 0 and right + dx < width:
        for n in range(right - left):
            at = np.uint64(left + dx + n)
            one = at + np.uint64(1)
            was = (a * upper[at] + b * upper[one] + c * lower[at] + d * lower[one] + half) >> np.int32(8)
            rest = max(abs(here[np.uint64(left + n)] - was) - np.int32(DEAD_ZONE), np.int32(0))
            total += rest * rest
        return np.int64(total)
    for n in range(left, right):
        near, far = min(max(n + dx, 0), width - 1), min(max(n + dx + 1, 0), width - 1)
        was = (a * upper[near] + b * upper[far] + c * lower[near] + d * lower[far] + half) >> np.int32(8)
        rest = max(abs(here[n] - was) - np.int32(DEAD_ZONE), np.int32(0))
        total += rest * rest
    return np.int64(total)
