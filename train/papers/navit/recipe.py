"""Recipes of packed rows at native size and aspect, after NaViT (Dehghani et al., 2023)."""

from dataclasses import replace

from maskstream.pipelines.augment import Native
from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.packed.batch import PackedBatch
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import NativeAutoencoderConfig


def native_base() -> Recipe[PackedBatch]:
    """A masked autoencoder (He et al., 2022) with ViT-B/16 over packed rows (Dehghani et al., 2023): images at their
    own size and aspect ratio, up to 1,024 patches, 75 % hidden.

    A row has 8,192 visible tokens; 8 rows on each of 8 ranks are 2,100,000 tokens a step, as many as 10,700 images of
    224 x 224 pixels.

    Differences from NaViT: masked reconstruction at one ratio, scaled by up to a tenth to fill rows (NaViT: JFT classes
    and captions, with tokens dropped at a rate that is random or depends on resolution); queries and keys rotate by
    time step, row and column, as in V-JEPA 2 (NaViT: learned row and column vectors, fractional or absolute); features
    are mean tokens (NaViT: attention pooling); rows are planned from the manifest (NaViT: filled greedily from a buffer
    and padded); sizes are the crop's (NaViT: a random resolution per image).
    """
    return Recipe(
        name="native-base",
        batch_size=8,
        data=PackedData(native=Native(patch=16, tubelet=2, most=1024), mask=Random(ratio=0.75), row_tokens=8192),
        model=NativeAutoencoderConfig(
            width=768, depth=12, heads=12, decoder_width=512, decoder_depth=8, decoder_heads=16
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.95), weight_decay=0.05, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=1e-2, warmup=0.05, epochs=800),
    )


def native_tiny() -> Recipe[PackedBatch]:
    """Scaled down to two CPU cores: patches of 8 pixels, up to 256 per image, 2.1 M parameters, 400 steps of two rows
    of 256 visible tokens.
    """
    return replace(
        native_base(),
        name="native-tiny",
        batch_size=2,
        data=PackedData(native=Native(patch=8, tubelet=2, most=256), mask=Random(ratio=0.75), row_tokens=256),
        model=NativeAutoencoderConfig(
            patch=8, width=192, depth=4, heads=3, decoder_width=96, decoder_depth=2, decoder_heads=3
        ),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=0.128, min_lr=1e-3, warmup=0.1, steps=400),
    )
