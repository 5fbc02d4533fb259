"""The encoder of videos: the member `mp4`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ....shards.config import Config
from ....shards.members.video import video_member
from ...source import Source
from ..encoder import Encoded
from .profile import PROFILES, VideoProfile
from .video import encode_video


@dataclass(frozen=True, slots=True)
class VideoEncoder(Config):
    """Encodes videos with a profile."""

    version: ClassVar[int] = 2
    modality: ClassVar[str] = "video"

    video: VideoProfile = PROFILES["train"]

    def in_profile(self, profile: VideoProfile) -> VideoEncoder:
        """The same with videos in another profile."""
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The profile's name."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """Encode the video, or its window in frames (see `encode_video`)."""
        video = encode_video(source.path, self.video, source.window)
        return Encoded(members={"mp4": video_member(video.data, video.index)}, meta=video.meta)
