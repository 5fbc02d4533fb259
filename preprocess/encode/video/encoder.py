"""Videos for shards: the member `mp4`."""

from __future__ import annotations

from dataclasses import dataclass

from ....shards.config import Config
from ....shards.members.video import video_member
from ...source import Source
from ..encoder import Encoded
from .profile import PROFILES, VideoProfile
from .video import encode_video


@dataclass(frozen=True, slots=True)
class VideoEncoder(Config):
    """Videos in a profile: the member `mp4`."""

    video: VideoProfile = PROFILES["train"]

    @property
    def profile(self) -> str:
        """The profile's name."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """The video, or its window, as `encode_video` makes it."""
        made = encode_video(source.path, self.video, source.window)
        return Encoded(members={"mp4": video_member(made.data, made.index)}, meta=made.meta)


ENCODER = VideoEncoder
"""That of the modality, for encoders.py."""
