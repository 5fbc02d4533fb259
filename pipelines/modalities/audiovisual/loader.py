"""The loader of masked clips with the sound of their time."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import numpy.typing as npt

from ....shards.format.manifest import component_of
from ....shards.media.fbank import Fbank
from ...augment import Augmentation, CenterCrop, MultiScaleCrop
from ...augment.diffusion import LinearNoise
from ...augment.sound import SpecAugment
from ...masks import Draw, Mask, TokenGrid
from ...stream.build import Build, LoaderOptions
from ...stream.loader import Loader
from ..audio.clip import AudioClip
from ..audio.loader import spectrogram_grid, statistics_of
from ..audio.reader import sound_of
from ..audio.sample import AudioSampler
from ..audio.spectrogram import Features, Spectrogram
from ..video.clip import VideoClip
from ..video.loader import aligned, flow_source
from .batch import AudioVisualBatch
from .sample import AudioVisualSampler, HeardVideoSampler
from .spectrogram_noise import SpectrogramNoise


class AudioVisualLoader(Loader[AudioVisualBatch]):
    """A `Loader` of AudioVisualBatch: the token grids of its masks, its clip, and what makes its spectrograms.

    on_device: they are made of whole batches where those are, not of samples where they are decoded.
    """

    video_grid: TokenGrid
    audio_grid: TokenGrid
    clip: VideoClip
    spectrogram: Spectrogram
    on_device: bool = False

    def _iterate(self, *, endless: bool) -> Generator[AudioVisualBatch]:
        for batch in super()._iterate(endless=endless):
            if self.on_device:
                made = self.spectrogram(batch.waveform.mean(dim=1), batch.length, batch.strips)
                batch = replace(batch, spectrogram=made)
            yield batch


def audiovisual_loader(
    location: str | Path,
    *,
    clip: VideoClip | None = None,
    seconds: float = 10.24,
    video_mask: Mask | None = None,
    audio_mask: Mask | None = None,
    features: Features | None = None,
    statistics: tuple[float, float] | None = None,
    on_device: bool | Literal["auto"] = "auto",
    augment: Augmentation | None = None,
    spec_augment: SpecAugment | None = None,
    spectrogram_noise: SpectrogramNoise | None = None,
    flow: Literal["auto", "codec", "dis", "none"] = "auto",
    noise: LinearNoise | None = None,
    views: int = 1,
    tubelet: int = 2,
    patch: int = 16,
    audio_patch: tuple[int, int] = (16, 16),
    component: str | None = None,
    sound: str | None = None,
    **options: Unpack[LoaderOptions],
) -> AudioVisualLoader:
    """A loader of masked clips with their sound from a folder of shards (one split, as `data/shards/vggsound/train`).

    clip, augment, flow, views, tubelet, patch: as in `video_loader`. seconds: of sound, mono, around the middle of each
    clip; where it would begin before the sound or end after it, it is moved to lie inside, and a sound that is shorter
    is filled up with zeros behind. So sound covers its clip, and batch.audio_start_s says when it begins; nothing is
    shifted, unless `SpectrogramNoise(roll=)` is asked to. Clips are drawn where there is sound. features, statistics,
    on_device, spec_augment: as in `audio_loader`, at the features' rate; audio_patch is its patch. spectrogram_noise:
    AVSiam's augmentation of spectrograms, which are then made of samples, not on the device.

    component, sound: the video and the sound that are read where a sample has several; by default the only ones.

    video_mask is drawn on the axes (t, h, w) and audio_mask on (time, freq), independently of each other. noise: noise
    of a diffusion for the targets of both (see AudioVisualBatch). A token budget counts the visible tokens of both.

    Errors: ValueError for settings, ShardError where the location holds no finished split of videos with sound.
    """
    clip, features = clip or VideoClip(), features or Fbank()
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    if spectrogram_noise is not None and on_device is True:
        raise ValueError("spectrogram_noise is added to samples; leave out on_device=True, or the noise")
    sound_clip = AudioClip(seconds=seconds, sample_rate=features.sample_rate)
    frames = round(seconds * features.sample_rate / features.shift)
    audio_grid = spectrogram_grid(frames, features.n_bins, audio_patch)
    build = Build.of(location, "audiovisual", options)
    profile = build.manifest.info["profile"]
    heard = sound_of(build.manifest, sound)
    clip = aligned(clip, profile)
    video = HeardVideoSampler(
        manifest=build.manifest,
        clip=clip,
        grid=TokenGrid.video(clip.frames, clip.size, clip.size, tubelet=tubelet, patch=patch),
        augment=augment or (MultiScaleCrop() if build.shuffle else CenterCrop()),
        mask=video_mask,
        flow=flow_source(flow, video_mask, clip, profile),
        seed=build.seed,
        views=views,
        component=component_of(build.manifest.components, ("video",), component).name,
        sound=heard,
    )
    mean, deviation = statistics or statistics_of(build, features)
    spectrogram = Spectrogram(features=features, frames=frames, mean=mean, deviation=deviation)
    audio = AudioSampler(
        manifest=build.manifest,
        clip=sound_clip,
        spectrogram=spectrogram,
        grid=audio_grid,
        mask=audio_mask,
        roll_gain=None,
        spec_augment=spec_augment,
        mixup=None,
        seed=build.seed,
        views=views,
        on_device=build.device.type == "cuda" and spectrogram_noise is None if on_device == "auto" else on_device,
        part="audio",
        component=heard,
    )
    both = BothMasks(video=video_mask, audio=audio_mask, video_grid=video.grid, audio_grid=audio_grid)
    sampler = AudioVisualSampler(video=video, audio=audio, noise=noise, spectrogram_noise=spectrogram_noise)
    loader = build.loader(AudioVisualLoader, sampler, mask=both, grid=both.grid)
    loader.video_grid, loader.audio_grid, loader.clip = video.grid, audio_grid, clip
    loader.spectrogram, loader.on_device = spectrogram, audio.on_device
    return loader


@dataclass(frozen=True, kw_only=True, slots=True)
class BothMasks(Mask):
    """The masks of a clip and of its sound as one over the tokens of both, video first: what a token budget counts."""

    video: Mask | None
    audio: Mask | None
    video_grid: TokenGrid
    audio_grid: TokenGrid

    @property
    def grid(self) -> TokenGrid:
        """All tokens in a row."""
        return TokenGrid(axes=("token",), shape=(self.video_grid.size + self.audio_grid.size,), patch=(1,))

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        parts = ((self.video, self.video_grid), (self.audio, self.audio_grid))
        return np.concatenate(
            [np.zeros(own.size, dtype=np.bool_) if mask is None else mask.hide(own, draw) for mask, own in parts]
        )
