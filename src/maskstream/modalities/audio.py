"""Sounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import numpy as np

from ..modality import Modality
from ..pipelines.modalities.audio.clip import AudioClip
from ..pipelines.modalities.audio.loader import audio_loader, spectrogram_grid
from ..preprocess.encode.audio.encoder import AudioEncoder
from ..shards.format.manifest import Manifest, component_of
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

    def chosen(self) -> dict[str, Any]:
        """The clip, where its length was given."""
        return {"clip": AudioClip(**sound)} if (sound := heard(self.sound_seconds)) else {}

    @classmethod
    def shown(cls, manifest: Manifest, settings: Mapping[str, Any]) -> dict[str, Any]:
        """As much as most of the sounds have."""
        return {} if settings.get("clip") else {"clip": AudioClip(seconds=usual_seconds(manifest))}


AUDIO = Modality(
    name="audio",
    unit="sound",
    units="sounds",
    kinds=("sound",),
    encoder=AudioEncoder,
    loader=audio_loader,
    trial=AudioTrial,
    stages={
        "decode": ("Decoding FLAC", "shorter clips or more cores would help"),
        "convert": ("Making spectrograms", "on a CUDA device, or with on_device=True, they are made of whole batches"),
    },
)
