"""Converts arrays to images: small frames, masks over them, and image data for HTML files.

Flow is drawn as colours: hue is the direction of motion, saturation its length, and white is rest.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipelines.flow.picture import paint_motion, usable
from maskstream.shards.arrays import Bools, Float32s, Int64s, UInt8s

from .card import Picture, PictureGrid, join_picture_row

WEBP_QUALITY = 62
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Grid(Protocol):
    """The token grid of a clip: `shape` (t, h, w) tokens of `patch` (pt, ph, pw) frames, rows and columns of pixels."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def patch(self) -> tuple[int, ...]: ...


def check_grid(grid: Grid, size: Sequence[int], what: str) -> None:
    """Raise ValueError unless the tokens of a grid cover an array exactly.

    Args:
        grid: The grid.
        size: Size of the array along the axes of the grid.
        what: Words for the arrays.
    """
    covered = tuple(n * p for n, p in zip(grid.shape, grid.patch, strict=True))
    if covered != tuple(size):
        raise ValueError(
            f"a grid of {grid.shape} tokens of {grid.patch} covers {covered}, but {what} are {tuple(size)}; use the "
            "grid that the loader draws its masks on"
        )


def resize(frames: UInt8s, height: int, width: int) -> UInt8s:
    """Resize frames (T, H, W, 3), with area averages when shrinking.

    Args:
        frames: The frames.
        height: New height.
        width: New width.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    way = cv2.INTER_AREA if height <= frames.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(f, (width, height), interpolation=way) for f in frames]).astype(np.uint8)


def shrunk(pixels: UInt8s, side_px: int) -> UInt8s:
    """Resize an image (H, W, 3) so that its longer side has `side_px` pixels.

    Args:
        pixels: The image.
        side_px: Longer side in pixels.
    """
    height, width = (max(1, round(side * side_px / max(pixels.shape[:2]))) for side in pixels.shape[:2])
    small: UInt8s = resize(pixels[None], height, width)[0]
    return small


def spread(length: int, most: int) -> Int64s:
    """Return at most `most` evenly spaced numbers below `length`, including the first and the last.

    Args:
        length: Upper bound.
        most: Largest number of results.
    """
    return np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(np.int64))


def sized(frames: UInt8s, grid: Grid, side_px: float) -> UInt8s:
    """Resize frames (T, H, W, 3) to about `side_px` pixels on the longer side, with whole pixels per token, so that
    tokens keep sharp edges.

    Args:
        frames: The frames.
        grid: Grid of the tokens.
        side_px: Longer side in pixels.
    """
    (h, w), (ph, pw) = grid.shape[-2:], grid.patch[-2:]
    scale = side_px / max(h * ph, w * pw)
    return resize(frames, h * max(1, round(ph * scale)), w * max(1, round(pw * scale)))


def grown(tokens: Bools, height: int, width: int) -> Bools:
    """Enlarge flags of tokens (..., rows, columns) to flags of pixels (..., height, width), which they divide.

    Args:
        tokens: Flags of tokens.
        height: Height in pixels.
        width: Width in pixels.
    """
    rows, columns = tokens.shape[-2:]
    return tokens.repeat(height // rows, axis=-2).repeat(width // columns, axis=-1)


def make_darker(frames: UInt8s, hidden: Bools) -> UInt8s:
    """Turn hidden pixels of frames grey and dark.

    Args:
        frames: Frames (T, H, W, 3).
        hidden: Hidden pixels (T, H, W).
    """
    grey = 18.0 + 0.24 * (frames @ LUMA)
    return np.where(hidden[..., None], grey[..., None], frames).astype(np.uint8)


def compared(frames: UInt8s, made: UInt8s, hidden: Bools, targeted: Bools) -> dict[str, UInt8s]:
    """Return original frames, their visible part, and the model's reconstruction.

    The reconstruction has predicted tokens where they were hidden, and dark ones if they were neither visible nor
    predicted.

    Args:
        frames: Original frames (T, H, W, 3).
        made: Predicted frames (T, H, W, 3).
        hidden: Hidden tokens, bool (T, rows, columns).
        targeted: Predicted tokens, bool (T, rows, columns).
    """
    size = frames.shape[1:3]
    seen = make_darker(frames, grown(hidden, *size))
    completed = np.where(grown(hidden & targeted, *size)[..., None], made, seen)
    return {"original": frames, "the encoder saw": seen, "reconstruction": completed}


def draw_runs(flags: Iterable[Bools]) -> str:
    """Return an SVG path that fills the True cells of the rows of `flags`, one unit square per cell, with runs
    joined.
    """
    return "".join(f"M{a} {y}h{b - a}v1H{a}z" for y, a, b in _find_runs(flags))


def draw_outline(flags: Bools) -> str:
    """Return an SVG path around the True cells of `flags` (h, w), without the lines between them."""
    padded = np.pad(flags, 1)
    parts = [f"M{a} {y}h{b - a}" for y, a, b in _find_runs((padded[1:] ^ padded[:-1])[:, 1:-1])]
    parts += [f"M{x} {a}v{b - a}" for x, a, b in _find_runs((padded[:, 1:] ^ padded[:, :-1]).T[:, 1:-1])]
    return "".join(parts)


def _find_runs(flags: Iterable[Bools]) -> Iterator[tuple[int, int, int]]:
    """Yield the runs of True in each row: row, first column, column after the last."""
    for y, line in enumerate(flags):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], line, [False])).astype(np.int8)))
        for a, b in edges.reshape(-1, 2).tolist():
            yield y, a, b


def picture(pixels: UInt8s, alt: str, caption: str = "", *, lossless: bool = False) -> Picture:
    """Convert pixels (H, W, 3) to an image of a page.

    Args:
        pixels: The pixels.
        alt: Alternative text.
        caption: Text under the image.
        lossless: Whether to compress without loss.
    """
    return Picture(uri=encode_data_uri(pixels, lossless=lossless), alt=alt, caption=caption)


def draw_masked_picture(
    pixels: UInt8s, hidden: Bools, alt: str, caption: str = "", token: Bools | None = None
) -> Picture:
    """Draw an image with hidden tokens grey and dark, and a line around the others.

    Args:
        pixels: The image (H, W, 3); it is resized to whole pixels per token.
        hidden: Hidden tokens, bool (rows, columns).
        alt: Alternative text.
        caption: Text under the image.
        token: Tokens that enter as the mask token, which are hatched.
    """
    rows, columns = hidden.shape
    height, width = (n * max(round(side / n), 1) for n, side in zip(hidden.shape, pixels.shape, strict=False))
    shown = make_darker(resize(pixels[None], height, width), grown(hidden, height, width)[None])[0]
    if token is not None:
        shown = np.where(grown(token, height, width)[..., None], draw_hatch((height, width))[..., None], shown)
    outline = draw_outline(~hidden if token is None else ~(hidden | token))
    uri = encode_data_uri(shown.astype(np.uint8))
    return Picture(uri=uri, alt=alt, outline=outline, columns=columns, rows=rows, caption=caption)


def draw_row(
    shown: Mapping[str, UInt8s], key: str, *, title: str = "", words: str = "", across: int = 0, lossless: bool = False
) -> PictureGrid:
    """Return a figure of images (H, W, 3) side by side, each above its name.

    Args:
        shown: Images by name.
        key: Key of the sample.
        title: Title of the figure.
        words: Text above the images.
        across: Number of images in a row; 0 for all.
        lossless: Whether to compress without loss.
    """
    items = (picture(pixels, f"{name} of {key}", name, lossless=lossless) for name, pixels in shown.items())
    return join_picture_row(*items, title=title, words=words, across=across)


def draw_panel(
    title: str, key: str, pixels: UInt8s, words: str = "", scale: tuple[float, float] | None = None
) -> PictureGrid:
    """Return a figure of one image (H, W, 3).

    Args:
        title: Title of the image.
        key: Key of the sample.
        pixels: The image.
        words: Text above the image.
        scale: Numbers at the ends of its colour scale.
    """
    return join_picture_row(picture(pixels, f"{title} of {key}"), title=title, words=words, scale=scale)


def coloured(values: npt.NDArray[np.floating[Any]], low: float, high: float, way: int = cv2.COLORMAP_VIRIDIS) -> UInt8s:
    """Draw values (h, w) as colours (h, w, 3) of an OpenCV colour map.

    Args:
        values: The values.
        low: Value of the first colour.
        high: Value of the last colour.
        way: Colour map.
    """
    level = 255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    colours = cv2.applyColorMap(np.ascontiguousarray(level).astype(np.uint8), way)
    return np.ascontiguousarray(colours[..., ::-1]).astype(np.uint8)


def encode_data_uri(image: UInt8s, *, lossless: bool = False) -> str:
    """Encode an RGB image (H, W, 3) or RGBA image (H, W, 4) as a WebP `data:` address.

    Args:
        image: The image.
        lossless: Whether to compress without loss.
    """
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    ok, data = cv2.imencode(".webp", turned, [cv2.IMWRITE_WEBP_QUALITY, 101 if lossless else WEBP_QUALITY])
    if not ok:
        raise ValueError(
            f"an image of shape {image.shape} cannot be written as WebP (the limit is 16383 pixels per side)"
        )
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode("ascii")


HATCH_PERIOD_PX = 8
HATCH_DARK, HATCH_LIGHT = 150, 205


def draw_flow_picture(vectors: Float32s, valid: Bools, scale_px: float, size: tuple[int, int]) -> UInt8s:
    """Draw one step of backward flow as an image of the motion, `-vectors`.

    Args:
        vectors: Flow (h, w, 2).
        valid: Cells with a vector (h, w); others are hatched grey.
        scale_px: Length of full colour in pixels.
        size: Height and width of the image.
    """
    good = usable(vectors, valid)
    colours = paint_motion(np.where(good[..., None], -vectors, 0.0).astype(np.float32), scale_px)
    way = cv2.INTER_AREA if vectors.shape[0] > size[0] else cv2.INTER_NEAREST_EXACT
    colours = cv2.resize(colours, size[::-1], interpolation=way).astype(np.uint8)
    known = cv2.resize(good.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    return np.where(known[..., None], colours, draw_hatch(size)[..., None]).astype(np.uint8)


def draw_hatch(size: tuple[int, int]) -> UInt8s:
    """Draw grey diagonal lines (height, width), for cells without data."""
    y, x = np.ogrid[: size[0], : size[1]]
    return np.where((x + y) % HATCH_PERIOD_PX < 2, HATCH_DARK, HATCH_LIGHT).astype(np.uint8)


def wheel(size_px: int = 96) -> UInt8s:
    """Draw the legend: a disc (size_px, size_px, 4), RGBA, with the colour of motion from the centre to each
    position.
    """
    radius = size_px / 2
    axis = (np.arange(size_px, dtype=np.float32) + 0.5 - radius) / radius
    motion = np.stack(np.meshgrid(axis, axis), axis=-1)
    length = np.linalg.norm(motion, axis=-1)
    alpha = np.rint(255 * np.clip((1.0 - length) * radius + 0.5, 0.0, 1.0)).astype(np.uint8)
    return np.concatenate([paint_motion(motion, 1.0), alpha[..., None]], axis=-1)
