"""Pictures with their masks, and maps of tokens, for the cards of the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pages.figures.card import Drawing, Picture
from maskstream.pages.figures.pictures import UInt8, darken, data_uri, hatch, resize
from maskstream.pages.figures.tokens import outline_path, runs_path

Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


def masked_picture(
    picture: UInt8, hidden: Bool, *, alt: str, caption: str = "", token: Bool | None = None, lossless: bool = False
) -> Picture:
    """`picture` (H, W, 3), resized to whole pixels per token, with the `hidden` tokens (rows, columns) grey and dark
    and a line around the others; those of `token` enter as the mask token and are hatched."""
    rows, columns = hidden.shape
    cell = max(round(picture.shape[0] / rows), 1), max(round(picture.shape[1] / columns), 1)
    size = rows * cell[0], columns * cell[1]
    shown = darken(resize(picture[None], *size), pixels(hidden, cell)[None])[0]
    if token is not None:
        shown = np.where(pixels(token, cell)[..., None], hatch(size)[..., None], shown).astype(np.uint8)
    return Picture(
        uri=data_uri(shown, lossless=lossless),
        alt=alt,
        outline=outline_path(~hidden if token is None else ~(hidden | token)),
        columns=columns,
        rows=rows,
        caption=caption,
    )


def pixels(tokens: Bool, cell: tuple[int, int]) -> Bool:
    """Flags of tokens (rows, columns) as flags of pixels."""
    return tokens.repeat(cell[0], axis=0).repeat(cell[1], axis=1)


def sheet(planes: Bool, across: int) -> Bool:
    """The planes (n, h, w) side by side in rows of `across`, one empty line between them."""
    n, h, w = planes.shape
    lines = -(-n // across)
    out = np.zeros((lines * (h + 1) - 1, across * (w + 1) - 1), dtype=np.bool_)
    for i, plane in enumerate(planes):
        y, x = i // across * (h + 1), i % across * (w + 1)
        out[y : y + h, x : x + w] = plane
    return out


def token_maps(layers: Sequence[tuple[str, Bool]], across: int, *, title: str, keys: Sequence[str]) -> Drawing:
    """Maps of tokens (n, h, w) in rows of `across`: each layer is a class and where it lies, `keys` its words."""
    sheets = [(name, sheet(planes, across)) for name, planes in layers]
    height, width = sheets[0][1].shape
    return Drawing(
        paths=tuple((name, runs_path(flags)) for name, flags in sheets),
        width=width,
        height=height,
        alt=title,
        title=title,
        crisp=True,
        keys=tuple(zip((name for name, _ in layers), keys, strict=True)),
    )
