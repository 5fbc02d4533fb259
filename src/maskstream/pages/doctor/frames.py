"""Labelled pictures out of shards of video: the middle frame of each, small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.manifest import Manifest

from .moments import Labelled

BATCH = 64


MIDDLE_FRAME = VideoData(
    clip=VideoClip(frames=1, stride=1, size=16, start="center"),
    augment=CenterCrop(),
    flow="none",
    tubelet=1,
    patch=1,
)
"""The central square of the middle frame of a video, 16 x 16 pixels."""


def labelled_frames(
    location: str | Path, data: VideoData = MIDDLE_FRAME, *, samples: int | None = None
) -> Iterator[Labelled]:
    """The first frames of the clips of `samples` videos of a split, chosen at random (None: of all).

    Pictures are float64 (B, size, size, 3) in [0, 1], labels int64 (B,); videos without a label are left out.
    """
    manifest = Manifest.load(location)
    some = samples is not None and samples < len(manifest)
    loader = data.loader(manifest, batch_size=min(samples or BATCH, BATCH), shuffle=some, device="cpu")
    left = samples or len(loader) * BATCH
    for batch in loader:
        keep = batch.label >= 0
        if batch.weight is not None:
            keep &= batch.weight > 0
        yield batch.video[keep][:left, 0].numpy() / 255.0, batch.label[keep][:left].numpy()
        left -= len(batch)
        if left <= 0:
            return
