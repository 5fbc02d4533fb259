"""Arrays into pictures: small frames, the mask over them, and image data that an HTML file can hold.

Flow is drawn as colours: hue is the direction of motion, saturation its length, white is rest.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipelines.flow.picture import paint_motion, usable

from .card import Picture, PictureGrid, join_picture_row

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

WEBP_QUALITY = 62
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Grid(Protocol):
    """The token grid of a clip: `shape` (t, h, w) tokens of `patch` (pt, ph, pw) frames, rows and columns of pixels."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def patch(self) -> tuple[int, ...]: ...


def check_grid(grid: Grid, frames: int, height: int, width: int) -> None:
    """Raises ValueError unless the tokens of `grid` cover clips of `frames` x `height` x `width` exactly."""
    if len(grid.shape) != 3 or len(grid.patch) != 3:
        raise ValueError(f"a clip's grid has the axes t h w, got shape {grid.shape} and patch {grid.patch}")
    covered = tuple(n * p for n, p in zip(grid.shape, grid.patch, strict=True))
    if covered != (frames, height, width):
        raise ValueError(
            f"a grid of {grid.shape} tokens of {grid.patch} covers {covered} (frames, height, width), but the clips "
            f"are {(frames, height, width)}; use the grid that the loader draws its masks on"
        )


def resize(frames: UInt8, height: int, width: int) -> UInt8:
    """The frames (T, H, W, 3) as (T, height, width, 3), averaged over area where they shrink."""
    if frames.shape[1:3] == (height, width):
        return frames
    way = cv2.INTER_AREA if height <= frames.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(f, (width, height), interpolation=way) for f in frames]).astype(np.uint8)


def shrunk(pixels: UInt8, side_px: int) -> UInt8:
    """An image (H, W, 3) whose longer side has `side_px` pixels."""
    height, width = (max(1, round(side * side_px / max(pixels.shape[:2]))) for side in pixels.shape[:2])
    small: UInt8 = resize(pixels[None], height, width)[0]
    return small


def spread(length: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` of the numbers below `length`, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(np.int64))


def sized(frames: UInt8, grid: Grid, side_px: float) -> UInt8:
    """The frames (T, H, W, 3) of nearly `side_px` pixels on their longer side, with whole pixels for each token of the
    grid, so that tokens have sharp edges in the small picture too.
    """
    (h, w), (ph, pw) = grid.shape[-2:], grid.patch[-2:]
    scale = side_px / max(h * ph, w * pw)
    return resize(frames, h * max(1, round(ph * scale)), w * max(1, round(pw * scale)))


def grown(tokens: Bool, height: int, width: int) -> Bool:
    """Flags of tokens (..., rows, columns) as flags of pixels (..., height, width), which they divide."""
    rows, columns = tokens.shape[-2:]
    return tokens.repeat(height // rows, axis=-2).repeat(width // columns, axis=-1)


def make_darker(frames: UInt8, hidden: Bool) -> UInt8:
    """The frames (T, H, W, 3) with their `hidden` pixels (T, H, W) grey and dark, and all others as they were."""
    grey = 18.0 + 0.24 * (frames @ LUMA)
    return np.where(hidden[..., None], grey[..., None], frames).astype(np.uint8)


def compared(frames: UInt8, made: UInt8, hidden: Bool, targeted: Bool) -> dict[str, UInt8]:
    """Frames (T, H, W, 3) as they were, as the encoder saw them, and as a model completes them: `made` where a token
    was hidden and predicted, and darkened where it was neither seen nor predicted. hidden, targeted: bool (T, rows,
    columns).
    """
    size = frames.shape[1:3]
    seen = make_darker(frames, grown(hidden, *size))
    completed = np.where(grown(hidden & targeted, *size)[..., None], made, seen)
    return {"original": frames, "seen": seen, "reconstruction": completed}


def draw_runs(flags: Iterable[Bool]) -> str:
    """SVG path data that fills the True cells of the rows of `flags`, one unit square a cell, runs joined."""
    return "".join(f"M{a} {y}h{b - a}v1H{a}z" for y, a, b in _find_runs(flags))


def draw_outline(flags: Bool) -> str:
    """SVG path data of the line around the True cells of `flags` (h, w), without the lines between them."""
    padded = np.pad(flags, 1)
    parts = [f"M{a} {y}h{b - a}" for y, a, b in _find_runs((padded[1:] ^ padded[:-1])[:, 1:-1])]
    parts += [f"M{x} {a}v{b - a}" for x, a, b in _find_runs((padded[:, 1:] ^ padded[:, :-1]).T[:, 1:-1])]
    return "".join(parts)


def _find_runs(flags: Iterable[Bool]) -> Iterator[tuple[int, int, int]]:
    """The runs of True in each row: row, first column, column after the last."""
    for y, line in enumerate(flags):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], line, [False])).astype(np.int8)))
        for a, b in edges.reshape(-1, 2).tolist():
            yield y, a, b


def picture(pixels: UInt8, alt: str, caption: str = "", *, lossless: bool = False) -> Picture:
    """The pixels (H, W, 3) as a picture of a page."""
    return Picture(uri=encode_data_uri(pixels, lossless=lossless), alt=alt, caption=caption)


def draw_masked_picture(pixels: UInt8, hidden: Bool, alt: str, caption: str = "", token: Bool | None = None) -> Picture:
    """The pixels (H, W, 3), with whole pixels for each token, the `hidden` tokens (rows, columns) grey and dark and a
    line around the others; those of `token` enter as the mask token and are hatched.
    """
    rows, columns = hidden.shape
    height, width = (n * max(round(side / n), 1) for n, side in zip(hidden.shape, pixels.shape, strict=False))
    shown = make_darker(resize(pixels[None], height, width), grown(hidden, height, width)[None])[0]
    if token is not None:
        shown = np.where(grown(token, height, width)[..., None], draw_hatch((height, width))[..., None], shown)
    outline = draw_outline(~hidden if token is None else ~(hidden | token))
    uri = encode_data_uri(shown.astype(np.uint8))
    return Picture(uri=uri, alt=alt, outline=outline, columns=columns, rows=rows, caption=caption)


def join_compared_row(shown: Mapping[str, UInt8], key: str) -> PictureGrid:
    """What `compared` gives, as pictures (H, W, 3) in one row."""
    words = {name: "the encoder saw" if name == "seen" else name for name in shown}
    return join_picture_row(
        *(picture(pixels, f"{words[name]} of {key}", words[name]) for name, pixels in shown.items())
    )


def coloured(values: npt.NDArray[np.floating[Any]], low: float, high: float, way: int = cv2.COLORMAP_VIRIDIS) -> UInt8:
    """Values (h, w) from `low` to `high` as colours (h, w, 3) of a map of OpenCV."""
    level = 255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    colours = cv2.applyColorMap(np.ascontiguousarray(level).astype(np.uint8), way)
    return np.ascontiguousarray(colours[..., ::-1]).astype(np.uint8)


def encode_data_uri(image: UInt8, *, lossless: bool = False) -> str:
    """An RGB image (H, W, 3) or RGBA image (H, W, 4) as a WebP `data:` address."""
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    ok, data = cv2.imencode(".webp", turned, [cv2.IMWRITE_WEBP_QUALITY, 101 if lossless else WEBP_QUALITY])
    if not ok:
        raise ValueError(f"an image of shape {image.shape} cannot be written as WebP (at most 16383 pixels a side)")
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode("ascii")


Float = npt.NDArray[np.float32]

HATCH_PERIOD_PX = 8
HATCH_DARK, HATCH_LIGHT = 150, 205


def draw_flow_picture(vectors: Float, valid: Bool, scale_px: float, size: tuple[int, int]) -> UInt8:
    """One step of backward flow (h, w, 2) as a picture (*size, 3) of where things moved, which is `-vectors`.

    Cells without a vector of their own (`valid` (h, w) False) are hatched grey, in their own geometry.
    """
    good = usable(vectors, valid)
    colours = paint_motion(np.where(good[..., None], -vectors, 0.0).astype(np.float32), scale_px)
    if vectors.shape[0] > size[0]:
        colours = cv2.resize(colours, size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)
    else:
        colours = cv2.resize(colours, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
    known = cv2.resize(good.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    return np.where(known[..., None], colours, draw_hatch(size)[..., None]).astype(np.uint8)


def draw_hatch(size: tuple[int, int]) -> UInt8:
    """Grey diagonal lines (height, width), for cells without data."""
    y, x = np.ogrid[: size[0], : size[1]]
    return np.where((x + y) % HATCH_PERIOD_PX < 2, HATCH_DARK, HATCH_LIGHT).astype(np.uint8)


def wheel(size_px: int = 96) -> UInt8:
    """The legend: a disc (size_px, size_px, 4), RGBA, with the colour of motion towards each place at that place."""
    radius = size_px / 2
    axis = (np.arange(size_px, dtype=np.float32) + 0.5 - radius) / radius
    motion = np.stack(np.meshgrid(axis, axis), axis=-1)
    length = np.linalg.norm(motion, axis=-1)
    alpha = np.rint(255 * np.clip((1.0 - length) * radius + 0.5, 0.0, 1.0)).astype(np.uint8)
    return np.concatenate([paint_motion(motion, 1.0), alpha[..., None]], axis=-1)
