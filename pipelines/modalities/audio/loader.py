"""The loader of masked sounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

from ....shards.media.fbank import STATISTICS, Fbank, fbank_statistics
from ...augment.sound import Mixup, RollGain, SpecAugment
from ...masks import Mask
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..backend import Backend, dali_serves
from ..split import Options, Split, split_of
from .batch import AudioBatch
from .clip import AudioClip
from .data import AudioData
from .finish import Spectrograms
from .log_mel import LogMel
from .reader import sound_of
from .sample import AudioSampler, SoundDraft, SoundRequest
from .spectrogram import Features, Spectrogram, spectrogram_grid

AudioSource = Source[SoundRequest, SoundDraft, AudioBatch, AudioBatch]


def audio_loader(
    location: str | Path,
    *,
    clip: AudioClip | None = None,
    mask: Mask | None = None,
    features: Features | None = None,
    statistics: tuple[float, float] | None = None,
    backend: Backend = "auto",
    on_device: bool | Literal["auto"] = "auto",
    roll_gain: RollGain | None = None,
    spec_augment: SpecAugment | None = None,
    mixup: Mixup | None = None,
    patch: tuple[int, int] = (16, 16),
    views: int = 1,
    component: str | None = None,
    **options: Unpack[Options],
) -> Loader[AudioBatch]:
    """A loader of masked sounds from a folder of shards (one split, such as `data/shards/audioset/train`).

    clip: by default 10.24 s of mono at 16 kHz, 1,024 frames. features: Kaldi's filterbank of 128 bins (`Fbank`) or
    `LogMel`; statistics: their mean and deviation, by default what dataset.json says of the default filterbank, and to
    be given for others. patch: frames and bins of a token; the grid has the axes (time, freq). on_device: spectrograms
    are made of whole batches on their device; "auto" does so on CUDA. backend: who makes those; "auto" is a DALI graph
    for `LogMel` on CUDA where DALI is installed and there are no worker processes, else torch ("cpu"). roll_gain,
    spec_augment, mixup: see `augment/sound.py`, none by default. With `views=k` each sound is decoded once and gives k
    views. component: the sound that is read where a sample has several; by default the only one. options: batch_size,
    seed, shuffle, workers and what else all loaders take (`Options`).

    Errors: ValueError for settings, ShardError where the location holds no finished split of sounds.
    """
    split, loading = split_of(location, "audio", options)
    sampler = audio_sampler(
        split,
        clip=clip,
        mask=mask,
        features=features,
        statistics=statistics,
        on_device=on_device,
        roll_gain=roll_gain,
        spec_augment=spec_augment,
        mixup=mixup,
        patch=patch,
        views=views,
        component=component,
    )
    source = audio_source(split, sampler)
    suits = sampler.on_device and isinstance(sampler.spectrogram.features, LogMel)
    if dali_serves(backend, split.device, split.workers, suits=suits):
        from .dali import on_dali

        source = on_dali(source, sampler, split.threads)
    return Loader(source, **loading)


def audio_sampler(
    split: Split,
    *,
    clip: AudioClip | None = None,
    mask: Mask | None = None,
    features: Features | None = None,
    statistics: tuple[float, float] | None = None,
    on_device: bool | Literal["auto"] = "auto",
    roll_gain: RollGain | None = None,
    spec_augment: SpecAugment | None = None,
    mixup: Mixup | None = None,
    patch: tuple[int, int] = (16, 16),
    views: int = 1,
    component: str | None = None,
) -> AudioSampler:
    """What makes masked sounds of a split; the settings are those of `audio_loader`."""
    clip, features = clip or AudioClip(), features or Fbank()
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    if features.sample_rate != clip.sample_rate:
        raise ValueError(f"the clip is at {clip.sample_rate} Hz and features at {features.sample_rate}; use one rate")
    frames = round(clip.seconds * features.sample_rate / features.shift)
    grid = spectrogram_grid(frames, features.n_bins, patch)
    if not split.shuffle and clip.start == "random":
        clip = replace(clip, start="center")
    mean, deviation = statistics or statistics_of(split, features)
    return AudioSampler(
        manifest=split.manifest,
        clip=clip,
        spectrogram=Spectrogram(features=features, frames=frames, mean=mean, deviation=deviation),
        grid=grid,
        mask_of=mask,
        roll_gain=roll_gain,
        spec_augment=spec_augment,
        mixup=mixup,
        seed=split.seed,
        views=views,
        on_device=split.device.type == "cuda" if on_device == "auto" else on_device,
        component=sound_of(split.manifest, component),
    )


def chosen(sampler: AudioSampler) -> AudioData:
    """What decides the batches, with all that was left to choose chosen: what a resume compares."""
    spectrogram, (frames, bins) = sampler.spectrogram, sampler.grid.patch
    return AudioData(
        clip=sampler.clip,
        mask=sampler.mask_of,
        features=spectrogram.features,
        statistics=(spectrogram.mean, spectrogram.deviation),
        roll_gain=sampler.roll_gain,
        spec_augment=sampler.spec_augment,
        mixup=sampler.mixup,
        patch=(frames, bins),
        views=sampler.views,
        component=sampler.component,
    )


def audio_source(split: Split, sampler: AudioSampler) -> AudioSource:
    """The sounds of a split as a source, which a loader or a mixture goes through."""
    return Source(
        sampler=sampler,
        finish=Spectrograms(sampler.spectrogram) if sampler.on_device else Unchanged(),
        samples=split.samples,
        identity={"data": chosen(sampler).to_dict(identity=True), "dataset": split.manifest.fingerprint},
        visible=visible_tokens((sampler.mask_of, sampler.grid)),
        form={
            "clip.seconds": sampler.clip.seconds,
            "clip.channels": sampler.clip.channels,
            "features": sampler.spectrogram.features,
            "token grid": sampler.grid,
            "views": sampler.views,
            "mask": sampler.mask_of,
            "mixup": "yes" if sampler.mixup else "no",
            "spec_augment": "yes" if sampler.spec_augment else "no",
            "on_device": sampler.on_device,
        },
    )


def statistics_of(split: Split, features: Features) -> tuple[float, float]:
    """Mean and deviation that dataset.json says of the features; ValueError where it says nothing of such."""
    if features != STATISTICS:
        raise ValueError(
            f"dataset.json knows the statistics of {STATISTICS}, not of {features}; give statistics=(mean, deviation)"
        )
    return fbank_statistics(split.manifest.info.get("sums", {}))
