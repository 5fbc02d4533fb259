"""Recipes of MAGE (Li et al., 2023)."""

from dataclasses import replace

from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.masks import DropAndMask
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.quantiser import BASE

from .model import GenerativeEncoderConfig


def mage_base() -> Recipe[ImageBatch]:
    """MAGE (Li et al., 2023) with ViT-B on images of 256 pixels: 16 x 16 ids of `vq-base`; half are dropped, and a
    fraction from a truncated normal distribution (mean 0.55, standard deviation 0.25, within 0.5 and 1) is predicted
    with label smoothing 0.1. Train the quantiser first and set `model.vq` to its file. For MAGE-C, set
    `model.contrast=0.1` and `data.views=2`.

    1,600 epochs with 40 of warm-up, 64 ranks form a batch of 4096.

    Differences from the authors' code: the quantiser is `vq-base` (authors: a third-party VQGAN); the mask and class
    tokens are ids of a table with K + 2 rows (authors: 1,000 unused rows); logits cover the K ids only (authors: all
    rows, cut to K); one ratio for all ranks (authors: one per rank); decoder positions are normal with standard
    deviation 0.02; no weight decay on biases, norms and tables; MAGE-C follows the paper's section 3.3, with its loss
    divided by the logarithm of the number of images (authors: no code).
    """
    return Recipe(
        name="mage-base",
        batch_size=64,
        data=ImageData(size=256, patch=16, mask=DropAndMask(), augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)),
        model=GenerativeEncoderConfig(
            vq="runs/vq-base/model.safetensors",
            quantiser=BASE,
            detached=True,
            head_eps=1e-5,
            dropout=DropoutConfig(hidden=0.1, inner=0.1, attention=0.1),
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.95), weight_decay=0.05, max_grad_norm=3.0),
        schedule=ScheduleConfig(base_lr=1.5e-4, min_lr=0.0, warmup=40 / 1600, epochs=1600),
    )


def mage_tiny() -> Recipe[ImageBatch]:
    """Scaled down to two CPU cores: 8 x 8 ids of the `vq-tiny` run in runs/vq-tiny, 1.3 M parameters, fixed positions.

    Evaluated on 11,424 hidden ids of 224 validation images; id counts have 5.40. With `model.detached=true`, as in the
    authors' code, the loss is 4.88, but generated images are closer to real ones: a colour distance of 389,778 instead
    of 978,982.
    """
    return replace(
        mage_base(),
        name="mage-tiny",
        batch_size=32,
        data=ImageData(size=64, patch=8, mask=DropAndMask(), augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)),
        model=GenerativeEncoderConfig(width=128, depth=4, heads=4, decoder_depth=2, decoder_heads=4, positions="grid"),
        schedule=ScheduleConfig(base_lr=1.2e-2, min_lr=1.2e-4, warmup=0.1, steps=400),
    )
