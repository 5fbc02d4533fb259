"""Skeletons side by side: what is visible of them, and what a model made of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.h36m import bones

from .card import Drawing
from .pictures import Bool
from .strokes import Floats, dots, lines

ACROSS = 6
TALL, MARGIN = 150.0, 8.0
_NARROWEST = 60.0


def skeletons(
    flat: Floats,
    *,
    hidden: Bool | None = None,
    made: Floats | None = None,
    title: str = "",
    words: str = "",
    alt: str = "skeletons",
) -> Drawing:
    """Poses (T, J, 2), y downwards, in rows of 6, each with its pelvis (joint 0) in the middle; all have one scale.

    hidden: bool (T, J), joints that are pale, with their bones; all are visible by default. made: poses (T, J, 2) of a
    model, in another colour over the true ones, which are pale.
    """
    pairs = np.array(bones(flat.shape[1]))
    gone = np.zeros(flat.shape[:2], dtype=np.bool_) if hidden is None else hidden
    placed, scale, gap = _placed(flat, made)
    pale, strong = _bones(placed, pairs, gone if made is None else ~np.zeros_like(gone))
    paths = [("line-hidden", pale), ("line-visible", strong)]
    keys = [("dot-visible", "visible joints"), ("dot-hidden", "hidden")]
    if made is None:
        paths += [("dot-hidden", dots(placed[gone])), ("dot-visible", dots(placed[~gone]))]
    else:
        over = placed + scale * ((made - made[:, :1]) - (flat - flat[:, :1]))
        paths += [("line-made", "".join(lines(frame, pairs) for frame in over))]
        keys = [("line-made", "the model's"), ("line-hidden", "true")]
    return Drawing(
        paths=tuple(paths),
        width=ACROSS * gap,
        height=TALL * -(-len(flat) // ACROSS),
        alt=alt,
        title=title,
        words=words,
        keys=tuple(keys if made is not None or hidden is not None else ()),
    )


def _placed(flat: Floats, made: Floats | None) -> tuple[Floats, float, float]:
    """The poses on the page, their scale, and the width of a cell; cells hold what a model made too."""
    all_ = [one - one[:, :1] for one in (flat, made) if one is not None]
    low, high = (np.stack([of(one, axis=(0, 1)) for one in all_]) for of in (np.min, np.max))
    low, high = low.min(axis=0), high.max(axis=0)
    scale = (TALL - 2 * MARGIN) / float(max(high[1] - low[1], 1e-6))
    half = float(max(-low[0], high[0])) * scale
    if half > TALL:
        scale, half = scale * TALL / half, TALL
    gap = max(2 * half + MARGIN, _NARROWEST)
    frame = np.arange(len(flat))
    corner = np.stack([gap * (frame % ACROSS + 0.5), TALL * (frame // ACROSS) + MARGIN - low[1] * scale], axis=1)
    return all_[0] * scale + corner[:, None], scale, gap


def _bones(placed: Floats, pairs: npt.NDArray[np.int64], hidden: Bool) -> tuple[str, str]:
    """The paths of the bones that have a hidden joint, and of the others."""
    pale, strong = [], []
    for frame, gone in zip(placed, hidden, strict=True):
        whole = ~gone[pairs].any(axis=1)
        pale.append(lines(frame, pairs[~whole]))
        strong.append(lines(frame, pairs[whole]))
    return "".join(pale), "".join(strong)
