"""Recipes of Point-MAE (Pang et al., 2022): a masked autoencoder of groups of points."""

from dataclasses import replace

from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.read import PointAugment, PointSelection
from maskstream.pipelines.modalities.points.tokens import GroupTokens
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import PointAutoencoderConfig


def pointmae_small() -> Recipe[PointsBatch]:
    """Point-MAE (Pang et al., 2022): 1,024 points in 64 groups of 32, 60 % of them hidden, each axis of a cloud scaled
    independently and shifted by up to 0.2.

    Differences from the authors' code: group embeddings use layer norms and GELU (authors: batch norms and ReLU); query
    and value have a bias (authors: none); Xavier-uniform initial weights. With the authors' embedding and epsilons,
    both implementations have the same loss.
    """
    return Recipe(
        name="pointmae-small",
        batch_size=128,
        data=group_data(PointAugment(scale=(2 / 3, 3 / 2), per_axis=True, shift=0.2)),
        model=PointAutoencoderConfig(dropout=DropoutConfig(path=0.1)),
        schedule=ScheduleConfig(base_lr=2e-3, min_lr=2e-6, warmup=1 / 30, epochs=300),
        optimiser=OptimiserConfig(betas=(0.9, 0.999)),
    )


def group_data(augment: PointAugment) -> PointsData:
    """Return the data of 1,024 points in groups, with 60 % of the groups hidden."""
    return PointsData(
        mask=Random(ratio=0.6),
        select=PointSelection(points=1024),
        augment=augment,
        tokens=GroupTokens(),
    )


def pointmae_tiny() -> Recipe[PointsBatch]:
    """Scaled down to two CPU cores: 1.6 M parameters, 350 steps of 16 clouds.

    All points at the group's centre give a distance of 0.0288.
    """
    return replace(
        pointmae_small(),
        name="pointmae-tiny",
        batch_size=16,
        data=group_data(PointAugment(scale=(0.8, 1.25))),
        model=PointAutoencoderConfig(width=144, depth=4, heads=3, decoder_depth=2),
        optimiser=OptimiserConfig(betas=(0.9, 0.95), max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=6.4e-4, warmup=0.1, steps=350),
    )
