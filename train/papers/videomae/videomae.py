"""VideoMAE (Tong et al., 2022); the model is `VideoAutoencoderConfig` of train/nn/masked_autoencoder.py.

The base recipes of this folder have the settings and the ViT-B of their papers, the small ones a ViT-S. The tiny ones
keep the method and train in minutes on two CPU cores.
"""

from dataclasses import replace

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import MultiScaleCrop, RandomResizedCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.masks import ByEnergy, Mask, Tube
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.masked_autoencoder import VideoAutoencoderConfig

BASE = VideoAutoencoderConfig(width=768, heads=12, decoder_width=384, decoder_heads=6)
"""ViT-B, with a decoder of half its width."""


def videomae_small() -> Recipe[VideoBatch]:
    """VideoMAE (Tong et al., 2022): tube masks at 0.9.

    800 epochs with 40 of warm-up; 64 ranks form a batch of 2048.

    Differences from the authors' code: an unreadable clip is always replaced by the same other clip; cubes enter a
    linear layer with Xavier-uniform weights of standard deviation 0.032 (authors: a convolution with torch's default,
    0.015); bf16 where the device supports it (authors: fp16 with loss scaling); the warm-up rate starts above 0.
    """
    return Recipe(
        name="videomae-small",
        batch_size=32,
        data=make_paper_data(Tube(ratio=0.9)),
        model=VideoAutoencoderConfig(),
        schedule=ScheduleConfig(base_lr=1.5e-4, min_lr=1e-5, warmup=0.05, epochs=800),
    )


def videomae_base() -> Recipe[VideoBatch]:
    """`videomae-small` with the ViT-B of the paper's main results: 94 M parameters with the decoder."""
    return replace(videomae_small(), name="videomae-base", model=BASE)


def make_paper_data(mask: Mask, *, views: int = 1) -> VideoData:
    """Return the data of all three papers: 16 of 64 frames at 224 pixels in random crops.

    Args:
        mask: Masking scheme.
        views: Views of each sample.
    """
    return VideoData(clip=VideoClip(frames=16, stride=4, size=224), mask=mask, augment=MultiScaleCrop(), views=views)


def tiny(recipe: Recipe[VideoBatch], mask: Mask, *, steps: int = 800) -> Recipe[VideoBatch]:
    """Scale a recipe down to two CPU cores: 256 tokens of 8 frames at 64 pixels, a 1.3 M parameter model.

    Differences from the papers' recipes: pixels as targets, since with normalised ones so small a model learns nothing
    that generalises; positions on the axes of time, height and width; a quarter of the tokens visible instead of a
    tenth; random crops of 15 to 100 % of the area, randomly mirrored, three of ten in other colours, since a model soon
    memorises so few clips.

    Args:
        recipe: The full-size recipe.
        mask: Masking scheme.
        steps: Number of steps.
    """
    return replace(
        recipe,
        name=recipe.name.replace("small", "tiny"),
        batch_size=4,
        data=VideoData(
            clip=VideoClip(frames=8, stride=4, size=64),
            mask=mask,
            augment=RandomResizedCrop(scale=(0.15, 1.0), flip=0.5),
            colour=ColourJitter(brightness=0.5, contrast=0.5, saturation=0.8, hue=0.5, share=0.3),
            views=4,
            patch=8,
        ),
        model=VideoAutoencoderConfig(
            width=128,
            depth=4,
            heads=4,
            decoder_width=128,
            decoder_depth=2,
            decoder_heads=4,
            target="pixels",
            positions="grid",
        ),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=0.128, min_lr=2.56e-3, warmup=0.1, steps=steps),
    )


def videomae_tiny() -> Recipe[VideoBatch]:
    """Scaled down to two CPU cores."""
    return tiny(videomae_small(), Tube(ratio=0.75))


def sparse_tiny() -> Recipe[VideoBatch]:
    """`videomae-tiny` with half the steps, on the 10 % of the tokens that motion from the previous frame predicts
    worst. Not from a paper; codecs send the same tokens.
    """
    return replace(tiny(videomae_small(), ByEnergy(ratio=0.9), steps=400), name="sparse-tiny")
