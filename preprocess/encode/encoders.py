"""The encoders of the modalities, each in a folder of this one that has the modality's name."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from .encoder import Encoder
from .video.profile import PROFILES, VideoProfile


def encoder_of(modality: str, profile: VideoProfile | None) -> Encoder:
    """The encoder of a modality; ValueError for a profile (other than the default one) where it holds no video."""
    legal = sorted(folder.name for folder in iter_modules([str(Path(__file__).parent)]) if folder.ispkg)
    if modality not in legal:
        raise ValueError(f"modality {modality!r} is not one of {', '.join(legal)}")
    make = import_module(f".{modality}.encoder", __package__).ENCODER
    if "video" in {f.name for f in fields(make)}:
        encoder: Encoder = make(video=profile or PROFILES["train"])
        return encoder
    if profile not in (None, PROFILES["train"]):
        raise ValueError(f"profile {profile.name!r} is of video, and this dataset is {modality}; leave it out")
    encoder = make()
    return encoder
