"""How well a model completes hidden groups of points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...pipelines.modalities.points.augment import PointAugment
from ...pipelines.modalities.points.batch import PointsBatch
from ...pipelines.modalities.points.data import PointsData
from ...shards.format.manifest import Manifest
from ..core.chamfer import chamfer
from ..models.point_autoencoder import PointAutoencoder, masks_of
from .held_out import HeldOut, batches, margin

MEASURED = 256
"""As many clouds at most go into the held-out loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Mean losses on the split: the model's; of who puts all points of a hidden group at its middle; and of who gives
    it the points of the visible group that is nearest.
    """

    model: float
    middle: float
    nearest: float


def held_out(config: PointsData, model: PointAutoencoder, clouds: list[PointsBatch]) -> HeldOut:
    """The loss on some batches beside those of trivial predictors."""
    found = losses(model, clouds)
    trivial = min(found.middle, found.nearest)
    return HeldOut(
        facts={
            "loss on these clouds": f"{found.model:.5f}, {margin(found.model, trivial)} the better of the next two",
            "loss of a copy of the nearest visible group": f"{found.nearest:.5f}",
            "loss of all points at the group's middle": f"{found.middle:.5f}",
            "mask": repr(config.mask),
        },
        loss="The Chamfer distance of hidden groups and what the model completes them with",
        guess="all points at the group's middle",
        guess_loss=found.middle,
    )


def held_out_clouds(config: PointsData, data: str | Path) -> list[PointsBatch]:
    """Mixed clouds of the split as the recipe masks them, without its random sizes; the same each time."""
    size = min(len(Manifest.load(data)), MEASURED, 32)
    plain = replace(config, views=1, augment=PointAugment(normalise=config.augment.normalise))
    n = min(len(Manifest.load(data)), MEASURED)
    return list(batches(plain, data, size=size, samples=max(n // 32, 1) * size, shuffle=True))


@torch.inference_mode()
def losses(model: PointAutoencoder, clouds: list[PointsBatch]) -> Losses:
    """The losses on some batches with masks."""
    rows = []
    for batch in clouds:
        mask = masks_of(batch)
        visible, target = mask.visible, mask.target
        centres, groups = model.cut(batch.points)
        row = torch.arange(len(centres))[:, None]
        true = groups[row, target].flatten(0, 1)
        near = torch.cdist(centres[row, target], centres[row, visible]).argmin(dim=2)
        copied = groups[row, visible.gather(1, near)].flatten(0, 1)
        middle, nearest = (float(chamfer(made, true).mean()) for made in (torch.zeros_like(true), copied))
        rows.append((float(model(batch).loss()), middle, nearest))
    mine, middle, nearest = np.mean(rows, axis=0).tolist()
    return Losses(model=mine, middle=middle, nearest=nearest)
