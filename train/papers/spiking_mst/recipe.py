"""Recipes of spiking networks: the Masked Spiking Transformer.

The tiny size fits `fashion-mnist`. `--set model.spikes.ratio=0.75` drops three quarters of the spikes.
"""

from dataclasses import replace

from maskstream.pipelines.augment import CenterCrop, RandomResizedCrop
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import Spikes, SpikingTransformerConfig


def spiking_mst_base() -> Recipe[ImageBatch]:
    """The Masked Spiking Transformer (Wang et al., 2023): a Swin of 96 channels, 2, 2, 6 and 2 blocks, windows of 7.

    Images of 224 pixels in patches of 4, 75 % of the spikes of queries, keys and attention maps dropped, 16 activation
    levels; 300 epochs of AdamW at a batch of 1,024 (8 ranks of 128), weight decay 0.05.

    Differences from the authors' code: a scale and shift per channel (authors: batch norms, equal in inference, and
    layer norms after the patches and before the head); windows shift along rows only; each sample always drops the same
    spikes, which differ between the time steps of a simulation (authors: redrawn); no RandAugment, mixup, CutMix,
    erasing or label smoothing; a learning rate of 1e-4 for 256 images.
    """
    return Recipe(
        name="spiking-mst-base",
        batch_size=128,
        data=ImageData(size=224, patch=4, augment=RandomResizedCrop(scale=(0.08, 1.0), flip=0.5)),
        model=SpikingTransformerConfig(dropout=DropoutConfig(path=0.2)),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05, max_grad_norm=5.0),
        schedule=ScheduleConfig(base_lr=1e-4, min_lr=1e-6, warmup=20 / 300, epochs=300),
    )


def spiking_mst_tiny() -> Recipe[ImageBatch]:
    """Scaled down to two CPU cores: 49 patches of 4 pixels in one window, two blocks of width 48, 8 levels, 1,000 steps
    of 32 images.

    No spikes are dropped unless `model.spikes.ratio` is set. Each patch has a learned position vector.
    """
    return replace(
        spiking_mst_base(),
        name="spiking-mst-tiny",
        batch_size=32,
        data=ImageData(size=28, patch=4, augment=CenterCrop()),
        model=SpikingTransformerConfig(
            width=48,
            depths=(2,),
            heads=(3,),
            mlp_ratio=4,
            levels=8,
            labels=10,
            places=True,
            spikes=Spikes(ratio=0.0),
        ),
        schedule=ScheduleConfig(base_lr=4.8e-2, min_lr=4e-4, warmup=0.1, steps=1000),
    )
