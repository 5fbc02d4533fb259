"""The encoder of clips of a picture that moves, drawn from pictures in IDX files, in the manner of Moving MNIST.

A picture keeps its velocity and bounces at the edges. Start, direction and speed are drawn uniformly, as for the digits
of N. Srivastava et al., Unsupervised Learning of Video Representations using LSTMs, ICML 2015. Unlike there, a clip has
one picture, and a ground whose colours differ from corner to corner, so that the mean colour of a clip says little of
its picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.encode.image.encoder import read_idx_image
from maskstream.preprocess.encode.video.encoder import UInt8s, write_clip
from maskstream.preprocess.encode.video.profile import BLOCK, PROFILES, VideoProfile
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import Config
from maskstream.shards.members.video import video_member

SPEEDS = (1.0, 4.0)
"""The lowest and the highest speed, in pixels per frame."""
BRIGHTEST = 128
"""Levels of the ground are below it. Pictures are white where they are not transparent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MovingPictureEncoder(Config):
    """Encodes a clip of image n of the IDX file of grey images at `path`, for a source with the window (n, n + 1).

    frames, side, fps: the clip has so many square frames of so many pixels, a multiple of 16. seed: with a source's id
    it decides motion and ground.
    """

    version: ClassVar[int] = 1
    modality: ClassVar[str] = "video"

    video: VideoProfile = PROFILES["train"]
    frames: int = 20
    side: int = 64
    fps: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.frames, self.fps, self.side) < 1 or self.side % BLOCK:
            raise ValueError(
                f"frames and fps must be at least 1 and side a multiple of {BLOCK}, got frames={self.frames}, "
                f"fps={self.fps}, side={self.side}"
            )

    def in_profile(self, profile: VideoProfile) -> MovingPictureEncoder:
        """The same in another profile. Raises ValueError for copy: there is no video to copy."""
        if profile.name == "copy":
            raise ValueError("profile 'copy' keeps the packets of a video, but these are drawn; use train or fast")
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The profile's name."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """Encode the clip. Raises RejectError if there is no such image, or if it is no smaller than a frame."""
        if source.window is None:
            raise RejectError("check", "has no window (n, n + 1), which says which image of the file moves")
        picture = read_idx_image(source.path, source.window[0]).pixels
        with TemporaryDirectory() as folder:
            path = write_clip(self.drawn(picture, source.id), Path(folder) / "moving.mkv", fps=self.fps)
            video = encode_video(path, self.video)
        return Encoded(members={"mp4": video_member(video.data, video.index)}, meta=video.meta)

    def drawn(self, picture: UInt8s, id: str) -> list[UInt8s]:
        """The frames uint8 (side, side, 3), RGB, of a grey picture uint8 (H, W), whose levels are its opacity."""
        height, width = picture.shape
        if max(height, width) >= self.side:
            raise RejectError("check", f"has {width}x{height} pixels and cannot move in {self.side}x{self.side}")
        rng = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(f"{self.seed}/{id}".encode())))
        ground = smooth_ground(rng.uniform(0, BRIGHTEST, (2, 2, 3)), self.side)
        room = np.array((self.side - width, self.side - height))
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*SPEEDS)
        velocity = speed * np.array((np.cos(angle), np.sin(angle)))
        places = bounced(rng.uniform(0, room) + velocity * np.arange(self.frames)[:, None], room)
        return [self._frame(picture, ground, place) for place in places]

    def _frame(self, picture: UInt8s, ground: npt.NDArray[np.float64], place: npt.NDArray[np.float64]) -> UInt8s:
        """The picture over the ground, its upper left corner at `place` (x, y), interpolated between pixels."""
        moved = cv2.warpAffine(picture, np.array(((1, 0, place[0]), (0, 1, place[1]))), (self.side, self.side))
        opacity = moved[:, :, None] / 255
        return np.asarray(np.rint(ground + opacity * (255 - ground)), np.uint8)


def bounced(free: npt.NDArray[np.float64], room: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Places (..., 2) of a motion without edges, as mirrored at the edges of 0 to `room` (2,)."""
    far = room.astype(np.float64)
    return far - np.abs(far - free % (2 * far))


def smooth_ground(corners: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Colours (side, side, 3) between those of the corners (2, 2, 3), by linear interpolation."""
    far = np.linspace(0, 1, side)
    share = np.stack((1 - far, far), axis=1)
    return np.asarray(np.einsum("yi,xj,ijc->yxc", share, share, corners))
