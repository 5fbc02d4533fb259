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
    """MAGE (Li et al., 2023) of ViT-B on pictures of 256 pixels: 16 x 16 ids of `vq-base`, of which half are dropped
    and a share from a normal distribution (mean 0.55, deviation 0.25, within 0.5 and 1) is predicted, with labels
    smoothed by 0.1; 1,600 epochs with 40 of warm-up, 64 ranks make a batch of 4096. The quantiser is trained first; set
    model.vq to its file. MAGE-C is this with model.contrast=0.1 and data.views=2.

    Differs from the authors' code in: the quantiser is `vq-base`, theirs a VQGAN of others; the blank and the class
    token are ids of a table with K + 2 rows, theirs has 1,000 unused ones; logits are of the K ids alone, theirs of all
    rows, cut to K; one ratio for the batches of all ranks, theirs for each rank; the decoder's positions are normal
    with deviation 0.02; biases, norms and tables do not decay. Their code has no MAGE-C: it is made after the paper's
    section 3.3, its loss divided by the logarithm of the number of pictures.
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
    """The same method for two CPU cores: 8 x 8 ids of a run of `vq-tiny` in runs/vq-tiny (train it first), a 1.3 M
    parameter model whose positions are fixed.

    On 11,424 hidden ids of 224 held-out pictures of `sample-image`, counts beside the nearest visible id have a
    cross-entropy of 4.86 nats and counts of ids 5.40. The model has 4.38 (81 s of processor time, seed 0). With
    model.detached=true, as in the authors' code, it has 4.88, but what it generates is nearer to real pictures: the
    distance by colours of cells is 389,778, and 978,982 as it is.
    """
    return replace(
        mage_base(),
        name="mage-tiny",
        batch_size=32,
        data=ImageData(size=64, patch=8, mask=DropAndMask(), augment=RandomResizedCrop(scale=(0.2, 1.0), flip=0.5)),
        model=GenerativeEncoderConfig(width=128, depth=4, heads=4, decoder_depth=2, decoder_heads=4, positions="grid"),
        schedule=ScheduleConfig(base_lr=1.2e-2, min_lr=1.2e-4, warmup=0.1, steps=400),
    )
