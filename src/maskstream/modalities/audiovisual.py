"""Clips of video with their sound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..modality import Demo, Modality
from ..pages.figures.audiovisual import AudioVisualFigures
from ..pages.figures.card import label_names
from ..pages.report.works.audiovisual import show, show_denoised
from ..pipelines.modalities.audio.spectrogram import Spectrogram
from ..pipelines.modalities.audiovisual.data import AudioVisualData
from ..pipelines.modalities.data import DataConfig
from ..pipelines.modalities.video.clip import VideoClip
from ..preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from ..shards.format.component import component_of
from ..shards.format.manifest import Manifest
from ..train.models import AudioVisualDiffusionConfig, SiameseConfig
from ..trial import MaskArgument, option
from . import audio, frames


def sound_seconds(manifest: Manifest, clip: VideoClip) -> float:
    """The seconds of sound that a page shows: the duration of a clip or, if shorter, of the split's median video."""
    video = component_of(manifest.components, ("video",))
    n_frames, fps = (video.facts[name][video.present] for name in ("n_frames", "fps"))
    return audio.whole_tokens(
        float(np.median([min(clip.frames * clip.step_s(f), n / f) for n, f in zip(n_frames, fps, strict=True)]))
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualTrial(frames.FramesTrial):
    """The options for clips of video with sound, which have separate masks."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (
        MaskArgument(argument="video_mask", default="random", grid=frames.GRID, cues=frozenset({"flow"})),
        MaskArgument(option="audio_mask", argument="audio_mask", default="audio-mae", grid=audio.GRID),
    )

    audio_mask: str | None = option("Mask of the sound in video with sound, by name", default="audio-mae")
    sound_seconds: float | None = audio.sound_option()

    def chosen(self) -> AudioVisualData:
        """The data config of the chosen clip and duration."""
        return AudioVisualData(clip=self.clip(), **audio.heard(self.sound_seconds))

    def suited(self, manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
        """`data` with as much sound as video, if no duration was chosen."""
        if self.sound_seconds is not None or not isinstance(data, AudioVisualData):
            return data
        return replace(data, seconds=sound_seconds(manifest, data.clip))


def figures(data: DataConfig[Any], location: str | Path) -> AudioVisualFigures:
    """The figures of clips with their sound."""
    if not isinstance(data, AudioVisualData):
        raise ValueError(f"figures of clips with sound need an AudioVisualData, got {type(data).__name__}")
    manifest = Manifest.load(location)
    return AudioVisualFigures(
        clip=data.clip,
        spectrogram=Spectrogram(features=data.features, frames=data.frames, mean=0.0, deviation=1.0),
        grid=data.grids["video"],
        audio_grid=data.grids["audio"],
        manifest=manifest,
        label_names=label_names(manifest.info),
    )


AUDIOVISUAL = Modality(
    name="audiovisual",
    unit="clip",
    units="clips",
    kinds=("video", "sound"),
    encoder=AudioVisualEncoder,
    trial=AudioVisualTrial,
    figures=figures,
    works={AudioVisualDiffusionConfig: show_denoised, SiameseConfig: show},
    demo=Demo(recipe="avsiam-tiny"),
    stages={
        "decode": ("Decoding", "shards of the profile train, a shorter clip or more cores would help"),
        "convert": (
            "Conversion to RGB and spectrograms",
            "a smaller picture would help; on a CUDA device spectrograms are made of whole batches",
        ),
    },
)
