"""Evaluates the reconstruction of hidden groups of points."""

import math
from dataclasses import replace

import numpy as np
import torch

from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.read import PointAugment
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.model import need_mask
from maskstream.train.evaluate.evaluation import (
    Compared,
    Evaluation,
    Score,
    ShownSamples,
    TrainingLoss,
    read_batches,
    read_first,
    trained_on,
)
from maskstream.train.evaluate.features import drop_augmentation
from maskstream.train.nn.objectives import chamfer

from .finetune import PointSegmenter, PointSegmenterConfig, score_parts
from .model import PointAutoencoder, PointAutoencoderConfig

MIDDLE = "all points at the centre"
MEASURED = 256
"""Maximum number of clouds that are measured."""
READING = (
    "Held-out clouds. The encoder saw the orange groups; the blue groups are the model's predictions. The centres of "
    "the hidden groups are inputs of the model, so it predicts only the shapes around them."
)


def evaluate(model: PointAutoencoder, config: PointsData, data: Manifest, shown: int) -> Evaluation:
    """Measure the loss on shuffled clouds, compared with two baselines, and reconstruct some of them.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    clouds = collect_held_out_clouds(config, data)
    found, first = measure_losses(model, clouds), clouds[0]
    with torch.inference_mode():
        made = model.reconstructed(first)
    return Evaluation(
        scores=(found,),
        examples=(
            Compared(
                title="Hidden groups and the model's predictions",
                reading=READING,
                batch=first,
                made=made,
                rows=range(min(shown, len(first))),
            ),
        ),
        loss=TrainingLoss(
            name="The Chamfer distance between hidden groups and the model's predictions",
            baseline="predicting all points at the group's centre",
            value=found.baselines[MIDDLE],
        ),
    )


def collect_held_out_clouds(config: PointsData, data: Manifest) -> list[PointsBatch]:
    """Return batches of shuffled clouds with the recipe's masks, without its random scaling; repeated calls return the
    same batches.

    Args:
        config: Data config of the run.
        data: The split.
    """
    size = min(len(data), MEASURED, 32)
    plain = replace(config, views=1, augment=PointAugment(normalise=config.augment.normalise))
    n = min(len(data), MEASURED)
    return list(read_batches(plain, data, size=size, samples=max(n // 32, 1) * size, shuffle=True))


@torch.inference_mode()
def measure_losses(model: PointAutoencoder, clouds: list[PointsBatch]) -> Score:
    """Measure the mean loss on masked batches.

    The baselines predict all points of a hidden group at its centre, and copy the nearest visible group.

    Args:
        model: The model.
        clouds: Batches with masks.
    """
    rows = []
    for batch in clouds:
        mask = need_mask(batch.mask)
        visible, target = mask.visible, mask.target
        centres, groups = model.cut(batch.points)
        row = torch.arange(len(centres))[:, None]
        true = groups[row, target].flatten(0, 1)
        near = torch.cdist(centres[row, target], centres[row, visible]).argmin(dim=2)
        copied = groups[row, visible.gather(1, near)].flatten(0, 1)
        middle, nearest = (float(chamfer(made, true).mean()) for made in (torch.zeros_like(true), copied))
        rows.append((float(model(batch).loss()), middle, nearest))
    mine, middle, nearest = np.mean(rows, axis=0).tolist()
    return Score(
        name="Chamfer distance of hidden groups",
        value=mine,
        of="clouds",
        count=sum(map(len, clouds)),
        baselines={"a copy of the nearest group": nearest, MIDDLE: middle},
    )


def evaluate_parts(model: PointSegmenter, config: PointsData, data: Manifest, shown: int) -> Evaluation:
    """Measure the IoU of the parts of held-out clouds, compared with the most frequent parts of the training split.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    train, split = trained_on(data), data
    batch = read_first(drop_augmentation(config, train), data, shown)
    return Evaluation(
        scores=score_parts(model, config, train, split, torch.device("cpu")),
        examples=(ShownSamples(title="Clouds", reading="Held-out clouds.", batch=batch, rows=range(len(batch))),),
        loss=TrainingLoss(
            name="The mean cross-entropy of the parts of points, in nats",
            baseline="all parts equally likely",
            value=math.log(len(model.config.numbers)),
        ),
        learns="The encoder of a pre-trained model learns which part of an object each point belongs to.",
    )


EVALUATIONS = {PointAutoencoderConfig: evaluate, PointSegmenterConfig: evaluate_parts}
