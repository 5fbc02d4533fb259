"""The encoders of videos, of folders of extracted frames, and of a robot's episodes in LeRobot's format.

An episode has a camera's video, and arrays with a row for each frame. Frames that are generated, or stored in folders,
are first written as a small lossless video, so that they are handled like filmed clips.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import av
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from maskstream.preprocess.encode.encoder import Encoded, ProfiledEncoder, made_of
from maskstream.preprocess.encode.image.encoder import read_picture
from maskstream.preprocess.encode.limits import check_frame_size
from maskstream.preprocess.source import RejectError, Source, explain
from maskstream.shards.arrays import UInt8s
from maskstream.shards.limits import PositiveProportion
from maskstream.shards.members.arrays import array_member
from maskstream.shards.members.member import Member
from maskstream.shards.members.video import video_member

from .fragments import cut_out
from .kept import find_kept_video
from .profile import BLOCK, FrameRate, VideoProfile
from .source import Damage
from .video import EncodedVideo, encode_video

BACKGROUND = 128
"""Grey level behind transparent pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnClip:
    """Frames uint8 (H, W, 3) or (H, W, 4), RGB or RGBA of any sizes, at `fps` per second."""

    frames: Sequence[UInt8s]
    fps: int


def write_clip(frames: Sequence[UInt8s], path: Path, *, fps: int) -> Path:
    """Write frames, centred on one canvas whose sides are multiples of BLOCK, as FFV1 in Matroska.

    The file appears only when it is complete. An existing file is kept.

    Args:
        frames: uint8 (H, W, 3) or (H, W, 4), RGB or RGBA of any sizes.
        path: File to write.
        fps: Frames per second.

    Returns:
        `path`.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (-(-max(frame.shape[axis] for frame in frames) // BLOCK) * BLOCK for axis in (0, 1))
    partial = path.with_name(f".{path.stem}.{os.getpid()}.mkv")
    try:
        with av.open(str(partial), "w", format="matroska", options={"fflags": "+bitexact"}) as out:
            stream = out.add_stream("ffv1", rate=fps)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1
            to_yuv = VideoReformatter()
            for number, frame in enumerate(frames):
                picture = (
                    to_yuv.reformat(  # shared by all frames: a scaler per frame would be set up again, with threads
                        VideoFrame.from_ndarray(place_on_canvas(frame, height, width), format="rgb24"),
                        format="yuv420p",
                        dst_colorspace=Colorspace.ITU601,
                        dst_color_range=ColorRange.MPEG,
                        threads=1,
                    )
                )
                picture.pts, picture.time_base = number, Fraction(1, fps)
                out.mux(stream.encode(picture))
            out.mux(stream.encode(None))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def place_on_canvas(frame: UInt8s, height: int, width: int) -> UInt8s:
    """Centre a frame uint8 (H, W, 3) or (H, W, 4) on a grey canvas, uint8 (height, width, 3), RGB."""
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    top, left = (height - frame.shape[0]) // 2, (width - frame.shape[1]) // 2
    alpha = frame[:, :, 3:].astype(np.uint32) if frame.shape[2] == 4 else 255
    colours = frame[:, :, :3].astype(np.uint32) * alpha + BACKGROUND * (255 - alpha)
    canvas[top : top + frame.shape[0], left : left + frame.shape[1]] = (colours + 127) // 255
    return canvas


@dataclass(frozen=True, slots=True)
class VideoEncoder(ProfiledEncoder):
    """Encodes videos with a profile. `made_by` of a source creates a `DrawnClip`.

    Attributes:
        damage: How to treat a video that is partly damaged or truncated; with profile copy it is always rejected.
        least_whole: Fraction of its frames that must remain (`encode_video`).
    """

    version: ClassVar[int] = 7
    modality: ClassVar[str] = "video"

    damage: Damage = "reject"
    least_whole: PositiveProportion = 0.5

    def validate(self) -> None:
        if self.damage != "reject" and self.video.name == "copy":
            raise ValueError(
                f"damage={self.damage!r} encodes the remaining frames, but profile 'copy' keeps packets; use train"
            )

    def encode(self, source: Source) -> Encoded:
        """Encode the video, or its window in frames or span (see `encode_video`)."""
        drawn = made_of(source, DrawnClip)
        if drawn is not None:
            video = self._drawn(drawn)
        else:
            part = source.span or source.window
            video = find_kept_video(source) or encode_video(
                source.path, self.video, part, damage=self.damage, least_whole=self.least_whole
            )
        return Encoded(members={"mp4": video_member(video.data, video.index)}, meta=video.meta, signals=video.signals)

    def _drawn(self, clip: DrawnClip) -> EncodedVideo:
        with TemporaryDirectory() as folder:
            return encode_video(write_clip(clip.frames, Path(folder) / "drawn.mkv", fps=clip.fps), self.video)


@dataclass(frozen=True, kw_only=True, slots=True)
class FramesEncoder(ProfiledEncoder):
    """Encodes the frames of a source, in the order of its files.

    Attributes:
        fps: Frames per second at which they were extracted, which the images do not store.
    """

    version: ClassVar[int] = 3
    modality: ClassVar[str] = "video"

    fps: FrameRate = 30.0

    def in_profile(self, profile: VideoProfile) -> Self:
        """Return the encoder with another profile. Raise ValueError for copy, because there is no video to copy."""
        if profile.name == "copy":
            raise ValueError("profile 'copy' keeps the packets of a video, but these are images; use train or fast")
        return replace(self, video=profile)

    def encode(self, source: Source) -> Encoded:
        """Encode the frames. Raises RejectError if one is not a JPEG, or is damaged."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "frames.mkv"
            _join(source.files, path, Fraction(self.fps).limit_denominator(1001))
            video = encode_video(path, self.video)
        return Encoded(members={"mp4": video_member(video.data, video.index)}, meta=video.meta, signals=video.signals)


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
                raise RejectError("open", f"the frame {path.name} is not a JPEG, or is truncated")
            packet = Packet(data)
            packet.stream, packet.time_base = stream, 1 / rate
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            try:
                container.mux(packet)
            except av.FFmpegError as error:
                raise RejectError("encode", f"the frame {path.name} cannot be joined ({explain(error)})") from error


@dataclass(frozen=True, slots=True)
class EpisodeEncoder(ProfiledEncoder):
    """Encodes an episode: the video at `path`, and the rows of the Parquet file in `parts` that have its number.

    meta["episode"] is the number, meta["arrays"] the column and the row shape of each array by its name, and
    meta["span_s"] the part of the video that is the episode, None for the whole. The arrays become the members
    NAME.npy.

    For an episode with several videos, meta["videos"] names their members, meta["spans_s"] contains the part of each,
    and `parts` ends with the files of all but the first.
    """

    version: ClassVar[int] = 3
    modality: ClassVar[str] = "video"

    def in_profile(self, profile: VideoProfile) -> Self:
        """Return the encoder with another profile. Raise ValueError for a profile that changes the number of frames."""
        if profile.fps is not None:
            raise ValueError(
                f"profile {profile.name!r} drops frames, but actions have one row per frame; use the profile 'train'"
            )
        return replace(self, video=profile)

    def encode(self, source: Source) -> Encoded:
        """Encode an episode. Raises RejectError if the numbers of frames and rows differ."""
        arrays = _arrays(source.parts[0], source.meta["episode"], source.meta["arrays"])
        n_rows = len(next(iter(arrays.values())))
        names = source.meta.get("videos", ["mp4"])
        spans = source.meta["spans_s"] if "spans_s" in source.meta else [source.meta["span_s"]]
        members: dict[str, Member] = {}
        meta: dict[str, Any] = {}
        for name, path, span_s in zip(names, (source.path, *source.parts[1:]), spans, strict=True):
            video = encode_video(path, self.video) if span_s is None else self._part(path, span_s, n_rows)
            if video.index.n_frames != n_rows:
                raise RejectError(
                    "check", f"has {video.index.n_frames} frames, but {n_rows} rows of actions and states"
                )
            members[name] = video_member(video.data, video.index)
            meta = meta or video.meta
        members |= {f"{name}.npy": array_member(array) for name, array in arrays.items()}
        return Encoded(members=members, meta=meta)

    def _part(self, path: Path, span_s: tuple[float, float], n_rows: int) -> EncodedVideo:
        """Encode the part of a video that is an episode. With profile copy, it must begin with a keyframe."""
        cut = cut_out(path, (span_s[0], span_s[1]))
        window = (cut.lead, cut.lead + n_rows)
        with TemporaryDirectory() as folder:
            part = Path(folder) / "episode.mp4"
            part.write_bytes(cut.data)
            return encode_video(part, self.video, None if window == (0, cut.n_frames) else window)


def _arrays(path: Path, episode: int, columns: dict[str, tuple[str, list[int]]]) -> dict[str, npt.NDArray[Any]]:
    """Each array (T, ...) by its name. Raises RejectError if the file does not have them, OSError if it cannot be
    read.
    """
    wanted = [column for column, _ in columns.values()]
    try:
        table = pq.read_table(path, columns=[*wanted, "frame_index"], filters=[("episode_index", "=", episode)])
        table = table.sort_by("frame_index").combine_chunks()
        found = {name: _build_array(table.column(column), shape) for name, (column, shape) in columns.items()}
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise RejectError("decode", f"the rows in {path.name} cannot be read ({error})") from error
    if not table.num_rows:
        raise RejectError("decode", f"{path.name} has no rows of episode {episode}")
    return found


def _build_array(column: Any, shape: list[int]) -> npt.NDArray[Any]:
    """A column of numbers, or of lists of them, as an array (T, ...) with rows of a shape; booleans become uint8."""
    rows, values = len(column), column.combine_chunks()
    while pa.types.is_nested(values.type):
        values = values.flatten()
    array = np.asarray(values.to_numpy(zero_copy_only=False))
    if array.dtype.kind not in "fiub":
        raise ValueError(f"a column of {column.type} contains no numbers")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return np.ascontiguousarray(array.reshape(rows, *shape)).astype(array.dtype.newbyteorder("<"), copy=False)
