"""A report's pictures of a masked autoencoder of groups: clouds, what was seen of them, and how they were completed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ....pipelines.modalities.points.augment import PointAugment
from ....pipelines.modalities.points.batch import PointsBatch
from ....pipelines.modalities.points.data import PointsData
from ....shards.format.manifest import Manifest
from ....train.core.chamfer import chamfer
from ....train.models.point_autoencoder import PointAutoencoder, masks_of
from ...figures.cloud_picture import FADED, MADE, SEEN, cloud_picture
from ...figures.pictures import data_uri
from .clouds import CloudFigure, CloudRow, CloudSection, margin
from .pictures import Pictures

MEASURED = 256
"""As many clouds at most go into the held-out loss."""

COMPLETION = (
    "A held-out cloud, of which the encoder saw the groups in orange; the groups in blue are the model's. Where the "
    "middle of a hidden group lies is known to the model; what it learned is the shape around it."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Mean losses on the split: the model's; of who puts all points of a hidden group at its middle; and of who gives
    it the points of the visible group that is nearest.
    """

    model: float
    middle: float
    nearest: float


def report_pictures(config: PointsData, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """The held-out loss beside those of trivial predictors, and `shown` clouds, the same each time."""
    if not isinstance(model, PointAutoencoder):
        raise ValueError(f"groups are completed by a PointAutoencoder, got {type(model).__name__}")
    batches = _batches(config, data)
    losses = held_out(model, batches)
    trivial = min(losses.middle, losses.nearest)
    facts = {
        "loss on these clouds": f"{losses.model:.5f}, {margin(losses.model, trivial)} the better of the next two",
        "loss of a copy of the nearest visible group": f"{losses.nearest:.5f}",
        "loss of all points at the group's middle": f"{losses.middle:.5f}",
        "mask": repr(config.mask),
    }
    figures = _completions(model, batches[0], shown)
    section = CloudSection(title="Hidden groups and what the model makes of them", words=COMPLETION, figures=figures)
    return Pictures(
        template="points.html.j2",
        context={"sections": (section,)},
        facts=facts,
        loss="The Chamfer distance of hidden groups and what the model completes them with",
        guess="all points at the group's middle",
        guess_loss=losses.middle,
    )


def _batches(config: PointsData, data: str | Path) -> list[PointsBatch]:
    """Mixed clouds of the split as the recipe masks them, without its random sizes; the same each time."""
    n = min(len(Manifest.load(data)), MEASURED)
    plain = replace(config, views=1, augment=PointAugment(normalise=config.augment.normalise))
    loader = plain.loader(data, batch_size=min(n, 32), seed=0, device="cpu", steps=1)
    return [batch for batch, _ in zip(loader, range(max(n // 32, 1)), strict=False)]


@torch.inference_mode()
def held_out(model: PointAutoencoder, batches: list[PointsBatch]) -> HeldOut:
    """The losses on some batches with masks."""
    rows = []
    for batch in batches:
        mask = masks_of(batch)
        visible, target = mask.visible, mask.target
        centres, groups = model.cut(batch.points)
        row = torch.arange(len(centres))[:, None]
        true = groups[row, target].flatten(0, 1)
        near = torch.cdist(centres[row, target], centres[row, visible]).argmin(dim=2)
        copied = groups[row, visible.gather(1, near)].flatten(0, 1)
        rows.append(
            (
                float(model(batch).loss()),
                float(chamfer(torch.zeros_like(true), true).mean()),
                float(chamfer(copied, true).mean()),
            )
        )
    mine, middle, nearest = np.mean(rows, axis=0).tolist()
    return HeldOut(model=mine, middle=middle, nearest=nearest)


@torch.inference_mode()
def _completions(model: PointAutoencoder, batch: PointsBatch, shown: int) -> tuple[CloudFigure, ...]:
    points, n_seen = batch.points, masks_of(batch).visible.shape[1] * model.size
    seen, made = model.reconstructed(batch).points.tensor_split((n_seen,), dim=1)
    return tuple(_completion(batch.key[i], points[i, :, :3], seen[i], made[i]) for i in range(min(shown, len(batch))))


def _completion(key: str, points: Tensor, seen: Tensor, made: Tensor) -> CloudFigure:
    reach = float(points.abs().max())
    saw = cloud_picture(
        torch.cat((points, seen)).numpy(), _colours((len(points), FADED), (len(seen), SEEN)), reach=reach
    )
    completed = cloud_picture(
        torch.cat((seen, made)).numpy(), _colours((len(seen), SEEN), (len(made), MADE)), reach=reach
    )
    images = (
        (data_uri(cloud_picture(points.numpy(), reach=reach)), "original"),
        (data_uri(saw), "the encoder saw"),
        (data_uri(completed), "completed"),
    )
    return CloudFigure(key=key, words=f"{len(points)} points", rows=(CloudRow(images=images),))


def _colours(*parts: tuple[int, tuple[int, int, int]]) -> np.ndarray:
    return np.concatenate([np.tile(np.array(colour, dtype=np.uint8), (n, 1)) for n, colour in parts])
