"""Clips of video with their sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..modality import Modality
from ..pipelines.modalities.audiovisual.loader import audiovisual_loader
from ..pipelines.modalities.video.clip import VideoClip
from ..preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from ..shards.format.manifest import Manifest, component_of
from ..trial import MaskArgument, option
from . import audio, frames


def sound_seconds(manifest: Manifest, clip: VideoClip) -> float:
    """The sound that a page shows with a clip: as long as the clip or the video is, in the median of the split."""
    facts = component_of(manifest.components, ("video",)).facts
    n_frames = np.minimum(clip.frames * clip.stride, facts["n_frames"])
    return audio.whole_tokens(float(np.median(n_frames / facts["fps"])))


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualTrial(frames.FramesTrial):
    """Clips of video with sound, each masked on its own."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (
        MaskArgument(argument="video_mask", default="random", grid=frames.GRID, cues=frozenset({"flow"})),
        MaskArgument(option="audio_mask", argument="audio_mask", default="audio-mae", grid=audio.GRID),
    )

    audio_mask: str | None = option("Of video with sound, that of the sound", default="audio-mae")
    sound_seconds: float | None = audio.sound_option()

    def chosen(self) -> dict[str, Any]:
        """The clip, and the seconds of sound."""
        return {**frames.FramesTrial.chosen(self), **audio.heard(self.sound_seconds)}

    @classmethod
    def shown(cls, manifest: Manifest, settings: Mapping[str, Any]) -> dict[str, Any]:
        """As much sound as there is video."""
        seconds = sound_seconds(manifest, settings.get("clip") or VideoClip())
        return {} if "seconds" in settings else {"seconds": seconds}


AUDIOVISUAL = Modality(
    name="audiovisual",
    unit="clip",
    units="clips",
    kinds=("video", "sound"),
    encoder=AudioVisualEncoder,
    loader=audiovisual_loader,
    trial=AudioVisualTrial,
    stages={
        "decode": ("Decoding", "shards of the profile train, a shorter clip or more cores would help"),
        "convert": (
            "Conversion to RGB and spectrograms",
            "a smaller picture would help; on a CUDA device spectrograms are made of whole batches",
        ),
    },
)
