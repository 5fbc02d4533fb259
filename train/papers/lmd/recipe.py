"""Recipes of LMD (Ma et al., 2023)."""

from dataclasses import replace

from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.masks import Random, SquaredCosine
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.quantiser import BASE, QuantiserConfig

from .model import LatentAutoencoderConfig


def lmd_base() -> Recipe[ImageBatch]:
    """LMD (Ma et al., 2023) on images of 224 pixels: 28 x 28 latents of 4 channels in 49 patches; the mask ratio rises
    along a squared cosine from 0.15 to 0.75 over two thirds of the run. Encoder and decoder are MAE's ViT-B. Train the
    latents first: `maskstream train vq-base --set data.patch=8 --set model.quantiser.widths=[128,256,512,512] --out
    runs/vq-f8`.

    800 epochs, batches of 64.

    `mask.ratio` sets the schedule: `masks.Piecewise()` is the paper's second one, and 0.75 is MAE's fixed ratio. Their
    third is not in published code.

    Differences from the authors' code: latents come from a quantiser trained here, without rounding (authors: the mode
    of Stable Diffusion's KL autoencoder); the decoder does not subtract its position embeddings from its
    output; AdamW (authors: optionally Adan); no key bias (equal softmax); no weight decay on mask tokens.
    """
    return Recipe(
        name="lmd-base",
        batch_size=64,
        data=ImageData(
            size=224,
            patch=32,
            mask=Random(ratio=SquaredCosine()),
            augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5),
        ),
        model=LatentAutoencoderConfig(
            vq="runs/vq-f8/model.safetensors",
            quantiser=QuantiserConfig(levels=BASE.levels, stem=1, widths=(128, 256, 512, 512), rounds=2),
            width=768,
            depth=12,
            heads=12,
            decoder_width=512,
            decoder_depth=8,
            decoder_heads=16,
            class_token=True,
            bridge_bias=True,
            positions="columns",
        ),
        schedule=ScheduleConfig(base_lr=3e-4, min_lr=0.0, warmup=0.05, epochs=800),
    )


def lmd_tiny() -> Recipe[ImageBatch]:
    """Scaled down to two CPU cores: 12 x 12 latents of the `vq-tiny` run in runs/vq-tiny in 36 patches, 1.0 M
    parameters.

    Evaluated on 224 validation images at a ratio of 0.75; the mean patch has 0.937.
    """
    return replace(
        lmd_base(),
        name="lmd-tiny",
        batch_size=32,
        data=ImageData(
            size=96,
            patch=16,
            mask=Random(ratio=SquaredCosine()),
            augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5),
        ),
        model=LatentAutoencoderConfig(width=128, depth=4, heads=4, decoder_width=96, decoder_depth=2, decoder_heads=3),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=8e-3, min_lr=8e-5, warmup=0.1, steps=400),
    )
