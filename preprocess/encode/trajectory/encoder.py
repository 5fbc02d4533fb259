"""The encoder of walks: on one clock, the members `mp4` (colours), `depth.mp4` (millimetres), `camera.npy` (poses)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Protocol

from ....shards.config import Config
from ....shards.members.camera_path import camera_path_member, problem_of_path
from ....shards.members.video import video_member
from ...source import RejectError, Source
from ..encoder import Encoded
from ..video.convert import fitted
from ..video.drawn_clip import write_clip
from ..video.profile import BLOCK, PROFILES, VideoProfile
from ..video.video import encode_video
from .depth import depth_member
from .miniworld import MiniworldWalk
from .vizdoom import VizdoomWalk
from .walk import Walk, in_blocks

RECORDED = "recorded"
"""The entry of a source's meta that names what records it; the entry "walk" has the arguments."""


class Recorder(Protocol):
    """Records a walk."""

    def record(self) -> Walk: ...


RECORDERS: Mapping[str, type[Recorder]] = {"miniworld": MiniworldWalk, "vizdoom": VizdoomWalk}


@dataclass(frozen=True, slots=True)
class TrajectoryEncoder(Config):
    """Records walks and encodes them. A source is computed: meta["recorded"] names the simulator (`RECORDERS`), and
    meta["walk"] has the arguments.

    Colours are stored in a profile of videos, depth without loss, and one pose for each frame, so a profile that
    changes which frames there are is refused. Sides are cut to multiples of BLOCK, of frames and of depth alike.
    """

    version: ClassVar[int] = 3
    modality: ClassVar[str] = "trajectory"

    video: VideoProfile = PROFILES["train"]

    def __post_init__(self) -> None:
        if self.video.name not in ("train", "fast"):
            raise ValueError(
                f"profile {self.video.name!r} leaves frames out or keeps packets, but a walk is drawn and has depth "
                "and a pose for each frame; use train or fast"
            )

    def in_profile(self, profile: VideoProfile) -> TrajectoryEncoder:
        """The same with colours in another profile."""
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The name of the video profile."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """Record and encode a walk. Raises RejectError if none is found."""
        return self.encoded(RECORDERS[source.meta[RECORDED]](**source.meta["walk"]).record())

    def encoded(self, walk: Walk) -> Encoded:
        """Encode a walk. Raises RejectError if its parts do not fit together."""
        if not len(walk.frames) == len(walk.depth) == len(walk.path):
            counts = f"{len(walk.frames)} frames, {len(walk.depth)} of depth and {len(walk.path)} poses"
            raise RejectError("check", f"has {counts}; there is one of each for every moment")
        if problem := problem_of_path(walk.path):
            raise RejectError("check", problem)
        walk = in_blocks(walk, BLOCK)
        height, width = walk.frames[0].shape[:2]
        fit = fitted(width, height, self.video.short_side)
        if fit.scaled != fit.stored:
            raise RejectError("check", f"of {width}x{height} pixels would be cut, and its depth and lens would not")
        with TemporaryDirectory() as folder:
            video = encode_video(write_clip(walk.frames, Path(folder) / "walk.mkv", fps=walk.fps), self.video)
        index = video.index
        if index.n_frames != len(walk.frames):
            raise RejectError("check", f"has {len(walk.frames)} frames, of which {index.n_frames} are stored")
        across, down = index.width / width, index.height / height
        fx, fy, cx, cy = walk.lens
        members = {
            "mp4": video_member(video.data, index),
            "depth.mp4": depth_member(walk.depth, walk.fps),
            "camera.npy": camera_path_member(walk.path, (fx * across, fy * down, cx * across, cy * down)),
        }
        unknown = sum(int((one == 0).sum()) for one in walk.depth) / sum(one.size for one in walk.depth)
        return Encoded(members=members, meta={**video.meta, "depth_unknown": round(unknown, 6)})
