"""Recipes of video: VideoMAE, MGMAE and VideoMAE V2.

The base recipes have the settings and the ViT-B of their papers, the small ones a ViT-S. The tiny ones keep the method
and train in minutes on two CPU cores.
"""

from dataclasses import replace

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import MultiScaleCrop, RandomResizedCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.masks import ByEnergy, Dual, Mask, MotionGuided, PartDecoded, Random, Tube
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.masked_autoencoder import VideoAutoencoderConfig


def videomae_small() -> Recipe[VideoBatch]:
    """VideoMAE (Tong et al., 2022): tube masks at 0.9, 800 epochs with 40 of warm-up; 64 ranks make a batch of 2048.

    Differs from the authors' code in: a clip that cannot be read is replaced by another, the same one each time. Cubes
    enter a linear layer with Xavier-uniform weights (deviation 0.032), theirs a convolution with torch's default
    (0.015). bf16 where the device gains by it, theirs is fp16 with loss scaling. The learning rate of warm-up begins
    above 0. Loss and gradients equal those of transformers' VideoMAE in float64.
    """
    return Recipe(
        name="videomae-small",
        batch_size=32,
        data=paper_data(Tube(ratio=0.9)),
        model=VideoAutoencoderConfig(),
        schedule=ScheduleConfig(base_lr=1.5e-4, min_lr=1e-5, warmup=0.05, epochs=800),
    )


def mgmae_small() -> Recipe[VideoBatch]:
    """MGMAE (Huang et al., 2023): motion-guided masks at 0.9, four views of a sample, 200 epochs with 20 of warm-up.

    Differs from the authors' code in, besides what `videomae_small` says: flow comes from the codec's motion vectors or
    DIS on the CPU, theirs from RAFT-small on the GPU; frames before the base are warped in the right direction, which
    theirs are not (`backwarp` is compared with `backward`); the encoder is ViT-S, theirs ViT-B.
    """
    return replace(
        videomae_small(),
        name="mgmae-small",
        batch_size=24,
        data=paper_data(MotionGuided(ratio=0.9), views=4),
        schedule=ScheduleConfig(base_lr=1e-3, min_lr=1e-5, warmup=0.1, epochs=200),
    )


BASE = VideoAutoencoderConfig(width=768, heads=12, decoder_width=384, decoder_heads=6)
"""ViT-B, with a decoder of half its width."""


def videomae_base() -> Recipe[VideoBatch]:
    """The same as `videomae-small` with the ViT-B of the paper's main results: 94 M parameters with the decoder."""
    return replace(videomae_small(), name="videomae-base", model=BASE)


def mgmae_base() -> Recipe[VideoBatch]:
    """The same as `mgmae-small` with the paper's ViT-B."""
    return replace(mgmae_small(), name="mgmae-base", model=BASE)


def videomae2_small() -> Recipe[VideoBatch]:
    """VideoMAE V2 (Wang et al., 2023): tube masks for the encoder, running cells for the decoder, four views.

    Differs from the authors' code in, besides what `videomae_small` says: gradients are clipped at 0.02 for ViT-S too,
    which their script does for ViT-g alone; batches and epochs are those of MGMAE's code, 200 epochs of four views with
    20 of warm-up, as their ViT-B has; no list of templates of frame names and no stride of its own for SSv2.
    """
    return replace(
        mgmae_small(),
        name="videomae2-small",
        batch_size=32,
        data=paper_data(Dual(), views=4),
        optimiser=OptimiserConfig(max_grad_norm=0.02),
    )


def paper_data(mask: Mask, *, views: int = 1) -> VideoData:
    """16 of 64 frames at 224 pixels in random crops, as in all three papers."""
    return VideoData(clip=VideoClip(frames=16, stride=4, size=224), mask=mask, augment=MultiScaleCrop(), views=views)


def tiny(recipe: Recipe[VideoBatch], mask: Mask, *, steps: int = 800) -> Recipe[VideoBatch]:
    """The same masks for two CPU cores: 256 tokens of 8 frames at 64 pixels, a 1.3 M parameter model.

    Differs from the papers' recipes in: pixels as targets, since normalised ones teach so small a model nothing that
    holds on other clips; positions on the axes of time, height and width; a quarter of the tokens visible instead of a
    tenth; random crops of 15 to 100 % of the area, mirrored at random, three of ten in other colours, since there are
    so few clips that a model soon knows them.
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
    """VideoMAE's tube masks, in minutes."""
    return tiny(videomae_small(), Tube(ratio=0.75))


def mgmae_tiny() -> Recipe[VideoBatch]:
    """MGMAE's motion-guided masks, in minutes: what `make demo` trains. Half of the hidden tokens are decoded."""
    return tiny(mgmae_small(), PartDecoded(mask=MotionGuided(ratio=0.75)), steps=2000)


def videomae2_tiny() -> Recipe[VideoBatch]:
    """VideoMAE V2's dual masks, in minutes."""
    return tiny(videomae2_small(), Dual(encoder=Tube(ratio=0.75)))


def sparse_tiny() -> Recipe[VideoBatch]:
    """A tenth of the tokens, in minutes: those that tell most that the frame before does not, by their energy.

    It is `videomae-tiny` with other masks and half of its steps, and no paper's recipe: codecs send the same tokens.
    """
    return replace(tiny(videomae_small(), ByEnergy(ratio=0.9), steps=400), name="sparse-tiny")


def maest_large() -> Recipe[VideoBatch]:
    """MAE-ST (Feichtenhofer et al., 2022) of ViT-L: random masks of space and time at 0.9, targets of every other
    frame, a class token, learnt positions for time and space, four views of a sample; 100 epochs with 5 of warm-up.

    Differs from the authors' code in: the four views of a sample share their frames, theirs are drawn anew; the last of
    the target frames is the 15th of 16, theirs the 16th; pixels are normalised by ImageNet's moments, theirs by 0.45
    and 0.225; the decoder's class token and its place are one vector, theirs a sum of two; crops are
    this package's (random area and aspect, as theirs); class and mask tokens and tables of positions do not decay,
    theirs do; no bias for key, which changes no softmax; precision is chosen by the device, theirs is float32.
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
    """The same method for two CPU cores: 256 tokens of 8 frames at 64 pixels, two views, a 1.1 M parameter model."""
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
