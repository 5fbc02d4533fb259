"""The encoder of videos, which are read from files or simulated: the member `mp4`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from ....shards.config import Config
from ....shards.members.video import video_member
from ...source import Source
from ..encoder import Encoded
from .drawn_clip import write_clip
from .metaworld import Episode, render
from .profile import PROFILES, VideoProfile
from .video import EncodedVideo, encode_video


@dataclass(frozen=True, slots=True)
class VideoEncoder(Config):
    """Encodes videos with a profile. A computed source is simulated: meta["episode"] has the arguments of `Episode`."""

    version: ClassVar[int] = 4
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
        if source.computed:
            video = self._simulated(Episode(**source.meta["episode"]))
        else:
            video = encode_video(source.path, self.video, source.window)
        return Encoded(members={"mp4": video_member(video.data, video.index)}, meta=video.meta)

    def _simulated(self, episode: Episode) -> EncodedVideo:
        with TemporaryDirectory() as folder:
            path = write_clip(render(episode), Path(folder) / "episode.mkv", fps=episode.fps)
            return encode_video(path, self.video)
