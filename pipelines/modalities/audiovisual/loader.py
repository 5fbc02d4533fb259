"""The loader of masked video clips with sound."""

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
    """The fields of `AudioVisualData`, with its defaults, and the options of all loaders."""

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
    """The loader of masked clips with sound of the split in a folder, such as `data/shards/vggsound/train`.

    settings: the fields of `AudioVisualData` (clip, seconds, video_mask, audio_mask, ...) and the options of all
    loaders (`Options`: batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of videos with sound.
    """
    return AudioVisualData.opened(location, settings)
