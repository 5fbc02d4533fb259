"""Recipes on the ids that a frozen quantiser computes for frames: MaskViT."""

from dataclasses import replace

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.masks import Context, Padded, PerFrame, Uniform
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.quantiser import BASE

from .model import FrameIdsConfig

MASK = Padded(mask=Context(mask=PerFrame(ratio=Uniform(low=0.5, high=1.0))))
"""One frame of context; in each later frame the same fraction is hidden, drawn from [0.5, 1) for each clip."""


def maskvit_base() -> Recipe[VideoBatch]:
    """MaskViT (Gupta et al., 2022) on 16 frames of 256 pixels: 16 x 16 ids per frame, alternating attention within
    frames and within columns of 16 x 4 x 4 ids. Train the quantiser first: `maskstream train vqframes-tiny --set
    clip.size=256 --set data.patch=16 --set 'model.quantiser.levels=[8,8,4,4]' --set model.quantiser.stem=1 --set
    'model.quantiser.widths=[128,128,256,256,512]' --set model.quantiser.rounds=2 --out runs/vqframes-base`.

    Differences from the paper (no public code): width, heads, layers and learning rates are our own, at ViT-B size; the
    quantiser is trained here with rounding (FSQ; authors: VQGAN); action inputs are not supported (authors: optional);
    decoding rounds and temperature are MaskGIT's, with linearly falling noise.
    """
    return Recipe(
        name="maskvit-base",
        batch_size=4,
        data=VideoData(
            clip=VideoClip(frames=16, stride=4, size=256), tubelet=1, patch=16, mask=MASK, augment=CenterCrop()
        ),
        model=FrameIdsConfig(vq="runs/vqframes-base/model.safetensors", quantiser=BASE),
        optimiser=OptimiserConfig(betas=(0.9, 0.95), weight_decay=0.05, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=1.5e-3, min_lr=0.0, warmup=0.05, epochs=400),
    )


def maskvit_tiny() -> Recipe[VideoBatch]:
    """Scaled down to two CPU cores: 8 frames of 8 x 8 ids of the `vqframes-tiny` run in runs/vqframes-tiny, 0.9 M
    parameters.

    On 48 validation clips, generated frames have an error of 24.2 levels of 255 (repeated last frame: 25.7; quantiser
    alone: 10.5), and 43.2 % of hidden ids are correct (copying: 44.5 %).
    """
    return replace(
        maskvit_base(),
        name="maskvit-tiny",
        batch_size=4,
        data=VideoData(
            clip=VideoClip(frames=8, stride=4, size=64), tubelet=1, patch=8, mask=MASK, augment=CenterCrop()
        ),
        model=FrameIdsConfig(width=128, depth=2, heads=4),
        schedule=ScheduleConfig(base_lr=9.6e-2, min_lr=9.6e-4, warmup=0.1, steps=500),
    )
