"""V-JEPA 2 (Assran et al., 2025): V-JEPA with rotary positions; its model is `VideoJepa` of vjepa.py."""

from dataclasses import replace

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import RandomResizedCrop, SharedCrop
from maskstream.pipelines.masks import Linear
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .vjepa import MASKS, VideoJepaConfig


def vjepa2_large() -> Recipe[VideoBatch]:
    """V-JEPA 2 (Assran et al., 2025, section 2) with ViT-L/16: 16 frames, 4 per second, at 256 pixels; two masks per
    clip, an L1 loss on predicted features, and a predictor of 12 blocks of width 384.

    Constant teacher momentum 0.99925; the primary phase of 240,000 steps with 12,000 of warm-up at a constant rate, 128
    ranks form a batch of 3072.

    Differences from the authors' code: visible tokens and targets are padded to the longest of a batch (authors: cut to
    the shortest); a clip's two rows have equal weight (authors: a batch's two masks); warm-up starts at 0 (authors: a
    fifth of the peak); no second phase of longer, larger clips (use `data.over_run`); one split of videos (authors: a
    weighted mixture of three, with images); no weight decay on mask tokens; bf16 where the device supports it (authors:
    bf16 with loss scaling).
    """
    return Recipe(
        name="vjepa2-large",
        batch_size=24,
        data=VideoData(
            clip=VideoClip(frames=16, fps=4.0, size=256),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.3, 1.0), flip=0.5)),
            views=2,
        ),
        model=VideoJepaConfig(
            width=1024,
            depth=24,
            heads=16,
            predictor_depth=12,
            momentum=Linear(start=0.99925, end=0.99925),
            distance="l1",
            masks=2,
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04),
        schedule=ScheduleConfig(base_lr=4.375e-5, min_lr=0.0, warmup=0.05, steps=240_000, shape="constant"),
    )


def vjepa2_tiny() -> Recipe[VideoBatch]:
    """Scaled down to two CPU cores: 256 tokens of 8 frames at 64 pixels, an encoder of 0.6 M parameters."""
    return replace(
        vjepa2_large(),
        name="vjepa2-tiny",
        batch_size=8,
        data=VideoData(
            clip=VideoClip(frames=8, stride=2, size=64),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.6, 1.0), flip=0.5)),
            views=2,
            patch=8,
        ),
        model=VideoJepaConfig(
            width=120,
            depth=3,
            heads=4,
            predictor_width=60,
            predictor_depth=2,
            predictor_heads=2,
            momentum=Linear(start=0.99, end=0.99),
            distance="l1",
            masks=2,
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=0.0, warmup=0.1, steps=400, shape="constant"),
    )
