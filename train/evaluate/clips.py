"""Evaluates the reconstruction of masked video clips."""

from __future__ import annotations

import torch

from ...pipelines.modalities.video.batch import VideoBatch
from ...pipelines.modalities.video.data import VideoData
from ..models.masked_autoencoder import MaskedAutoencoder
from .held_out import HeldOut, generalisation_warning


def held_out(config: VideoData, model: MaskedAutoencoder[VideoBatch], batch: VideoBatch) -> HeldOut:
    """The loss on one batch of clips."""
    with torch.inference_mode():
        loss = float(model(batch).loss())
    return HeldOut(
        facts={
            "clip": f"{config.clip.frames} frames, stride {config.clip.stride}, {config.clip.size} px",
            "loss on these clips": f"{loss:.3f}{generalisation_warning(loss, 1.0)}",
            "mask": repr(config.mask),
        }
    )
