"""The options that say what a source may cost, of the commands that read raw media."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maskstream.preprocess import Limits

MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1 << 28,
        help="Pixels of a frame or an image; larger ones are rejected [default: 2^26 of a frame, 2^28 of an image]",
        show_default=False,
    ),
]
TimeLimit = Annotated[
    float,
    typer.Option(
        min=1, help="Seconds that a source may take, and 20 times as long as its media last; others are rejected."
    ),
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GB that a process may take; a source that needs more is rejected; 0: no limit [default: 2, or what the "
        "size, pixels and sound of the source allow]",
        show_default=False,
    ),
]


def limits_of(max_pixels: int | None, time_limit: float, memory_limit: float | None) -> Limits:
    """The limits that the options ask for."""
    from maskstream.preprocess import Limits

    limits = Limits(time_s=time_limit, memory_gb=memory_limit)
    return limits if max_pixels is None else replace(limits, frame_pixels=max_pixels, image_pixels=max_pixels)
