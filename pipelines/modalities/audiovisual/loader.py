"""The loader of masked clips with the sound of their time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Unpack

import torch

from ....shards.format.manifest import component_of
from ....shards.media.fbank import Fbank
from ...augment import Augmentation, CenterCrop, MultiScaleCrop
from ...augment.diffusion import LinearNoise
from ...augment.sound import SpecAugment
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..audio.clip import AudioClip
from ..audio.data import statistics_of
from ..audio.reader import sound_of
from ..audio.sample import AudioSampler
from ..audio.spectrogram import Features, Spectrogram, spectrogram_grid
from ..split import Options, Split, split_of
from ..video.clip import VideoClip, aligned
from ..video.flow import flow_source
from .batch import AudioVisualBatch
from .data import AudioVisualData
from .sample import AudioVisualDraft, AudioVisualRequest, AudioVisualSampler, HeardVideoSampler
from .spectrogram_noise import SpectrogramNoise

AudioVisualSource = Source[AudioVisualRequest, AudioVisualDraft, AudioVisualBatch, AudioVisualBatch]


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
    **options: Unpack[Options],
) -> Loader[AudioVisualBatch]:
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
    split, loading = split_of(location, "audiovisual", options)
    sampler = audiovisual_sampler(
        split,
        clip=clip,
        seconds=seconds,
        video_mask=video_mask,
        audio_mask=audio_mask,
        features=features,
        statistics=statistics,
        on_device=on_device,
        augment=augment,
        spec_augment=spec_augment,
        spectrogram_noise=spectrogram_noise,
        flow=flow,
        noise=noise,
        views=views,
        tubelet=tubelet,
        patch=patch,
        audio_patch=audio_patch,
        component=component,
        sound=sound,
    )
    return Loader(audiovisual_source(split, sampler), **loading)


def audiovisual_sampler(
    split: Split,
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
) -> AudioVisualSampler:
    """What makes masked clips with their sound of a split; the settings are those of `audiovisual_loader`."""
    clip, features = clip or VideoClip(), features or Fbank()
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    if spectrogram_noise is not None and on_device is True:
        raise ValueError("spectrogram_noise is added to samples; leave out on_device=True, or the noise")
    frames = round(seconds * features.sample_rate / features.shift)
    heard = sound_of(split.manifest, sound)
    profile = split.manifest.info["profile"]
    clip = aligned(clip, profile)
    video = HeardVideoSampler(
        manifest=split.manifest,
        clip=clip,
        grid=TokenGrid.video(clip.frames, clip.size, clip.size, tubelet=tubelet, patch=patch),
        augment=augment or (MultiScaleCrop() if split.shuffle else CenterCrop()),
        mask_of=video_mask,
        flow=flow_source(flow, video_mask, clip, profile),
        seed=split.seed,
        views=views,
        component=component_of(split.manifest.components, ("video",), component).name,
        sound=heard,
    )
    mean, deviation = statistics or statistics_of(split, features)
    audio = AudioSampler(
        manifest=split.manifest,
        clip=AudioClip(seconds=seconds, sample_rate=features.sample_rate),
        spectrogram=Spectrogram(features=features, frames=frames, mean=mean, deviation=deviation),
        grid=spectrogram_grid(frames, features.n_bins, audio_patch),
        mask_of=audio_mask,
        roll_gain=None,
        spec_augment=spec_augment,
        mixup=None,
        seed=split.seed,
        views=views,
        on_device=split.device.type == "cuda" and spectrogram_noise is None if on_device == "auto" else on_device,
        part="audio",
        component=heard,
    )
    return AudioVisualSampler(video=video, audio=audio, noise=noise, spectrogram_noise=spectrogram_noise)


def chosen(sampler: AudioVisualSampler) -> AudioVisualData:
    """What decides the batches, with all that was left to choose chosen: what a resume compares."""
    video, audio = sampler.video, sampler.audio
    (tubelet, patch, _), (frames, bins) = video.grid.patch, audio.grid.patch
    return AudioVisualData(
        clip=video.clip,
        seconds=audio.clip.seconds,
        video_mask=video.mask_of,
        audio_mask=audio.mask_of,
        features=audio.spectrogram.features,
        statistics=(audio.spectrogram.mean, audio.spectrogram.deviation),
        augment=video.augment,
        spec_augment=audio.spec_augment,
        spectrogram_noise=sampler.spectrogram_noise,
        flow=video.flow or "none",
        noise=sampler.noise,
        views=video.views,
        component=video.component,
        sound=audio.component,
        tubelet=tubelet,
        patch=patch,
        audio_patch=(frames, bins),
    )


def audiovisual_source(split: Split, sampler: AudioVisualSampler) -> AudioVisualSource:
    """The clips of a split with their sound as a source, which a loader or a mixture goes through."""
    video, audio = sampler.video, sampler.audio
    return Source(
        sampler=sampler,
        finish=HeardSpectrograms(audio.spectrogram) if audio.on_device else Unchanged(),
        samples=split.samples,
        identity={"data": chosen(sampler).to_dict(identity=True), "dataset": split.manifest.fingerprint},
        visible=visible_tokens((video.mask_of, video.grid), (audio.mask_of, audio.grid)),
        form={
            "clip.frames": video.clip.frames,
            "clip.size": video.clip.size,
            "video grid": video.grid,
            "video mask": video.mask_of,
            "flow": "yes" if video.flow else "no",
            "seconds": audio.clip.seconds,
            "features": audio.spectrogram.features,
            "audio grid": audio.grid,
            "audio mask": audio.mask_of,
            "views": video.views,
            "noise": sampler.noise,
            "spec_augment": "yes" if audio.spec_augment else "no",
            "on_device": audio.on_device,
        },
    )


@dataclass(frozen=True, slots=True)
class HeardSpectrograms:
    """Makes the spectrograms of a batch where it is."""

    of: Spectrogram

    def __call__(self, batch: AudioVisualBatch, device: torch.device) -> AudioVisualBatch:
        """The batch with its spectrograms."""
        return replace(batch, spectrogram=self.of(batch.waveform.mean(dim=1), batch.length, batch.strips))
