"""Reads clips from videos of any size and length like the loader, without maskstream. Model cards contain this code
verbatim.
"""

import os
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

FRAMES = 16
STRIDE = 4
SIZE = 224
ALIGN = 1
FPS: float | None = None
SECONDS: float | None = None
SHORT = "repeat"

Array: TypeAlias = npt.NDArray[np.float64]
Bytes: TypeAlias = npt.NDArray[np.uint8]


def choose_frames(count: int, rate: float) -> list[int]:
    """Choose frames from the middle of a video of `count` frames at `rate` per second; short videos repeat the last
    frame.

    Args:
        count: Number of frames.
        rate: Frames per second.
    """
    steps = np.arange(FRAMES)
    unit, offsets = 1, steps * STRIDE
    if FPS or SECONDS:
        step = rate / FPS if FPS else rate * (SECONDS or 0) / FRAMES
        unit = ALIGN if step >= ALIGN else 1
        offsets = np.floor(steps * (step / unit) + 0.5).astype(int) * unit
    starts = range(0, max(count - 1 - int(offsets[-1]), 0) + 1, ALIGN)
    start = starts[(len(starts) - 1) // 2]
    if start + offsets[-1] < count:
        return [int(n) for n in start + offsets]
    if SHORT in ("skip", "error"):
        raise ValueError(f"a video of {count} frames is too short for a clip of {FRAMES}")
    if SHORT == "loop":
        return [int(n) for n in (start + offsets) % count]
    timed = (count - 1 - start) // unit * unit
    last = timed if FPS or SECONDS else offsets[offsets < count - start][-1]
    return [int(n) for n in np.minimum(offsets, last) + start]


@lru_cache(maxsize=64)
def weigh(inputs: int, outputs: int, average: bool, coarse: bool) -> Array:
    """Return the weights of a bilinear resize, or of area averages, (outputs, inputs), in units of 2**-14.

    Args:
        inputs: Number of values before the resize.
        outputs: Number of values after it.
        average: Return area averages.
        coarse: Round bilinear weights to 8 bits.
    """
    k, parts = np.arange(outputs), 256 if coarse else 2**14
    if average:
        n = min((inputs - 1) // outputs + 2, inputs)
        taps = np.minimum(k * inputs // outputs, inputs - n)[:, None] + np.arange(n)
        covered = np.clip((taps + 1) * outputs - (k * inputs)[:, None], 0, inputs)
        shares = np.diff((covered * 2**14 + inputs // 2) // inputs, prepend=0)
    else:
        at = np.clip((2 * k + 1) * inputs - outputs, 0, 2 * outputs * (inputs - 1))
        first = np.minimum(at // (2 * outputs), max(inputs - 2, 0))
        second = ((at - 2 * outputs * first) * parts + outputs) // (2 * outputs) * (2**14 // parts)
        taps, shares = np.stack((first, first + 1), axis=1), np.stack((2**14 - second, second), axis=1)
    if coarse and shares.shape[1] == 2:
        shares[:, 1] = shares[:, 1] // 64 * 64
        shares[:, 0] = 2**14 - shares[:, 1]
    weights = np.zeros((outputs, inputs))
    np.add.at(weights, (k[:, None], np.minimum(taps, inputs - 1)), shares)
    return weights


def resize(plane: Bytes, rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Resize a plane uint8 (H, W).

    Args:
        plane: The plane.
        rows: New height.
        columns: New width.
    """
    high, wide = plane.shape
    average = high >= 2 * rows or wide >= 2 * columns
    down = weigh(high, rows, average and high >= rows, True)
    across = weigh(wide, columns, average and wide >= columns, False)
    mixed = np.floor((down @ plane.astype(np.float64) + 32) / 64)
    return np.floor((mixed @ across.T + 2**21) / 2**22).astype(np.int64)


def rectangle(width: int, height: int) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the centred square, with edges moved to even pixels.

    Args:
        width: Width of the frame.
        height: Height of the frame.
    """
    side = min(width, height)
    edges = []
    for n in (width, height):
        first = min((n - side) // 2 & ~1, (n & ~1) - 2)
        edges.append((first, min((n - side) // 2 + side + 1 & ~1, n & ~1) - first))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def to_rgb(frame: VideoFrame) -> Bytes:
    """Return the centre of a decoded frame, uint8 (SIZE, SIZE, 3). It is resized before conversion to RGB."""
    planar = frame if frame.format.name in ("yuv420p", "yuvj420p") else frame.reformat(format="yuv420p")
    bt709, full = planar.colorspace == 1, planar.color_range == 2
    half = not bt709 and not full and SIZE % 2 == 0
    x, y, wide, high = rectangle(planar.width, planar.height)
    planes = []
    for n, plane in enumerate(planar.planes):
        pixels = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
        step, side = (2, SIZE // 2 if half else SIZE) if n else (1, SIZE)
        found = resize(pixels[y // step : (y + high) // step, x // step : (x + wide) // step], side, side)
        planes.append(found.repeat(SIZE // side, 0).repeat(SIZE // side, 1))
    red, blue = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    light, colour, black = (1.0, 1.0, 0) if full else (255 / 219, 255 / 224, 16)
    green = 1 - red - blue
    shares = [2 * light, 2 * (1 - red) * colour, -2 * (1 - blue) * blue / green * colour]
    shares += [-2 * (1 - red) * red / green * colour, 2 * (1 - blue) * colour]
    of_y, v_red, u_green, v_green, u_blue = (int(n) for n in np.rint(np.multiply(shares, 2**13)))
    luma, (u, v) = np.maximum(planes[0] - black, 0) << 7, ((one - 128) << 8 for one in planes[1:])
    base = (luma * of_y >> 16) + 17
    sums = (base + (v * v_red >> 16), base + (u * u_green >> 16) + (v * v_green >> 16), base + (u * u_blue >> 16))
    return np.stack([np.clip(one >> 5, 0, 255) for one in sums], axis=2).astype(np.uint8)


def read_clip(source: object) -> Bytes:
    """Read a clip uint8 (FRAMES, SIZE, SIZE, 3) from a video file, or from RGB frames uint8 (T, H, W, 3): FRAMES frames
    are a clip, other numbers a whole video. Files result in the same pixels as in training; RGB frames are resized as
    RGB.
    """
    if not isinstance(source, str | os.PathLike):
        frames = np.asarray(source)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise ValueError(f"a clip must be a file or uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
        if (FPS or SECONDS) and len(frames) != FRAMES:
            raise ValueError(f"frames have no times; pass a file, or the {FRAMES} frames of a clip")
        x, y, wide, high = rectangle(frames.shape[2], frames.shape[1])
        chosen = [*range(FRAMES)] if len(frames) == FRAMES else choose_frames(len(frames), 1.0)
        crops = frames[chosen, y : y + high, x : x + wide]
        resized = [[resize(one[..., colour], SIZE, SIZE) for colour in range(3)] for one in crops]
        return np.array(resized, np.uint8).transpose(0, 2, 3, 1)
    with open(source, "rb") as stream, av.open(stream, "r", options={"protocol_whitelist": ""}) as file:
        rate = float(file.streams.video[0].average_rate or 1)
        count = sum(packet.size > 0 for packet in file.demux(video=0))
    chosen = choose_frames(count, rate)
    with open(source, "rb") as stream, av.open(stream, "r", options={"protocol_whitelist": ""}) as file:
        decoded = islice(file.decode(video=0), max(chosen) + 1)
        found = {n: to_rgb(frame) for n, frame in enumerate(decoded) if n in chosen}
    return np.stack([found[n] for n in chosen])


def read_clips(sources: Iterable[object]) -> Bytes:
    """Read clips from video files, or from RGB frames uint8 (T, H, W, 3): uint8 (B, FRAMES, SIZE, SIZE, 3)."""
    return np.stack([read_clip(one) for one in sources])
