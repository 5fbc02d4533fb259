"""Recipes of CropMAE (Eymael et al., 2024) and of SiamMAE (Gupta et al., 2023), which has frames of clips instead."""

from dataclasses import replace

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import NestedCrop, RandomResizedCrop
from maskstream.pipelines.masks import Random, Tube
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import CropPairConfig, FramePairConfig

DROPOUT = DropoutConfig(hidden=0.1, inner=0.1, attention=0.1, only=("decoder",))


def cropmae_small() -> Recipe[ImageBatch]:
    """CropMAE (Eymael et al., 2024) with ViT-S/16 on images: a crop and a crop of that crop with 2 of 196 visible
    patches; a decoder of 4 blocks of width 256.

    400 epochs with 5 % warm-up, 16 ranks form a batch of 2048.

    Differences from the authors' code: crops are redrawn up to 10 times until they fit (authors: once, clipped to the
    image); the second crop is cut from the source (authors: from the 224-pixel crop); no key bias (equal softmax); no
    weight decay on class and mask tokens; Xavier-uniform weights, separately for the query and for key and value
    (authors: as one matrix).
    """
    return Recipe(
        name="cropmae-small",
        batch_size=128,
        data=ImageData(size=224, patch=16, mask=Random(ratio=0.985), augment=NestedCrop(), views=2),
        model=CropPairConfig(dropout=DROPOUT),
        optimiser=OptimiserConfig(betas=(0.9, 0.95), weight_decay=0.05),
        schedule=ScheduleConfig(base_lr=1e-4, min_lr=0.0, warmup=0.05, epochs=400),
    )


def cropmae_tiny() -> Recipe[ImageBatch]:
    """Scaled down to two CPU cores: 64 patches of 8 pixels, 2 visible, 1.1 M parameters.

    Evaluated on 256 of 517 validation tiles of Wesnoth's terrain; the mean patch has 0.995.
    """
    return replace(
        cropmae_small(),
        name="cropmae-tiny",
        batch_size=32,
        data=ImageData(size=64, patch=8, mask=Random(ratio=0.96), augment=NestedCrop(), views=2),
        model=CropPairConfig(
            width=128,
            depth=4,
            heads=4,
            decoder_width=96,
            decoder_depth=2,
            decoder_heads=3,
            decoder_mlp_ratio=4,
            norm="pre",
            positions="grid",
            key_places=True,
        ),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=8e-3, min_lr=8e-5, warmup=0.1, steps=600),
    )


def siammae_small() -> Recipe[VideoBatch]:
    """SiamMAE (Gupta et al., 2023) with ViT-S/16, CropMAE's baseline: two frames of a video with the same crop, 95 % of
    the second frame hidden (187 of 196 patches).

    400 epochs with 5 % warm-up, 16 ranks form a batch of 2048.

    Differences from CropMAE's version of it (SiamMAE's authors published no code): the second frame is 24 after the
    first (authors: 4 to 47, at random); initial weights as in `cropmae-small`; no key bias (equal softmax); no weight
    decay on class and mask tokens.
    """
    return Recipe(
        name="siammae-small",
        batch_size=128,
        data=VideoData(
            clip=VideoClip(frames=2, stride=24, size=224),
            tubelet=1,
            mask=Tube(ratio=0.955),
            augment=RandomResizedCrop(scale=(0.5, 1.0), flip=0.5),
        ),
        model=FramePairConfig(dropout=DROPOUT),
        optimiser=OptimiserConfig(betas=(0.9, 0.95), weight_decay=0.05),
        schedule=ScheduleConfig(base_lr=1e-4, min_lr=0.0, warmup=0.05, epochs=400),
    )


def siammae_tiny() -> Recipe[VideoBatch]:
    """Scaled down to two CPU cores: frames of 64 patches of 8 pixels, 1.1 M parameters, four views.

    On 25 moments of 5 validation clips of `sample` the loss is 37 % below the mean patch (0.995) but only 1 % below the
    copy: after 0.8 s, much of these clips has not moved. With `model.norm=post`, as in CropMAE's code, it is 0.635.
    """
    return replace(
        siammae_small(),
        name="siammae-tiny",
        batch_size=8,
        data=VideoData(
            clip=VideoClip(frames=2, stride=24, size=64),
            tubelet=1,
            patch=8,
            mask=Tube(ratio=0.95),
            augment=RandomResizedCrop(scale=(0.15, 1.0), flip=0.5),
            views=4,
        ),
        model=FramePairConfig(
            width=128,
            depth=4,
            heads=4,
            decoder_width=96,
            decoder_depth=2,
            decoder_heads=3,
            decoder_mlp_ratio=4,
            norm="pre",
            positions="grid",
            key_places=True,
        ),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=3.2e-4, warmup=0.1, steps=600),
    )
