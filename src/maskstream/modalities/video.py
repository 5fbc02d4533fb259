"""Clips of video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..modality import Modality
from ..pipelines.modalities.video.clip import VideoClip
from ..pipelines.modalities.video.loader import video_loader
from ..preprocess.encode.video.encoder import VideoEncoder
from ..shards.format.manifest import Manifest
from ..trial import MaskArgument
from .frames import GRID, FramesTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoTrial(FramesTrial):
    """Clips of video."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (
        MaskArgument(default="motion-guided", grid=GRID, cues=frozenset({"flow"})),
    )

    @classmethod
    def shown(cls, manifest: Manifest, settings: Mapping[str, Any]) -> dict[str, Any]:
        """DIS flow where the mask asks for none."""
        mask = settings.get("mask")
        if mask is not None and "flow" in mask.needs:
            return {}
        return {"flow": "dis" if settings.get("clip", VideoClip()).frames > 1 else "none"}


VIDEO = Modality(
    name="video",
    unit="clip",
    units="clips",
    kinds=("video",),
    encoder=VideoEncoder,
    loader=video_loader,
    trial=VideoTrial,
    stages={
        "read": ("Reading", "what is read is in memory already, so fewer bytes per clip would help: the profile train"),
        "decode": ("Decoding", "shards of the profile train, more cores, or a GPU with DALI would help"),
        "convert": ("Conversion to RGB", "a smaller output, or a GPU with DALI would help"),
        "mask": ("Drawing masks", "a mask without flow costs least"),
        "collate": ("Joining batches", "on a GPU with DALI this is where it decodes; on a CPU use workers"),
    },
)
