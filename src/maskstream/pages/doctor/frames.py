"""Labelled pictures out of shards of video: the middle frame of each, small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...pipelines.augment import CenterCrop
from ...pipelines.modalities.video.clip import VideoClip
from ...pipelines.modalities.video.data import video_loader
from ...shards.format.manifest import Manifest
from .moments import Labelled

BATCH = 64


def labelled_frames(location: str | Path, *, size: int = 16, samples: int | None = None) -> Iterator[Labelled]:
    """The central square of the middle frame of `samples` videos of a split, chosen at random (None: of all).

    Pictures are float64 (B, size, size, 3) in [0, 1], labels int64 (B,); videos without a label are left out.
    """
    clip = VideoClip(frames=1, stride=1, size=size, start="center")
    some = samples is not None and samples < len(Manifest.load(location))
    loader = video_loader(
        location,
        clip=clip,
        augment=CenterCrop(),
        batch_size=min(samples or BATCH, BATCH),
        shuffle=some,
        device="cpu",
        flow="none",
        tubelet=1,
        patch=1,
    )
    left = samples or len(loader) * BATCH
    for batch in loader:
        keep = batch.label >= 0
        if batch.weight is not None:
            keep &= batch.weight > 0
        yield batch.video[keep][:left, 0].numpy() / 255.0, batch.label[keep][:left].numpy()
        left -= len(batch)
        if left <= 0:
            return
