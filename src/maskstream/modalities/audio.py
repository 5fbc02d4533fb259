"""Sounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..modality import Demo, Modality
from ..pages.figures.audio import AudioFigures, NoisyFigures
from ..pages.figures.card import label_names
from ..pages.report.works.audio import show_enhanced, show_spectrograms
from ..pipelines.modalities.audio.clip import AudioClip
from ..pipelines.modalities.audio.data import AudioData, NoisyData
from ..pipelines.modalities.audio.librosa_feature import Librosa
from ..pipelines.modalities.audio.log_mel import LogMel
from ..pipelines.modalities.audio.spectrogram import Features, Spectrogram, spectrogram_grid
from ..pipelines.modalities.data import DataConfig
from ..preprocess.encode.audio.encoder import AudioEncoder
from ..shards.format.component import component_of
from ..shards.format.manifest import Manifest
from ..shards.media.fbank import Fbank
from ..shards.named import nearest
from ..train.models import DenseUNetConfig, SpectrogramAutoencoderConfig
from ..trial import MaskArgument, Trial, option

TOKEN_S = 0.16
"""The duration of an audio token in seconds: 16 frames of 10 ms."""
GRID = spectrogram_grid(1024, 128, (16, 16))
AS_THEY_ARE = (0.0, 0.5)
"""Mean and deviation that leave features as they are, for a page."""
FEATURES: dict[str, tuple[Features, int]] = {
    "fbank": (Fbank(), 16),
    "log-mel": (LogMel(), 16),
    "chroma": (Librosa(feature="chroma"), 2),
    "cqt": (Librosa(feature="cqt"), 12),
    "mfcc": (Librosa(feature="mfcc"), 4),
    "tempogram": (Librosa(feature="tempogram"), 48),
}
"""The features that a trial names, and the bands of their tokens."""


def sound_option() -> Any:
    """A field of a trial: the duration of the sound."""
    return option(
        "Seconds of sound, a multiple of 0.16",
        default=f"{AudioClip().seconds:g}; in previews the usual duration in the shards, if shorter",
        least=TOKEN_S,
        panel="Audio, also with video",
    )


def whole_tokens(seconds: float) -> float:
    """`seconds`, rounded up to a whole number of audio tokens."""
    return round(max(1, ceil(seconds / TOKEN_S - 1e-6)) * TOKEN_S, 2)


def heard(seconds: float | None) -> dict[str, Any]:
    """The option for the seconds of sound, if given. ValueError if they are not a whole number of tokens."""
    if seconds is None:
        return {}
    above = whole_tokens(seconds)
    if abs(above - seconds) > 1e-6:
        near = ", ".join(f"{wanted:g}" for wanted in (above - TOKEN_S, above) if wanted > 0)
        raise ValueError(
            f"--sound-seconds {seconds:g} is not a multiple of {TOKEN_S} s, the duration of a token; try {near}"
        )
    return {"seconds": seconds}


def usual_seconds(manifest: Manifest) -> float:
    """The seconds shown of each sound: the 90th percentile of the split, at most 10.24 s in whole tokens."""
    sound = component_of(manifest.components, ("sound",))
    n_samples, rate = (sound.facts[name][sound.present] for name in ("n_samples", "sample_rate"))
    seconds = np.percentile(n_samples / rate, 90)
    return min(whole_tokens(float(seconds)), AudioClip().seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioTrial(Trial):
    """The options for clips of sound."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (MaskArgument(default="audio-mae", grid=GRID),)

    sound_seconds: float | None = sound_option()
    features: str | None = option(f"What is made of sounds: {', '.join(FEATURES)}", default="fbank", panel="Audio")

    def chosen(self) -> AudioData:
        """The data config of the chosen clip."""
        clip, name = AudioClip(**heard(self.sound_seconds)), self.features or "fbank"
        if name not in FEATURES:
            close = nearest(name, list(FEATURES))
            raise ValueError(f"--features {name!r} is not known{close}; legal are {', '.join(FEATURES)}")
        if name == "fbank":
            return AudioData(clip=clip)
        features, bins = FEATURES[name]
        return AudioData(clip=clip, features=features, patch=(16, bins), statistics=AS_THEY_ARE)

    def suited(self, manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
        """`data` with the usual duration of the split's sounds, if none was chosen."""
        if self.sound_seconds is not None or not isinstance(data, AudioData):
            return data
        return replace(data, clip=replace(data.clip, seconds=usual_seconds(manifest)))


def figures(data: DataConfig[Any], location: str | Path) -> AudioFigures | NoisyFigures:
    """The figures of sounds, or of noisy sounds."""
    if isinstance(data, NoisyData):
        return NoisyFigures(clip=data.clip)
    if not isinstance(data, AudioData):
        raise ValueError(f"figures of sounds need an AudioData or a NoisyData, got {type(data).__name__}")
    manifest = Manifest.load(location)
    return AudioFigures(
        clip=data.clip,
        spectrogram=Spectrogram(features=data.features, frames=data.frames, mean=0.0, deviation=1.0),
        grid=data.grids["audio"],
        manifest=manifest,
        label_names=label_names(manifest.info),
    )


AUDIO = Modality(
    name="audio",
    unit="sound",
    units="sounds",
    kinds=("sound",),
    encoder=AudioEncoder,
    trial=AudioTrial,
    figures=figures,
    works={DenseUNetConfig: show_enhanced, SpectrogramAutoencoderConfig: show_spectrograms},
    demo=Demo(recipe="audiomae-tiny"),
    stages={
        "decode": ("Decoding FLAC", "shorter clips or more cores would help"),
        "convert": ("Making spectrograms", "on a CUDA device, or with on_device=True, they are made of whole batches"),
    },
)
