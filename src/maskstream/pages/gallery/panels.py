"""What a card of the gallery shows, as the template sees it: pictures, line drawings, words and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..figures.chart import Chart
from ..figures.flow_colours import hatch
from ..figures.pictures import UInt8, darken, data_uri, resize
from ..figures.tokens import outline_path, runs_path

Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An image as a `data:` address, a path over it in units of a grid of `columns` x `rows`, and words under it."""

    uri: str
    alt: str
    outline: str = ""
    columns: int = 1
    rows: int = 1
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Images in rows of `across`, with words above."""

    items: tuple[Picture, ...]
    across: int
    title: str = ""
    kind: str = "pictures"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """Paths in a box of `width` x `height` units, each with the class that colours it, and words above. `crisp`: its
    lines are edges of cells."""

    paths: tuple[tuple[str, str], ...]
    width: float
    height: float
    alt: str
    title: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    crisp: bool = False
    kind: str = "drawing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Pieces of text, each with the class that says what happened to it and whether a space stands before it."""

    pieces: tuple[tuple[str, str, bool], ...]
    title: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    kind: str = "words"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line chart with words above."""

    chart: Chart
    title: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Charts in rows of `across`, and the name of their x axis."""

    items: tuple[Curve, ...]
    across: int
    x_name: str
    title: str = ""
    kind: str = "curves"


Panel = Pictures | Drawing | Words | Curves


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
