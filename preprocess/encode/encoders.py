"""The encoders of the modalities: a line for each."""

from __future__ import annotations

from collections.abc import Callable

from .audio.encoder import AudioEncoder
from .audiovisual.encoder import AudioVisualEncoder
from .encoder import Encoder
from .mesh.encoder import MeshEncoder
from .points.encoder import PointEncoder
from .video.encoder import VideoEncoder
from .video.profile import PROFILES, VideoProfile

ENCODERS: dict[str, Callable[[], Encoder]] = {
    "audio": AudioEncoder,
    "mesh": MeshEncoder,
    "points": PointEncoder,
}
"""Encoders by modality."""

WITH_PROFILE: dict[str, Callable[[VideoProfile], Encoder]] = {
    "audiovisual": AudioVisualEncoder,
    "video": VideoEncoder,
}
"""Encoders of what holds video, which is stored in a profile."""


def encoder_of(modality: str, profile: VideoProfile | None) -> Encoder:
    """The encoder of a modality; ValueError for a profile (other than the default one) where it holds no video."""
    if modality in WITH_PROFILE:
        return WITH_PROFILE[modality](profile or PROFILES["train"])
    if profile not in (None, PROFILES["train"]):
        raise ValueError(f"profile {profile.name!r} is of video, and this dataset is {modality}; leave it out")
    if modality not in ENCODERS:
        raise ValueError(f"modality {modality!r} is not one of {', '.join(sorted({*ENCODERS, *WITH_PROFILE}))}")
    return ENCODERS[modality]()
