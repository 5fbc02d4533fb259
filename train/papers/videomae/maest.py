"""MAE-ST (Feichtenhofer et al., 2022): VideoMAE with a class token, learned positions and targets of every other
frame.
"""

from dataclasses import replace

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.masked_autoencoder import VideoAutoencoderConfig


def maest_large() -> Recipe[VideoBatch]:
    """MAE-ST (Feichtenhofer et al., 2022) with ViT-L: random space-time masks at 0.9, every other frame as target, a
    class token, learned positions for time and space, four views of a sample.

    100 epochs with 5 of warm-up.

    Differences from the authors' code: the four views of a sample share their frames (authors: redrawn); the last
    target frame is the 15th of 16 (authors: the 16th); pixels use ImageNet's mean and standard deviation (authors: 0.45
    and 0.225); the decoder's class token and its position are one vector (authors: a sum of two); crops follow this
    package's rule (random area and aspect); no weight decay on class and mask tokens and position tables; no key bias
    (equal softmax); precision depends on the device (authors: float32).
    """
    return Recipe(
        name="maest-large",
        batch_size=2,
        data=VideoData(
            clip=VideoClip(frames=16, stride=4, size=224),
            mask=Random(ratio=0.9),
            augment=RandomResizedCrop(scale=(0.5, 1.0), flip=0.5),
            views=4,
        ),
        model=VideoAutoencoderConfig(
            width=1024,
            depth=24,
            heads=16,
            decoder_width=512,
            decoder_depth=4,
            decoder_heads=16,
            class_token=True,
            learnt=True,
            bridge_bias=True,
            own_class=True,
            target="frame",
        ),
        optimiser=OptimiserConfig(max_grad_norm=0.02),
        schedule=ScheduleConfig(base_lr=1.6e-3, min_lr=0.0, warmup=0.05, epochs=100),
    )


def maest_tiny() -> Recipe[VideoBatch]:
    """Scaled down to two CPU cores: 256 tokens of 8 frames at 64 pixels, two views, 1.1 M parameters."""
    return replace(
        maest_large(),
        name="maest-tiny",
        batch_size=8,
        data=VideoData(
            clip=VideoClip(frames=8, stride=4, size=64),
            mask=Random(ratio=0.75),
            augment=RandomResizedCrop(scale=(0.15, 1.0), flip=0.5),
            patch=8,
            views=2,
        ),
        model=VideoAutoencoderConfig(
            width=128,
            depth=4,
            heads=4,
            decoder_width=96,
            decoder_depth=2,
            decoder_heads=3,
            class_token=True,
            learnt=True,
            bridge_bias=True,
            target="frame",
        ),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=6.4e-4, warmup=0.1, steps=900),
    )
