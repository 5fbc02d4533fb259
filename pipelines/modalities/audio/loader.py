"""The loaders of masked sounds and of noisy ones."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from ...augment.sound import Mixup, RollGain, SpecAugment
from ...masks import Mask
from ...stream.loader import Loader
from ..backend import Backend
from ..fields import Fields
from ..split import Options
from .batch import AudioBatch, NoisyBatch
from .clip import AudioClip
from .data import AudioData, NoisyData
from .microphones import MicrophoneLine
from .spectrogram import Features


class AudioSettings(Options, total=False):
    """The fields of `AudioData`, whose defaults they have, and the options of all loaders."""

    clip: AudioClip
    mask: Mask | None
    features: Features
    statistics: tuple[float, float] | None
    roll_gain: RollGain | None
    spec_augment: SpecAugment | None
    mixup: Mixup | None
    patch: tuple[int, int]
    views: int
    component: str | None
    fields: Fields
    on_device: bool | Literal["auto"]
    backend: Backend


class NoisySettings(Options, total=False):
    """The fields of `NoisyData`, whose defaults they have, and the options of all loaders."""

    noise: str | Path | None
    clip: AudioClip
    line: MicrophoneLine | None
    snr_db: tuple[float, float]
    slope: tuple[float, float]
    component: str | None
    noise_component: str | None
    fields: Fields


def audio_loader(location: str | Path, **settings: Unpack[AudioSettings]) -> Loader[AudioBatch]:
    """A loader of masked sounds from a folder of shards (one split, such as `data/shards/audioset/train`).

    settings: the fields of `AudioData` (clip, mask, features, views, ...), and what all loaders take: batch_size, seed,
    shuffle, workers and the others of `Options`.

    Errors: ValueError for settings, ShardError where the location holds no finished split of sounds.
    """
    return AudioData.opened(location, settings)


def noisy_loader(location: str | Path, **settings: Unpack[NoisySettings]) -> Loader[NoisyBatch]:
    """A loader of noisy sounds and their clean originals, from the split at `location`.

    settings: the fields of `NoisyData` (noise, clip, line, snr_db, slope, fields), and what all loaders take:
    batch_size, seed, shuffle, workers and the others of `Options`.

    Errors: ValueError for settings, ShardError where a location holds no finished split of sounds.
    """
    noise = settings.get("noise")
    return NoisyData.opened(location, {**settings, "noise": None if noise is None else str(noise)})
