"""The encoder of videos whose frames lie in a folder as JPEG pictures, as frame extractors leave them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import av
from av.packet import Packet
from av.video.stream import VideoStream

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.encode.image.picture import read_picture
from maskstream.preprocess.encode.limits import check_frame_size
from maskstream.preprocess.source import RejectError, Source, reason_of
from maskstream.shards.config import Config
from maskstream.shards.members.video import video_member

from .profile import PROFILES, VideoProfile
from .video import encode_video


@dataclass(frozen=True, kw_only=True, slots=True)
class FramesEncoder(Config):
    """Encodes the frames of a source, in the order of its files.

    fps: how many frames were extracted in a second, which the pictures do not say.
    """

    version: ClassVar[int] = 3
    modality: ClassVar[str] = "video"

    video: VideoProfile = PROFILES["train"]
    fps: float = 30.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.fps <= 240:
            raise ValueError(f"fps={self.fps} is not in 0.1 to 240 frames per second")

    def in_profile(self, profile: VideoProfile) -> FramesEncoder:
        """The same in another profile. Raises ValueError for copy: there is no video to copy."""
        if profile.name == "copy":
            raise ValueError("profile 'copy' keeps the packets of a video, but these are pictures; use train or fast")
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The profile's name."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """Encode the frames. Raises RejectError if one is no JPEG, or is damaged."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "frames.mkv"
            _join(source.files, path, Fraction(self.fps).limit_denominator(1001))
            video = encode_video(path, self.video)
        return Encoded(members={"mp4": video_member(video.data, video.index)}, meta=video.meta)


def _join(frames: tuple[Path, ...], to: Path, rate: Fraction) -> None:
    """Write JPEGs as the packets of a video, byte for byte."""
    first = read_picture(frames[0])
    height, width = first.pixels.shape[:2]
    check_frame_size(width, height)
    with av.open(str(to), "w", format="matroska") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for number, path in enumerate(frames):
            data = path.read_bytes()
            if not data.startswith(b"\xff\xd8") or b"\xff\xd9" not in data[-64:]:
                raise RejectError("open", f"the frame {path.name} is no JPEG, or is cut off")
            packet = Packet(data)
            packet.stream, packet.time_base = stream, 1 / rate
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            try:
                container.mux(packet)
            except av.FFmpegError as error:
                raise RejectError("encode", f"the frame {path.name} cannot be joined ({reason_of(error)})") from error
