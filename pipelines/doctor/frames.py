"""Labelled pictures out of shards of video: the middle frame of each, small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..clip import VideoClip
from ..video import video_loader
from .moments import Labelled


def labelled_frames(location: str | Path, *, size: int = 16, samples: int | None = None) -> Iterator[Labelled]:
    """The central square of the middle frame of the first `samples` videos of a split (None: of all), in batches.

    Pictures are float64 (B, size, size, 3) in [0, 1], labels int64 (B,); videos without a label are left out.
    """
    clip = VideoClip(frames=1, stride=1, size=size, start="center")
    loader = video_loader(
        location, clip=clip, batch_size=64, shuffle=False, device="cpu", flow="none", tubelet=1, patch=1
    )
    left = samples
    for batch in loader:
        keep = batch.label >= 0
        if batch.weight is not None:
            keep &= batch.weight > 0
        pictures, labels = batch.video[keep][:left, 0].numpy() / 255.0, batch.label[keep][:left].numpy()
        yield pictures, labels
        if left is not None:
            left -= len(labels)
            if left <= 0:
                return
