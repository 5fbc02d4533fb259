"""The texts of a source: in its `meta`, each role's text or list of texts, and the boxes of its phrases.

    {"caption": "A lion.", "question": ["What is it?", "Is it a cat?"], "answer": ["a lion", "yes"],
     "phrase": ["the left lion"], "box": [[12, 40, 80, 60]]}

Texts of several roles belong together by their number: question 1 and answer 1. A box is x, y, width and height of what
a phrase refers to, in pixels of the first picture; `segments.py` says how its pixels are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ....shards.members.texts import ROLES
from ...source import RejectError

BOX = "box"


def texts_of(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Role and text of each text, in the order of `ROLES`. RejectError for what is no text."""
    found = []
    for role in ROLES:
        given = meta.get(role, [])
        for text in given if isinstance(given, list | tuple) else [given]:
            if not isinstance(text, str):
                raise RejectError("decode", f"its {role} is {type(text).__name__}, no text")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RejectError(
                    "decode", f"its {role} is no Unicode (character {error.start}: {error.reason})"
                ) from error
            found.append((role, text))
    return found


def boxes_of(meta: Mapping[str, Any], width: int, height: int) -> npt.NDArray[np.float32] | None:
    """The box of each phrase in a picture of width x height pixels, x0, y0, x1, y1 as shares of it, float32 (n, 4).

    None for a source without boxes. RejectError for a box that lies outside the picture, or another number of boxes.
    """
    if BOX not in meta:
        return None
    phrases = sum(role == "phrase" for role, _ in texts_of(meta))
    try:
        boxes = np.array(meta[BOX], np.float64).reshape(-1, 4)
    except (ValueError, TypeError) as error:
        raise RejectError("decode", f"its boxes are not x, y, width, height of each phrase ({error})") from error
    if len(boxes) != phrases:
        raise RejectError("check", f"has {len(boxes)} boxes for {phrases} phrases")
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1) / [width, height, width, height]
    shown = corners.clip(0, 1)
    if not np.isfinite(corners).all() or (shown[:, 2:] <= shown[:, :2]).any():
        raise RejectError("check", f"a box lies outside the picture of {width}x{height} pixels: {meta[BOX]}")
    return shown.astype(np.float32)
