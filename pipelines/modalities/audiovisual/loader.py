"""The loader of masked clips with the sound of their time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

from ...augment import Augmentation
from ...augment.diffusion import LinearNoise
from ...augment.sound import SpecAugment
from ...flow import FlowChoice
from ...masks import Mask
from ...stream.loader import Loader
from ..audio.spectrogram import Features
from ..fields import Fields
from ..split import Options
from ..video.clip import VideoClip
from .batch import AudioVisualBatch
from .data import AudioVisualData
from .spectrogram_noise import SpectrogramNoise


class AudioVisualSettings(Options, total=False):
    """The fields of `AudioVisualData`, whose defaults they have, and the options of all loaders."""

    clip: VideoClip
    seconds: float
    video_mask: Mask | None
    audio_mask: Mask | None
    features: Features
    statistics: tuple[float, float] | None
    augment: Augmentation | None
    spec_augment: SpecAugment | None
    spectrogram_noise: SpectrogramNoise | None
    flow: FlowChoice
    noise: LinearNoise | None
    views: int
    tubelet: int
    patch: int
    audio_patch: tuple[int, int]
    component: str | None
    sound: str | None
    fields: Fields
    on_device: bool | Literal["auto"]


def audiovisual_loader(location: str | Path, **settings: Unpack[AudioVisualSettings]) -> Loader[AudioVisualBatch]:
    """A loader of masked clips with their sound from a folder of shards (one split, as `data/shards/vggsound/train`).

    settings: the fields of `AudioVisualData` (clip, seconds, video_mask, audio_mask, ...), and what all loaders take:
    batch_size, seed, shuffle, workers and the others of `Options`.

    Errors: ValueError for settings, ShardError where the location holds no finished split of videos with sound.
    """
    return AudioVisualData.opened(location, settings)
