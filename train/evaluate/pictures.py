"""Evaluates how well a model completes images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...pipelines.augment import CenterCrop
from ...pipelines.modalities.image.batch import ImageBatch
from ...pipelines.modalities.image.data import ImageData
from ...shards.format.manifest import Manifest
from ..models.masked_autoencoder import MaskedAutoencoder
from .held_out import HeldOut, batches
from .patches import patch_losses

MEASURED = 256
"""The largest number of images that are measured."""
_AT_ONCE = 32


def held_out(config: ImageData, model: MaskedAutoencoder[ImageBatch], data: str | Path) -> HeldOut:
    """The loss on centre crops of shuffled images of the split, compared with those of two baselines."""
    found = patch_losses(model, held_out_pictures(config, data))
    return HeldOut(
        facts={
            "picture": f"{config.size} px, patches of {config.patch} px",
            **found.facts(f"loss on {found.samples} of these pictures"),
            "mask": repr(config.mask),
        },
        score=found.score(),
    )


def held_out_pictures(config: ImageData, data: str | Path) -> list[ImageBatch]:
    """Shuffled images of the split with the recipe's masks, without random crops and colours; the same each time."""
    n = min(len(Manifest.load(data)), MEASURED)
    size = min(n, _AT_ONCE)
    plain = replace(config, views=1, augment=CenterCrop(), colour=None)
    return list(batches(plain, data, size=size, samples=n // size * size, shuffle=True))
