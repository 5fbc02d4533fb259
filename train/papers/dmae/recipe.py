"""Recipes of DMAE (Bai et al., 2022)."""

from dataclasses import replace

from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import DistilledAutoencoderConfig


def dmae_base() -> Recipe[ImageBatch]:
    """DMAE (Bai et al., 2022), ViT-B/16 with a ViT-L teacher: MAE's images and masks, raw pixel targets, and the L1
    distance between unit features of the student's block 9 of 12 and the teacher's block 18 of 24. Set `model.teacher`
    to the file of MAE's ViT-L.

    100 epochs with 20 of warm-up, 64 ranks form a batch of 4096.

    Differences from the authors' code: the teacher's blocks above 18 are not computed (authors: computed and
    discarded); crops follow this package's rule; no weight decay on class and mask tokens; no key bias (equal softmax).
    """
    return Recipe(
        name="dmae-base",
        batch_size=64,
        data=ImageData(
            size=224, patch=16, mask=Random(ratio=0.75), augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)
        ),
        model=DistilledAutoencoderConfig(
            width=768,
            depth=12,
            heads=12,
            decoder_width=512,
            decoder_depth=8,
            decoder_heads=16,
            class_token=True,
            bridge_bias=True,
            positions="columns",
            target="pixels",
            teacher="mae_visualize_vit_large.pth",
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.95), weight_decay=0.05),
        schedule=ScheduleConfig(base_lr=1.5e-4, min_lr=0.0, warmup=0.2, epochs=100),
    )


def dmae_tiny() -> Recipe[ImageBatch]:
    """Scaled down to two CPU cores: a student half as wide as its teacher, the `mae-tiny` model in runs/mae-tiny.
    `--set model.teacher=null` trains only the student. The feature distance has weight 20, which makes both loss terms
    about equal.
    """
    return replace(
        dmae_base(),
        name="dmae-tiny",
        batch_size=32,
        data=ImageData(
            size=64, patch=8, mask=Random(ratio=0.75), augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)
        ),
        model=DistilledAutoencoderConfig(
            width=96,
            depth=4,
            heads=3,
            decoder_width=96,
            decoder_depth=2,
            decoder_heads=3,
            target="pixels",
            teacher="runs/mae-tiny/model.safetensors",
            teacher_width=192,
            teacher_block=2,
            block=2,
            share=20.0,
        ),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=8e-3, min_lr=8e-5, warmup=0.1, steps=600),
    )
