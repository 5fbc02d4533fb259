"""Reads images of any size like the loader, without maskstream. Model cards contain this code verbatim."""

import os
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 224

Array: TypeAlias = npt.NDArray[np.float64]


def weigh(inputs: int, outputs: int) -> Array:
    """Return the weights of a bicubic resize with antialiasing, (outputs, inputs), in units of 2**-14.

    Args:
        inputs: Number of pixels before the resize.
        outputs: Number of pixels after it.
    """
    scale = inputs / outputs
    wide = max(scale, 1.0)
    weights = np.zeros((outputs, inputs))
    for k in range(outputs):
        centre = (k + 0.5) * scale
        begin, end = max(int(centre - 2 * wide + 0.5), 0), min(int(centre + 2 * wide + 0.5), inputs)
        far = np.abs((np.arange(begin, end) - centre + 0.5) / wide)
        outer = np.where(far < 2, ((2.5 - 0.5 * far) * far - 4) * far + 2, 0.0)
        shares = np.where(far < 1, (1.5 * far - 2.5) * far * far + 1, outer)
        parts = np.floor(shares * (2**14 / shares.sum()) + 0.5)
        parts[shares.argmax()] += 2**14 - parts.sum()
        weights[k, begin:end] = parts
    return weights


def read_picture(source: object) -> npt.NDArray[np.uint8]:
    """Read the resized centre of a file, or of uint8 (H, W, 3): uint8 (SIZE, SIZE, 3)."""
    reduced = 1
    if isinstance(source, str | os.PathLike):
        with Image.open(source) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1)
            if image.mode[0] in "IFC":
                raise ValueError(f"{source} has {image.mode} pixels; expected 8-bit greyscale or RGB")
            if image.format == "JPEG" and turned == 1:  # a large one is decoded at 1/2, 1/4 or 1/8
                fitting = [n for n in (2, 4, 8) if min(width, height) // n >= SIZE]
                reduced = max([1, *fitting])
                image.draft(None, (width // reduced, height // reduced))
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                pixels = np.asarray(Image.alpha_composite(white, image.convert("RGBA")))[..., :3]
            else:
                pixels = np.asarray(image.convert("RGB"))
        if turned in (5, 6, 7, 8):
            pixels = pixels.swapaxes(0, 1)
        pixels = pixels[:: -1 if turned in (3, 4, 7, 8) else 1, :: -1 if turned in (2, 3, 6, 7) else 1]
        width, height = (width, height) if turned < 5 else (height, width)
    else:
        pixels = np.asarray(source)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"an image must be a file or uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
        height, width = pixels.shape[:2]
    side = min(height, width)
    down, across = (slice((n - side) // 2 // reduced, -(-((n - side) // 2 + side) // reduced)) for n in (height, width))
    crop = pixels[down, across].astype(np.float64)
    rows = np.floor((np.tensordot(weigh(crop.shape[0], SIZE), crop, 1) + 2**7) / 2**8)
    mixed = np.einsum("kx,yxc->ykc", weigh(crop.shape[1], SIZE), rows, optimize=True)
    levels: npt.NDArray[np.uint8] = np.clip(np.floor((mixed + 2**19) / 2**20), 0, 255).astype(np.uint8)
    return levels


def read_pictures(sources: Iterable[object]) -> npt.NDArray[np.uint8]:
    """Read the centres of files, or of uint8 (H, W, 3) of any size: uint8 (B, SIZE, SIZE, 3)."""
    return np.stack([read_picture(one) for one in sources])
