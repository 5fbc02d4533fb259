"""The modality of video with audio."""

from dataclasses import replace
from typing import Any

import numpy as np

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.audio import AudioVisualFigures
from maskstream.pages.figures.card import label_names
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.modalities.audio.spectrogram import Spectrogram
from maskstream.pipelines.modalities.audiovisual.data import AUDIO_CUES, VIDEO_CUES, AudioVisualData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest

from . import audio
from .video import CLIP


def with_sound_of_clips(manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
    """Return `data` with as many seconds of audio as a clip has or, if shorter, as the split's median video.

    Args:
        manifest: The split.
        data: The data config.
    """
    if not isinstance(data, AudioVisualData):
        return data
    video = component_of(manifest.components, ("video",))
    n_frames, fps = (video.facts[name][video.present] for name in ("n_frames", "fps"))
    clip = data.clip
    seconds = [min(clip.frames * clip.step_s(f), n / f) for n, f in zip(n_frames, fps, strict=True)]
    return replace(data, seconds=audio.round_to_tokens(float(np.median(seconds)), data.features, data.audio_patch))


def figures(data: DataConfig[Any], manifest: Manifest) -> AudioVisualFigures:
    """Return the figures of clips with their audio.

    Args:
        data: The data config.
        manifest: The split.
    """
    if not isinstance(data, AudioVisualData):
        raise ValueError(f"figures of clips with audio need an AudioVisualData, got {type(data).__name__}")
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
    data=AudioVisualData(video_mask=MASKS["random"](), audio_mask=MASKS["audio-mae"]()),
    masks=(
        MaskField(name="video_mask", grid=CLIP, cues=VIDEO_CUES),
        MaskField(name="audio_mask", grid=audio.SPECTROGRAM, cues=AUDIO_CUES),
    ),
    suited=with_sound_of_clips,
    figures=figures,
    demo=Demo(recipe="avsiam-tiny", settings="--steps 500"),
    stages={
        "decode": ("Decoding", "shards of the profile train, a shorter clip or more cores would help"),
        "convert": (
            "Conversion to RGB and spectrograms",
            "smaller frames would help; on a CUDA device spectrograms are computed for whole batches",
        ),
    },
)
