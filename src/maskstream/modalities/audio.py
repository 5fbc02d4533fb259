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
from ..pipelines.modalities.audio.spectrogram import Spectrogram, spectrogram_grid
from ..pipelines.modalities.data import DataConfig
from ..preprocess.encode.audio.encoder import AudioEncoder
from ..shards.format.manifest import Manifest, component_of
from ..train.models import DenseUNetConfig, SpectrogramAutoencoderConfig
from ..trial import MaskArgument, Trial, option

TOKEN_S = 0.16
"""The length of a token of sound: 16 frames of 10 ms."""
GRID = spectrogram_grid(1024, 128, (16, 16))


def sound_option() -> Any:
    """The field of a trial that says how much is heard."""
    return option(
        "Seconds of sound, a multiple of 0.16",
        default=f"{AudioClip().seconds:g}; of a preview at most so much, as the shards have",
        least=TOKEN_S,
        panel="Audio, also with video",
    )


def whole_tokens(seconds: float) -> float:
    """The least time of whole tokens of sound that is not below `seconds`."""
    return round(max(1, ceil(seconds / TOKEN_S - 1e-6)) * TOKEN_S, 2)


def heard(seconds: float | None) -> dict[str, Any]:
    """Seconds of sound where they were given; ValueError where they are not whole tokens."""
    if seconds is None:
        return {}
    above = whole_tokens(seconds)
    if abs(above - seconds) > 1e-6:
        near = ", ".join(f"{wanted:g}" for wanted in (above - TOKEN_S, above) if wanted > 0)
        raise ValueError(
            f"--sound-seconds {seconds:g} is no multiple of {TOKEN_S} s, the length of a token; try {near}"
        )
    return {"seconds": seconds}


def usual_seconds(manifest: Manifest) -> float:
    """What a page shows of each sound: as much as nine of ten sounds of the split have, 10.24 s at most, in tokens."""
    facts = component_of(manifest.components, ("sound",)).facts
    seconds = np.percentile(facts["n_samples"] / facts["sample_rate"], 90)
    return min(whole_tokens(float(seconds)), AudioClip().seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioTrial(Trial):
    """Clips of sounds."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (MaskArgument(default="audio-mae", grid=GRID),)

    sound_seconds: float | None = sound_option()

    def chosen(self) -> AudioData:
        """The clip, as long as was chosen."""
        return AudioData(clip=AudioClip(**heard(self.sound_seconds)))

    def suited(self, manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
        """As much as most of the sounds have."""
        if self.sound_seconds is not None or not isinstance(data, AudioData):
            return data
        return replace(data, clip=replace(data.clip, seconds=usual_seconds(manifest)))


def figures(data: DataConfig[Any], location: Path) -> AudioFigures | NoisyFigures:
    """Figures of sounds, or of sounds in noise."""
    if isinstance(data, NoisyData):
        return NoisyFigures(clip=data.clip)
    if not isinstance(data, AudioData):
        raise ValueError(f"sounds are those of an AudioData or a NoisyData, got {type(data).__name__}")
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
