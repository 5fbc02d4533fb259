"""The real data that the gallery draws on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import video_loader

Mesh = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]
Corridor = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]

BOX = (0.2, 0.04, 0.87, 0.9)
"""Where the animal is in the last frame of the default clip: x0, y0, x1, y1 as shares of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """Data of each kind. None means that there is none; the page then says so.

    video: uint8 (T, S, S, 3), T even. box: where an object lies in its last frame. speech, crowd: mono float32 (n,) at
    16 kHz. animal, plane: vertices float32 (V, 3) and faces int32 (F, 3). walk: float32 (T, 17, 3), z upwards. text: a
    page of English. corridor: frames of a walk, colours uint8 (T, H, W, 3) and depth uint16 (T, H, W) in millimetres.
    """

    video: npt.NDArray[np.uint8] | None = None
    box: tuple[float, float, float, float] = BOX
    speech: npt.NDArray[np.float32] | None = None
    crowd: npt.NDArray[np.float32] | None = None
    animal: Mesh | None = None
    plane: Mesh | None = None
    walk: npt.NDArray[np.float32] | None = None
    text: str | None = None
    corridor: Corridor | None = None


def first_clip(location: str | Path, seed: int = 0) -> npt.NDArray[np.uint8]:
    """The first clip of the split at `location`: 16 frames, stride 4, 224 pixels."""
    loader = video_loader(location, clip=VideoClip(), batch_size=1, seed=seed, device="cpu", flow="none")
    return next(iter(loader)).video[0].numpy()
