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
    """DMAE (Bai et al., 2022) of ViT-B/16 with a ViT-L teacher: MAE's pictures and masks, targets of plain pixels, and
    the L1 distance of unit features of the student's 9th of 12 blocks to the teacher's 18th of 24; 100 epochs with 20
    of warm-up, 64 ranks make a batch of 4096. The teacher is MAE's ViT-L: set model.teacher to its file.

    Differs from the authors' code in: the teacher's blocks above the 18th are not computed (their engine runs the whole
    teacher and drops its prediction); the teacher's weights are given by path; crops are drawn by this package's rule;
    class and mask tokens do not decay, theirs do; no bias for key, which changes no softmax.
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
    """The same method for two CPU cores: a student half as wide as its teacher, a model of `mae-tiny` in runs/mae-tiny
    (`maskstream train mae-tiny --data ...` first). `--set model.teacher=null` trains the same student without it.

    Differs from `dmae-base` in: the features' distance counts 20 times, so that it is about as large as the other part.
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
