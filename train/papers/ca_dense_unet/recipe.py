"""Recipes of enhancement: from noisy audio of several microphones to clean audio."""

from maskstream.pipelines import AudioClip
from maskstream.pipelines.modalities.audio.batch import NoisyBatch
from maskstream.pipelines.modalities.audio.data import NoisyData
from maskstream.pipelines.modalities.audio.rows import MicrophoneLine
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import DenseUNetConfig


def ca_dense_unet_tiny() -> Recipe[NoisyBatch]:
    """Channel-Attention Dense U-Net (Tolooshams et al., 2020) for two CPU cores: four microphones, 1.024 s, random
    noise between white and brown at -5 to 10 dB.

    Differences from the one reproduction (the authors published no code): the mask is applied as a complex factor
    (reproduction: separately to real and imaginary parts); the loss is relative to the loss of the mixture; noise is
    mixed in by the loader (reproduction: recorded).

    It is evaluated on 62 validation clips.
    """
    return Recipe(
        name="ca-dense-unet-tiny",
        batch_size=4,
        data=NoisyData(clip=AudioClip(seconds=1.024, short="repeat"), line=MicrophoneLine()),
        model=DenseUNetConfig(width=8, growth=8, layers=2),
        optimiser=OptimiserConfig(betas=(0.9, 0.99), weight_decay=1e-4, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=0.128, min_lr=1.28e-3, warmup=0.05, steps=400),
    )
