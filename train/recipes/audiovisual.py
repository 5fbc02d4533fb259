"""Recipes of video with sound: AVSiam and DiffMAViL."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Unpack

from ...pipelines import VideoClip, audiovisual_loader
from ...pipelines.augment import Augmentation, CenterCrop, MultiScaleCrop
from ...pipelines.augment.diffusion import LinearNoise
from ...pipelines.masks import ByView, FilledStrips, Linear, Mask, MultiRatio, Padded, Random, TokenGrid
from ...pipelines.modalities.audio.spectrogram import spectrogram_grid
from ...pipelines.modalities.audiovisual.batch import AudioVisualBatch
from ...pipelines.modalities.audiovisual.spectrogram_noise import SpectrogramNoise
from ...pipelines.stream.loader import Loader
from ...shards.media.fbank import Fbank
from ..core.model import Grids
from ..core.optimiser import OptimiserConfig
from ..core.schedule import ScheduleConfig
from ..models.audiovisual_diffusion import NOISE, AudioVisualDiffusionConfig
from ..models.siamese import SiameseConfig
from .recipe import LoaderSettings, Recipe

RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Of AVSiam's matching: as many parts of a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualRecipe(Recipe):
    """What both have: clips of video and `seconds` of sound around them, and how both are cut into tokens.

    tubelet (frames) and patch (pixels), audio_patch (frames of the spectrogram, bins): the extents of tokens. augment:
    the crops. spectrogram_noise: in training, not in a report. token_budget: visible tokens of a batch, see
    `pipelines.build.LoaderOptions`.
    """

    modality: ClassVar[str] = "audiovisual"

    clip: VideoClip
    seconds: float
    video_mask: Mask
    audio_mask: Mask
    views: int = 1
    noise: LinearNoise | None = None
    tubelet: int = 2
    patch: int = 16
    audio_patch: tuple[int, int] = (16, 16)
    features: Fbank = field(default_factory=Fbank)
    augment: Augmentation = field(default_factory=MultiScaleCrop)
    spectrogram_noise: SpectrogramNoise | None = None
    token_budget: int | None = None

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        _ = self.grids

    @property
    def grids(self) -> Grids:
        """Those of the clips and of the spectrograms; ValueError where tokens do not fill them."""
        size, frames = self.clip.size, round(self.seconds * self.features.sample_rate / self.features.shift)
        return {
            "video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch),
            "audio": spectrogram_grid(frames, self.features.n_bins, self.audio_patch),
        }

    def build_loader(self, data: str | Path, **settings: Unpack[LoaderSettings]) -> Loader[AudioVisualBatch]:
        """The recipe's batches from a split's folder; rank and world size are torch.distributed's."""
        return audiovisual_loader(
            data,
            clip=self.clip,
            seconds=self.seconds,
            video_mask=self.video_mask,
            audio_mask=self.audio_mask,
            features=self.features,
            augment=self.augment,
            spectrogram_noise=self.spectrogram_noise,
            noise=self.noise,
            views=self.views,
            tubelet=self.tubelet,
            patch=self.patch,
            audio_patch=self.audio_patch,
            batch_size=self.batch_size,
            token_budget=self.token_budget,
            **settings,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SiameseRecipe(AudioVisualRecipe):
    """AVSiam. A sample has two views: the first is matched at several ratios, the second reconstructed at one."""

    model: SiameseConfig = field(default_factory=SiameseConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionRecipe(AudioVisualRecipe):
    """DiffMAViL."""

    model: AudioVisualDiffusionConfig = field(default_factory=AudioVisualDiffusionConfig)


def avsiam_base() -> SiameseRecipe:
    """AVSiam (Lin & Bertasius, 2024): ViT-B, one frame and 10.24 s of sound, five ratios for matching (strips for the
    sound), 0.75 at random for reconstruction, 25 epochs; 16 ranks of 4 make a batch of 64. The ratios are parts of the
    whole batch, where the authors' code gives each rank's four samples four of them and leaves 0.8 out. Its noise is
    added to spectrograms; its shift of them in time is not, since it takes the sound off the clip's clock.
    """
    return SiameseRecipe(
        name="avsiam-base",
        clip=VideoClip(frames=1, stride=1, size=224),
        tubelet=1,
        seconds=10.24,
        views=2,
        video_mask=Padded(
            mask=ByView(masks=(Random(ratio=MultiRatio(ratios=RATIOS, name="image")), Random(ratio=0.75)))
        ),
        audio_mask=Padded(
            mask=ByView(masks=(FilledStrips(ratio=MultiRatio(ratios=RATIOS, name="audio")), Random(ratio=0.75)))
        ),
        spectrogram_noise=SpectrogramNoise(),
        batch_size=4,
        optimiser=OptimiserConfig(betas=(0.95, 0.999), weight_decay=5e-7),
        schedule=ScheduleConfig(base_lr=8e-4, warmup=0.05, epochs=25),
    )


def avsiam_tiny() -> SiameseRecipe:
    """The same method for two CPU cores: 49 tokens of a frame at 112 pixels and 64 of 1.28 s, a model of 2.3 M
    parameters, 800 steps: what `make demo MODALITY=audiovisual` trains.

    A token of sound is all bins of 20 ms. Tokens of 16 frames x 16 bins, as the paper has them, say too little of each
    other in so short and so few sounds: on the sample set the best linear guess from the seen tokens of the same bins
    is 0.7 % better than the average token of a place, of slices it is 27 % better.
    """
    return replace(
        avsiam_base(),
        name="avsiam-tiny",
        clip=VideoClip(frames=1, stride=1, size=112),
        seconds=1.28,
        audio_patch=(2, 128),
        augment=CenterCrop(),
        batch_size=20,
        model=SiameseConfig(
            width=192, depth=4, heads=3, decoder_width=96, decoder_depth=2, decoder_heads=3, matching=0.1
        ),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=1.9e-2, min_lr=1.9e-4, warmup=0.1, steps=800),
    )


def diffmavil_base() -> DiffusionRecipe:
    """DiffMAViL (Nunez et al., 2023) at full size. Published: the method, and that the masks' ratio falls while batches
    follow it. No code was published; all sizes are this project's: encoders and tokens as those of VideoMAE's and
    Audio-MAE's ViT-B, decoders of 512 x 8, 2 fusion blocks, 8 frames at 224 pixels (784 tokens) and 10.24 s (512), a
    ratio from 0.9 to 0.8, and at most 1,040 visible tokens a rank, 8 samples first and 4 at the end.
    """
    return DiffusionRecipe(
        name="diffmavil-base",
        clip=VideoClip(frames=8, stride=4, size=224),
        seconds=10.24,
        video_mask=Random(ratio=Linear(start=0.9, end=0.8)),
        audio_mask=Random(ratio=Linear(start=0.9, end=0.8)),
        noise=NOISE,
        token_budget=1040,
        batch_size=2,
        model=AudioVisualDiffusionConfig(
            width=768, depth=12, heads=12, fusion_depth=2, decoder_width=512, decoder_depth=8, decoder_heads=16
        ),
        schedule=ScheduleConfig(base_lr=2e-4, min_lr=1e-6, warmup=0.1, epochs=20),
    )


def diffmavil_tiny() -> DiffusionRecipe:
    """DiffMAViL (Nunez et al., 2023) for two CPU cores: 196 tokens of 8 frames at 112 pixels and 64 of 1.28 s; the
    masks' ratio falls from 0.9 to 0.8 and a batch holds at most 416 visible tokens, so it shrinks from 16 samples to 8.
    """
    return DiffusionRecipe(
        name="diffmavil-tiny",
        clip=VideoClip(frames=8, stride=4, size=112),
        seconds=1.28,
        video_mask=Random(ratio=Linear(start=0.9, end=0.8)),
        audio_mask=Random(ratio=Linear(start=0.9, end=0.8)),
        noise=NOISE,
        token_budget=416,
        augment=CenterCrop(),
        batch_size=2,
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=0.128, min_lr=2.56e-3, warmup=0.1, steps=600),
    )
