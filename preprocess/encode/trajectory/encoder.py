"""The encoder of trajectories: the members `mp4` (colours), `depth.mp4` (millimetres) and `camera.npy` (poses) with a
common clock.

Depth is stored without loss: FFV1 in a fragmented MP4 in which each frame is a GOP, so a clip reads only its own
frames.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from maskstream.preprocess.encode.encoder import Encoded, ProfiledEncoder, made_of
from maskstream.preprocess.encode.video.check import check_slices
from maskstream.preprocess.encode.video.convert import fitted
from maskstream.preprocess.encode.video.encoder import write_clip
from maskstream.preprocess.encode.video.fragments import build_video_index, open_mp4_writer, parse_output
from maskstream.preprocess.encode.video.profile import BLOCK
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.preprocess.source import RejectError, Source, explain
from maskstream.shards.arrays import Float64s, UInt8s, UInt16s
from maskstream.shards.media.depth import DEPTH_FORMAT, read_depth
from maskstream.shards.members.arrays import check_path_poses, make_camera_path_member
from maskstream.shards.members.member import Member
from maskstream.shards.members.video import video_member

_MOST_MM = np.iinfo(np.uint16).max


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """T moments, `fps` per second.

    Attributes:
        frames: uint8 (H, W, 3) each, RGB.
        depth: uint16 (H', W') each, in millimetres as `millimetres` returns it.
        path: Poses as in `shards/media/camera_pose.py`, float64 (T, 7).
        lens: Focal lengths and centre in pixels of the frames (`LENS`).
        fps: Moments per second.
    """

    frames: list[UInt8s]
    depth: list[UInt16s]
    path: Float64s
    lens: tuple[float, float, float, float]
    fps: int


def crop_to_blocks(walk: Walk, block: int) -> Walk:
    """Crop a trajectory to the centre, so that the sides of its frames are multiples of `block`. Encoding then crops
    nothing, and depth and lens stay consistent.
    """
    whole = np.array(walk.frames[0].shape[:2])
    kept = whole // block * block
    if (kept == whole).all() or not kept.all():
        return walk
    first = (whole - kept) // 2
    fx, fy, cx, cy = walk.lens

    def middle(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        scale = np.array(picture.shape[:2]) / whole
        (top, left), (bottom, right) = (np.rint(at * scale).astype(int) for at in (first, first + kept))
        return np.ascontiguousarray(picture[top:bottom, left:right])

    return Walk(
        frames=[middle(one) for one in walk.frames],
        depth=[middle(one) for one in walk.depth],
        path=walk.path,
        lens=(fx, fy, cx - float(first[1]), cy - float(first[0])),
        fps=walk.fps,
    )


def millimetres(depth_m: npt.NDArray[np.floating]) -> UInt16s:
    """Convert distances along the camera's axis from metres to whole millimetres; 0 (unknown) beyond 65.535 m."""
    rounded = np.nan_to_num(np.rint(1000 * depth_m), nan=0, posinf=0, neginf=0)
    return np.where((rounded > 0) & (rounded <= _MOST_MM), rounded, 0).astype(np.uint16)


OPTIONS = {"level": "3", "g": "1", "slices": "4", "slicecrc": "1"}
"""Options of FFmpeg's FFV1 encoder: version 3, all frames keyframes, each slice with a checksum."""


def make_depth_member(depth: Sequence[UInt16s], fps: int) -> Member:
    """Encode depth as a member of kind `video`, decoded and compared once.

    Args:
        depth: uint16 (H, W) each in millimetres.
        fps: Frames per second.

    Raises:
        RejectError: The frames differ in size, or do not decode to the original values.
    """
    if len({one.shape for one in depth}) != 1:
        raise RejectError(
            "encode", f"has depth of different sizes {sorted({one.shape for one in depth})}; all must have one size"
        )
    height, width = depth[0].shape
    parsed = parse_output(_encode_walk(depth, fps))
    wrong: list[int] = []

    def compare(number: int, frame: VideoFrame) -> None:
        if not np.array_equal(read_depth(frame), depth[number]):
            wrong.append(number)

    check_slices(parsed, width, height, compare)
    if wrong or len(parsed.key_rank) != len(depth):
        raise RejectError(
            "check", f"has {len(depth)} frames of depth, of which {wrong or 'some'} do not decode identically"
        )
    entries = list(range(len(depth)))
    index = build_video_index(parsed, entries, codec="ffv1", fps=float(fps), width=width, height=height)
    return video_member(parsed.data, index)


def _encode_walk(depth: Sequence[UInt16s], fps: int) -> bytes:
    buffer, (height, width) = io.BytesIO(), depth[0].shape
    try:
        with open_mp4_writer(buffer) as container:
            stream = container.add_stream("ffv1", rate=fps, options=OPTIONS)
            stream.width, stream.height, stream.pix_fmt = width, height, DEPTH_FORMAT
            stream.codec_context.thread_count, stream.codec_context.gop_size = 1, 1
            for number, one in enumerate(depth):
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(one), format=DEPTH_FORMAT)
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise RejectError("encode", f"has depth that cannot be encoded ({explain(error)})") from error
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class TrajectoryEncoder(ProfiledEncoder):
    """Encodes trajectories. `made_by` of a source records its `Walk`.

    Colours are stored in a video profile, depth without loss, and one pose for each frame, so a profile that changes
    the number of frames is refused. The sides of frames and depth are cropped to multiples of BLOCK.
    """

    version: ClassVar[int] = 3
    modality: ClassVar[str] = "trajectory"

    def validate(self) -> None:
        if self.video.name not in ("train", "fast"):
            raise ValueError(
                f"profile {self.video.name!r} drops frames or keeps packets, but a trajectory has depth and a "
                "pose for each frame; use train or fast"
            )

    def encode(self, source: Source) -> Encoded:
        """Record and encode a trajectory. Raise RejectError if none is found."""
        walk = made_of(source, Walk)
        if walk is None:
            raise RejectError("open", "is not a trajectory: its made_by does not define how to record one")
        return self.encoded(walk)

    def encoded(self, walk: Walk) -> Encoded:
        """Encode a trajectory. Raise RejectError if its parts are inconsistent."""
        if not len(walk.frames) == len(walk.depth) == len(walk.path):
            counts = f"{len(walk.frames)} frames, {len(walk.depth)} of depth and {len(walk.path)} poses"
            raise RejectError("check", f"has {counts}; each frame needs one depth image and one pose")
        if problem := check_path_poses(walk.path):
            raise RejectError("check", problem)
        walk = crop_to_blocks(walk, BLOCK)
        height, width = walk.frames[0].shape[:2]
        fit = fitted(width, height, self.video.short_side)
        if fit.scaled != fit.stored:
            raise RejectError("check", f"{width}x{height} pixels would be cropped, but its depth and lens would not")
        with TemporaryDirectory() as folder:
            video = encode_video(write_clip(walk.frames, Path(folder) / "walk.mkv", fps=walk.fps), self.video)
        index = video.index
        if index.n_frames != len(walk.frames):
            raise RejectError("check", f"has {len(walk.frames)} frames, but only {index.n_frames} are stored")
        across, down = index.width / width, index.height / height
        fx, fy, cx, cy = walk.lens
        members = {
            "mp4": video_member(video.data, index),
            "depth.mp4": make_depth_member(walk.depth, walk.fps),
            "camera.npy": make_camera_path_member(walk.path, (fx * across, fy * down, cx * across, cy * down)),
        }
        unknown = sum(int((one == 0).sum()) for one in walk.depth) / sum(one.size for one in walk.depth)
        return Encoded(members=members, meta={**video.meta, "depth_unknown": round(unknown, 6)})
