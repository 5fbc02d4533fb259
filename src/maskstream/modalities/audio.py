"""The audio modality."""

from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.audio import AudioFigures, NoisyFigures
from maskstream.pages.figures.card import label_names
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.modalities.audio.data import AudioData, NoisyData
from maskstream.pipelines.modalities.audio.rows import CUES
from maskstream.pipelines.modalities.audio.spectrogram import Features, Spectrogram, compute_spectrogram_grid
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest

SPECTROGRAM = compute_spectrogram_grid(1024, 128, (16, 16))
"""The tokens of the spectrogram of a usual clip."""


def round_to_tokens(seconds: float, features: Features, patch: tuple[int, int]) -> float:
    """Return `seconds`, rounded up to a whole number of spectrogram tokens.

    Args:
        seconds: Length in seconds.
        features: Settings of the spectrogram.
        patch: Size of a token in frames and bins.
    """
    token_s = patch[0] * features.shift / features.sample_rate
    return round(max(1, ceil(seconds / token_s - 1e-6)) * token_s, 6)


def with_usual_seconds(manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
    """Return `data` with clips of at most the 90th percentile of the split's lengths, in whole tokens.

    Args:
        manifest: The split.
        data: The data config.
    """
    if not isinstance(data, AudioData):
        return data
    sound = component_of(manifest.components, ("sound",))
    n_samples, rate = (sound.facts[name][sound.present] for name in ("n_samples", "sample_rate"))
    usual_s = round_to_tokens(float(np.percentile(n_samples / rate, 90)), data.features, data.patch)
    return replace(data, clip=replace(data.clip, seconds=min(usual_s, data.clip.seconds)))


def figures(data: DataConfig[Any], manifest: Manifest) -> AudioFigures | NoisyFigures:
    """Return the figures of audio, or of noisy audio.

    Args:
        data: The data config.
        manifest: The split.
    """
    if isinstance(data, NoisyData):
        return NoisyFigures(clip=data.clip)
    if not isinstance(data, AudioData):
        raise ValueError(f"audio figures need an AudioData or a NoisyData, got {type(data).__name__}")
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
    data=AudioData(mask=MASKS["audio-mae"]()),
    masks=(MaskField(grid=SPECTROGRAM, cues=CUES),),
    suited=with_usual_seconds,
    figures=figures,
    demo=Demo(recipe="audiomae-tiny"),
    stages={
        "decode": ("Decoding FLAC", "shorter clips or more cores would help"),
        "convert": (
            "Making spectrograms",
            "on a CUDA device, or with on_device=True, they are computed for whole batches",
        ),
    },
)
