"""How well a model completes pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...pipelines.augment import CenterCrop
from ...pipelines.modalities.image.batch import ImageBatch
from ...pipelines.modalities.image.data import ImageData
from ...shards.format.manifest import Manifest
from ..core.losses import Part, squared
from ..models.masked_autoencoder import MaskedAutoencoder
from .held_out import HeldOut, batches, margin

MEASURED = 256
"""As many pictures at most go into the held-out loss."""
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureLosses:
    """Mean losses on some pictures: the model's; of who gives each patch its mean; and of who gives it the normalised
    pixels of the visible patch that is nearest.
    """

    model: float
    mean: float
    nearest: float


def held_out(config: ImageData, model: MaskedAutoencoder[ImageBatch], data: str | Path) -> HeldOut:
    """The loss on central crops of mixed pictures of the split beside those of trivial predictors."""
    found = losses(model, held_out_pictures(config, data))
    trivial = min(found.mean, found.nearest)
    return HeldOut(
        facts={
            "picture": f"{config.size} px, patches of {config.patch} px",
            "loss on these pictures": f"{found.model:.3f}, {margin(found.model, trivial)} the better of the next two",
            "loss of a copy of the nearest visible patch": f"{found.nearest:.3f}",
            "loss of every patch's mean": f"{found.mean:.3f}",
            "mask": repr(config.mask),
        }
    )


def held_out_pictures(config: ImageData, data: str | Path) -> list[ImageBatch]:
    """Mixed pictures of the split as the recipe masks them, without random crops and colours; the same each time."""
    n = min(len(Manifest.load(data)), MEASURED)
    size = min(n, _AT_ONCE)
    plain = replace(config, views=1, augment=CenterCrop(), colour=None)
    return list(batches(plain, data, size=size, samples=n // size * size, shuffle=True))


@torch.inference_mode()
def losses(model: MaskedAutoencoder[ImageBatch], pictures: Sequence[ImageBatch]) -> PictureLosses:
    """The losses on some batches with masks, each target in its weight."""
    parts: list[tuple[Part, Part, Part]] = []
    for batch in pictures:
        image, mask = model.tokens.of(batch)
        patches = model.tokens.split(image)
        targets = model.tokens.targets(patches)
        row = torch.arange(len(patches))[:, None]
        true = targets[row, mask.target]
        copied = targets[row, nearest_visible(model.grids["image"].shape, mask.visible, mask.target)]
        (own,) = model(batch).parts.values()
        parts.append((own, squared(torch.zeros_like(true), true, mask.weight), squared(copied, true, mask.weight)))
    own, mean, nearest = (
        float(sum(float(one.total) for one in column) / sum(float(one.weight) for one in column))
        for column in zip(*parts, strict=True)
    )
    return PictureLosses(model=own, mean=mean, nearest=nearest)


def nearest_visible(shape: tuple[int, ...], visible: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """For each target token int64 (B, M) the visible token (B, V) that lies nearest on a grid of `shape`, (B, M); of
    several the one with the lowest number.
    """
    axes = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes], dim=1)
    apart = (places[target][:, :, None] - places[visible][:, None]).square().sum(dim=3)
    return visible.gather(1, apart.argmin(dim=2))
