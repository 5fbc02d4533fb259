"""Evaluates the reconstruction of masked video clips."""

from __future__ import annotations

from pathlib import Path

from ...pipelines.modalities.video.batch import VideoBatch
from ...pipelines.modalities.video.data import VideoData
from ...shards.format.manifest import Manifest
from ..models.masked_autoencoder import MaskedAutoencoder
from .held_out import HeldOut, batches
from .patches import patch_losses

MEASURED = 64
"""The largest number of clips that are measured."""
_AT_ONCE = 8


def held_out(config: VideoData, model: MaskedAutoencoder[VideoBatch], data: str | Path) -> HeldOut:
    """The loss on clips of shuffled samples of the split, compared with those of two baselines."""
    n = min(len(Manifest.load(data)), MEASURED)
    size = min(n, _AT_ONCE)
    found = patch_losses(model, batches(config, data, size=size, samples=n // size * size, shuffle=True))
    return HeldOut(
        facts={
            "clip": f"{config.clip.frames} frames, stride {config.clip.stride}, {config.clip.size} px",
            **found.facts(f"loss on {found.samples} of these clips"),
            "mask": repr(config.mask),
        }
    )
