"""The loader of masked sounds."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

from ....shards.media.fbank import STATISTICS, Fbank, fbank_statistics
from ...augment.sound import Mixup, RollGain, SpecAugment
from ...masks import Mask, TokenGrid
from ...stream.build import Build, LoaderOptions
from ...stream.loader import Loader
from ..backend import choose_sound_backend
from .batch import AudioBatch
from .clip import AudioClip
from .reader import sound_of
from .sample import AudioSampler, mono
from .spectrogram import Features, Spectrogram


class AudioLoader(Loader[AudioBatch]):
    """A `Loader` of AudioBatch: `grid` is the token grid of its masks, `spectrogram` what makes the spectrograms.

    on_device: the loader makes them of whole batches where those are, by torch; else they come with the batch.
    """

    grid: TokenGrid
    clip: AudioClip
    spectrogram: Spectrogram
    on_device: bool = False

    def _iterate(self, *, endless: bool) -> Generator[AudioBatch]:
        for batch in super()._iterate(endless=endless):
            if self.on_device:
                made = self.spectrogram(mono(batch.waveform), batch.length, batch.strips)
                batch = replace(batch, spectrogram=made)
            yield batch


def audio_loader(
    location: str | Path,
    *,
    clip: AudioClip | None = None,
    mask: Mask | None = None,
    features: Features | None = None,
    statistics: tuple[float, float] | None = None,
    backend: Literal["auto", "cpu", "dali"] = "auto",
    on_device: bool | Literal["auto"] = "auto",
    roll_gain: RollGain | None = None,
    spec_augment: SpecAugment | None = None,
    mixup: Mixup | None = None,
    patch: tuple[int, int] = (16, 16),
    views: int = 1,
    component: str | None = None,
    **options: Unpack[LoaderOptions],
) -> AudioLoader:
    """A loader of masked sounds from a folder of shards (one split, such as `data/shards/audioset/train`).

    clip: by default 10.24 s of mono at 16 kHz, 1,024 frames. features: Kaldi's filterbank of 128 bins (`Fbank`) or
    `LogMel`; statistics: their mean and deviation, by default what dataset.json says of the default filterbank, and to
    be given for others. patch: frames and bins of a token; the grid has the axes (time, freq). on_device: spectrograms
    are made of whole batches on their device; "auto" does so on CUDA. backend: who makes those; "auto" is a DALI graph
    for `LogMel` on CUDA where DALI is installed and there are no worker processes, else torch ("cpu"). roll_gain,
    spec_augment, mixup: see `augment/sound.py`, none by default. With `views=k` each sound is decoded once and gives k
    views. component: the sound that is read where a sample has several; by default the only one.
    options: batch_size, seed, shuffle, workers and what else all loaders take (`build.LoaderOptions`).

    Errors: ValueError for settings, ShardError where the location holds no finished split of sounds.
    """
    clip, features = clip or AudioClip(), features or Fbank()
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    if features.sample_rate != clip.sample_rate:
        raise ValueError(f"the clip is at {clip.sample_rate} Hz and features at {features.sample_rate}; use one rate")
    frames = round(clip.seconds * features.sample_rate / features.shift)
    grid = spectrogram_grid(frames, features.n_bins, patch)
    build = Build.of(location, "audio", options)
    if not build.shuffle and clip.start == "random":
        clip = replace(clip, start="center")
    mean, deviation = statistics or statistics_of(build, features)
    spectrogram = Spectrogram(features=features, frames=frames, mean=mean, deviation=deviation)
    sampler = AudioSampler(
        manifest=build.manifest,
        clip=clip,
        spectrogram=spectrogram,
        grid=grid,
        mask=mask,
        roll_gain=roll_gain,
        spec_augment=spec_augment,
        mixup=mixup,
        seed=build.seed,
        views=views,
        on_device=build.device.type == "cuda" if on_device == "auto" else on_device,
        component=sound_of(build.manifest, component),
    )
    made_by = choose_sound_backend(backend, sampler, build.device, build.threads, build.workers)
    loader = build.loader(AudioLoader, made_by, mask=mask, grid=grid)
    loader.grid, loader.clip, loader.spectrogram = grid, clip, spectrogram
    loader.on_device = made_by is sampler and sampler.on_device
    return loader


def spectrogram_grid(frames: int, bins: int, patch: tuple[int, int]) -> TokenGrid:
    """The (time, freq) grid of a spectrogram in tokens of `patch` frames and bins; ValueError where they do not fit."""
    if min(patch) < 1 or frames < patch[0] or frames % patch[0] or bins % patch[1] or bins < patch[1]:
        raise ValueError(
            f"a spectrogram of {frames} frames and {bins} bins does not divide into tokens of {patch[0]} x {patch[1]}; "
            "change the clip's seconds, the features' n_bins or patch"
        )
    return TokenGrid(axes=("time", "freq"), shape=(frames // patch[0], bins // patch[1]), patch=patch)


def statistics_of(build: Build, features: Features) -> tuple[float, float]:
    """Mean and deviation that dataset.json says of the features; ValueError where it says nothing of such."""
    if features != STATISTICS:
        raise ValueError(
            f"dataset.json knows the statistics of {STATISTICS}, not of {features}; give statistics=(mean, deviation)"
        )
    return fbank_statistics(build.manifest.info.get("sums", {}))
