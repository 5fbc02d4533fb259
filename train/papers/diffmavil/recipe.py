"""Recipes of DiffMAViL (Nunez et al., 2023)."""

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import Augmentation, CenterCrop, MultiScaleCrop
from maskstream.pipelines.masks import Linear, Random
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import NOISE, AudioVisualDiffusionConfig


def diffmavil_base() -> Recipe[AudioVisualBatch]:
    """DiffMAViL (Nunez et al., 2023) at full size; mask ratio and batch size fall over the run.

    The authors published no code, so sizes are this project's: encoders and tokens of VideoMAE's and Audio-MAE's ViT-B,
    decoders of 8 blocks of width 512, 2 fusion blocks, 8 frames at 224 pixels (784 tokens), 10.24 s of audio (512
    tokens), a ratio from 0.9 to 0.8, and at most 1,040 visible tokens per rank: 8 samples at first, 4 at the end.
    """
    return Recipe(
        name="diffmavil-base",
        batch_size=2,
        token_budget=1040,
        data=noisy_data(size=224, seconds=10.24, augment=MultiScaleCrop()),
        model=AudioVisualDiffusionConfig(
            width=768, depth=12, heads=12, fusion_depth=2, decoder_width=512, decoder_depth=8, decoder_heads=16
        ),
        schedule=ScheduleConfig(base_lr=2e-4, min_lr=1e-6, warmup=0.1, epochs=20),
    )


def noisy_data(*, size: int, seconds: float, augment: Augmentation) -> AudioVisualData:
    """Return the data of 8 frames and their audio; mask ratios fall from 0.9 to 0.8, and masked patches are noised.

    Args:
        size: Side of the frames in pixels.
        seconds: Length of the audio.
        augment: Crop of the frames.
    """
    falling = Linear(start=0.9, end=0.8)
    return AudioVisualData(
        clip=VideoClip(frames=8, stride=4, size=size),
        seconds=seconds,
        video_mask=Random(ratio=falling),
        audio_mask=Random(ratio=falling),
        noise=NOISE,
        augment=augment,
    )


def diffmavil_tiny() -> Recipe[AudioVisualBatch]:
    """Scaled down to two CPU cores: 196 tokens of 8 frames at 112 pixels and 64 of 1.28 s. A batch holds at most 416
    visible tokens, so it shrinks from 16 samples to 8.
    """
    return Recipe(
        name="diffmavil-tiny",
        batch_size=2,
        token_budget=416,
        data=noisy_data(size=112, seconds=1.28, augment=CenterCrop()),
        model=AudioVisualDiffusionConfig(),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=0.128, min_lr=2.56e-3, warmup=0.1, steps=600),
    )
