"""The loaders of masked sounds and of noisy mixtures."""

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
    """The fields of `AudioData`, with its defaults, and the options of all loaders."""

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
    """The fields of `NoisyData`, with its defaults, and the options of all loaders."""

    noise: str | Path | None
    clip: AudioClip
    line: MicrophoneLine | None
    snr_db: tuple[float, float]
    slope: tuple[float, float]
    component: str | None
    noise_component: str | None
    fields: Fields


def audio_loader(location: str | Path, **settings: Unpack[AudioSettings]) -> Loader[AudioBatch]:
    """The loader of masked sounds of the split in the folder `location`, such as `data/shards/audioset/train`.

    settings: the fields of `AudioData` (clip, mask, features, views, ...) and the options of all loaders (`Options`:
    batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of sounds.
    """
    return AudioData.opened(location, settings)


def noisy_loader(location: str | Path, **settings: Unpack[NoisySettings]) -> Loader[NoisyBatch]:
    """The loader of noisy mixtures of the sounds of the split in the folder `location`, with their clean sounds.

    settings: the fields of `NoisyData` (noise, clip, line, snr_db, slope, fields) and the options of all loaders
    (`Options`: batch_size, seed, shuffle, workers, ...).

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if `location` or `noise` holds
    no finished split of sounds.
    """
    noise = settings.get("noise")
    return NoisyData.opened(location, {**settings, "noise": None if noise is None else str(noise)})
