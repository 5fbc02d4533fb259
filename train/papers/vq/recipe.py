"""Recipes of quantisers, for MAGE and MaskViT: of images and of frames."""

from dataclasses import replace

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import CenterCrop, RandomResizedCrop
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.quantiser import BASE

from .model import ImageVQConfig, VideoVQConfig


def vq_base() -> Recipe[ImageBatch]:
    """A quantiser of the size of MAGE's VQGAN (Li et al., 2023, 3.1; Esser et al., 2021): images of 256 pixels as 16 x
    16 ids out of 1,024, five resolutions of 128 to 512 channels with two residual blocks each.

    Differences from the authors' code: no perceptual or adversarial losses, so images are softer; four FSQ channels of
    8, 8, 4 and 4 levels after Mentzer et al., 2024 (authors: 256 channels and a learned codebook); no attention at the
    lowest resolution; one residual block fewer per decoder resolution; AdamW (authors: Adam).
    """
    return Recipe(
        name="vq-base",
        batch_size=8,
        data=ImageData(size=256, patch=16, augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)),
        model=ImageVQConfig(quantiser=BASE),
        optimiser=OptimiserConfig(betas=(0.9, 0.95), weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=5e-4, warmup=0.0, epochs=50, shape="constant"),
    )


def vq_tiny() -> Recipe[ImageBatch]:
    """Scaled down to two CPU cores: images of 64 pixels as 8 x 8 ids out of 512, 1.4 M parameters.

    Other baselines on the 224 validation images: k-means of whole cells 19.8, of their mean colours 21.6.
    """
    return replace(
        vq_base(),
        name="vq-tiny",
        batch_size=16,
        data=ImageData(size=64, patch=8, augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)),
        model=ImageVQConfig(),
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=3.2e-4, warmup=0.05, steps=1000),
    )


def vqframes_tiny() -> Recipe[VideoBatch]:
    """Scaled down like `vq-tiny`, on frames: 4 of each clip, half a second apart, as `maskvit-tiny` reads them.

    Images shrunk to one pixel a cell have an error of 22.3; k-means does well because all clips show one table. 500
    steps on random crops (15 to 100 % of the area) reach 16.9.
    """
    return Recipe(
        name="vqframes-tiny",
        batch_size=4,
        data=VideoData(
            clip=VideoClip(frames=4, stride=12, size=64),
            tubelet=1,
            patch=8,
            augment=CenterCrop(),
        ),
        model=VideoVQConfig(),
        optimiser=vq_tiny().optimiser,
        schedule=ScheduleConfig(base_lr=1.28e-1, min_lr=1.28e-3, warmup=0.05, steps=700),
    )
