"""The encoder of videos, which are read from files or drawn: the member `mp4`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from maskstream.preprocess.encode.encoder import Encoded, made_of
from maskstream.preprocess.source import Source
from maskstream.shards.config import Config
from maskstream.shards.members.video import video_member

from .damage import DAMAGES, Damage
from .drawn_clip import DrawnClip, write_clip
from .profile import PROFILES, VideoProfile
from .video import EncodedVideo, encode_video


@dataclass(frozen=True, slots=True)
class VideoEncoder(Config):
    """Encodes videos with a profile. `made_by` of a source makes a `DrawnClip`.

    damage, least_whole: what is done with a video of which a part is damaged or cut off, and the share of its frames
    that must be left (`encode_video`); with profile copy it is always a reject.
    """

    version: ClassVar[int] = 7
    modality: ClassVar[str] = "video"

    video: VideoProfile = PROFILES["train"]
    damage: Damage = "reject"
    least_whole: float = 0.5

    def __post_init__(self) -> None:
        if self.damage not in DAMAGES:
            raise ValueError(f"damage={self.damage!r} is not one of {', '.join(map(repr, DAMAGES))}")
        if not 0 < self.least_whole <= 1:
            raise ValueError(f"least_whole={self.least_whole} must be a share of frames, above 0 and up to 1")
        if self.damage != "reject" and self.video.name == "copy":
            raise ValueError(
                f"damage={self.damage!r} encodes what is left, but profile 'copy' keeps packets; use train"
            )

    def in_profile(self, profile: VideoProfile) -> VideoEncoder:
        """The same with videos in another profile."""
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The profile's name."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """Encode the video, or its window in frames (see `encode_video`)."""
        drawn = made_of(source, DrawnClip)
        if drawn is not None:
            video = self._drawn(drawn)
        else:
            video = encode_video(
                source.path, self.video, source.window, damage=self.damage, least_whole=self.least_whole
            )
        return Encoded(members={"mp4": video_member(video.data, video.index)}, meta=video.meta)

    def _drawn(self, clip: DrawnClip) -> EncodedVideo:
        with TemporaryDirectory() as folder:
            return encode_video(write_clip(clip.frames, Path(folder) / "drawn.mkv", fps=clip.fps), self.video)
