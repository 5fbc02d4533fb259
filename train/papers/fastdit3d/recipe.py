"""Recipes of FastDiT-3D (Mo et al., 2023): masked diffusion over voxels."""

from dataclasses import replace

from maskstream.pipelines.masks import Piecewise, VoxelAware
from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.read import PointAugment, PointSelection
from maskstream.pipelines.modalities.points.tokens import VoxelTokens
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import VoxelDiffusionConfig


def fastdit3d_small() -> Recipe[PointsBatch]:
    """FastDiT-3D (Mo et al., 2023) with DiT-3D's S/4 encoder at 64^3: 4096 tokens, of which 1 % are visible.

    Learning rate, batch and length are those of DiT-3D's scripts (1e-4 at 16 clouds, 10,000 epochs). The ratios come
    from descriptions of the paper; the paper's code is not published, so they could not be checked.

    Differs from the authors' code in what cannot be known, and from DiT-3D's in: velocities are predicted, theirs the
    noise; gates of blocks start at 1, theirs at 0; the size of the cube is a condition; the encoder sees a part of the
    tokens and a decoder of windows all of them (model.py).
    """
    model = VoxelDiffusionConfig()
    return Recipe(
        name="fastdit3d-small",
        batch_size=16,
        data=PointsData(
            mask=VoxelAware(foreground=0.95, background=0.99, total=0.985),
            select=PointSelection(points=2048, replace=True),
            augment=PointAugment(normalise="deviation"),
            tokens=VoxelTokens(resolution=64),
            noise=model.noise(),
        ),
        model=model,
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=1.6e-3, warmup=0.0, epochs=10_000, shape="constant"),
    )


def tuned(*, masked: float, without: float, at: float = 0.5) -> Piecewise:
    """A ratio that is `masked` up to the share `at` of the run and `without` after it."""
    return Piecewise(points=((at, masked), (at + 0.001, without)))


def fastdit3d_tiny() -> Recipe[PointsBatch]:
    """The same method for two CPU cores: 512 tokens at 24^3 in patches of 3, of which 76 are visible.

    The paper's ratios leave 328 of its 32,768 tokens visible, but would leave only 5 to 15 of these 512. In the second
    half of the run only empty tokens are masked, as in the unmasked tuning of MaskDiT (Zheng et al., 2023): a cloud
    fills 110 to 150 tokens, and the encoder sees these and some empty ones, as when clouds are generated. On held-out
    clouds of `sample-points` the noise error is 0.416 after 1,000 steps, 16 % below a predictor that knows mean and
    variance only (0.493); 20 % is the lower bound.
    """
    model = VoxelDiffusionConfig(
        width=144,
        depth=4,
        heads=3,
        decoder_width=96,
        decoder_depth=2,
        decoder_heads=3,
        counts=True,
        shown=0.32,
        schedule="cosine",
    )
    return replace(
        fastdit3d_small(),
        name="fastdit3d-tiny",
        batch_size=8,
        data=PointsData(
            mask=VoxelAware(
                foreground=tuned(masked=0.75, without=0.0), background=0.95, total=tuned(masked=0.85, without=0.68)
            ),
            select=PointSelection(points=2048),
            augment=PointAugment(normalise="deviation"),
            tokens=VoxelTokens(resolution=24, patch=3),
            noise=model.noise(),
        ),
        model=model,
        optimiser=OptimiserConfig(betas=(0.9, 0.99), weight_decay=0.0, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=6.4e-2, min_lr=1.28e-3, warmup=0.05, steps=1000),
    )
